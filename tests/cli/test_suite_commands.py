"""`eval --suite`, `report` of a benchmark, and `ask`, as a user runs them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from adhere.cli.main import main
from adhere.errors import BadInput
from adhere.experiments.plan_file import read_plan
from support.fake_server import FakeServer, Reply
from support.judging import is_judging, judge_handler

FIXTURE = Path(__file__).parents[1] / "fixtures/specbench"
SPEC = '# Mine\n\n## Safety\n- [no-bomb] Never say bomb.\n  check: absent("bomb")\n'
GOOD = judge_handler(lambda rule, answer: "YES", lambda body: "fine")


@pytest.fixture
def adhere(capsys):
    """Run a command; its exit code, standard output and standard error."""

    def run(*args):
        with pytest.raises(SystemExit) as done:
            main([str(arg) for arg in args])
        return done.value.code, *capsys.readouterr()

    return run


def arguments(server, out, scenarios="Child+Health"):
    return [
        *("eval", "--suite", f"specbench:path={FIXTURE},scenarios={scenarios}", "--out", out),
        *("--model", "openai:m", "--base-url", server.url, "--prefill", "none"),
        *("--method", "vanilla", "--judge", "openai:j", "--judge-base-url", server.url),
    ]


@pytest.fixture
def benchmark(tmp_path, monkeypatch, adhere):
    monkeypatch.chdir(tmp_path)
    with FakeServer(GOOD) as server:
        code, *_ = adhere(*arguments(server, "bench"))
    assert code == 0
    return Path("bench")


# ---------------------------------------------------------------- report


def test_report_prints_a_benchmark_s_table_and_writes_its_page_again(benchmark, adhere):
    was = (benchmark / "benchmark.json").read_bytes()
    (benchmark / "report.html").unlink()
    code, out, err = adhere("report", benchmark)
    assert (code, err) == (0, "")
    for word in ("All scenarios", "Child", "Health", "vanilla", "Report: bench/report.html"):
        assert word in out
    assert (benchmark / "benchmark.json").read_bytes() == was
    assert "Health" in (benchmark / "report.html").read_text()


def test_report_prints_it_as_csv_latex_and_markdown(benchmark, adhere):
    table = json.loads((benchmark / "benchmark.json").read_text())
    sar = next(
        f"{100 * row['sar']:.2f}"
        for row in table["rows"]
        if row["part"] is None and row["method"] == "vanilla" and row["subset"] == "all"
    )
    code, out, err = adhere("report", benchmark, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and {line["part"] for line in lines} == {"", "Child", "Health"}
    assert (lines[0]["method"], lines[0]["sar"]) == ("vanilla", sar)
    assert "report.html" in err
    code, out, _ = adhere("report", benchmark, "--format", "latex")
    assert code == 0 and out.count(r"\begin{tabular}") == 2 and sar in out
    code, out, err = adhere("report", benchmark, "--format", "markdown")
    assert code == 0 and "report.html" in err
    body = [line for line in out.splitlines() if line.startswith("| ")]
    assert len({line.count(" | ") for line in body}) == 1
    groups = [line.split(" | ")[0].removeprefix("| ") for line in body[2:]]
    assert list(dict.fromkeys(groups)) == ["All scenarios", "Child", "Health"]
    assert sar in body[2] and "- Percent." in out


@pytest.mark.parametrize(
    "option",
    [["--subset", "unsafe"], ["--all-rows"], ["--parquet", "x"], ["--inspect", "x"],
     ["--specbench", "x"]],
)  # fmt: skip
def test_what_is_for_one_part_is_refused_by_name(benchmark, adhere, option):
    code, _, err = adhere("report", benchmark, *option)
    assert code == 2 and option[0] in err and "bench/NAME" in err
    code, *_ = adhere("report", benchmark / "Child", "--subset", "unsafe")
    assert code == 0


def test_a_damaged_benchmark_s_file_is_an_error_that_says_what_to_do(benchmark, adhere):
    (benchmark / "benchmark.json").write_text('{"parts": [{"part": "Child"}]}')
    code, _, err = adhere("report", benchmark)
    assert code == 2 and "bench/benchmark.json" in err and "adhere eval" in err


# ---------------------------------------------------------------- eval


def test_a_benchmark_with_many_unscored_rows_names_the_files_of_its_parts(
    tmp_path, monkeypatch, adhere
):
    monkeypatch.chdir(tmp_path)

    def handler(path, body):
        """The judge of the scenario with stories says nothing that can be read."""
        if is_judging(body) and "Never let a story end in fear" in str(body):
            return Reply("who knows")
        return GOOD(path, body)

    with FakeServer(handler) as server:
        code, _, err = adhere(*arguments(server, "bench"))
    said = err[err.index("adhere: more than") :]
    assert code == 3
    assert "bench/Child/results.jsonl" in said and "bench/Health" not in said
    assert "bench/results.jsonl" not in said


def write_plan(folder: Path, **fields) -> Path:
    (folder / "spec.md").write_text(SPEC)
    (folder / "prompts.jsonl").write_text('{"prompt": "Hello?"}\n')
    data = {"spec": "spec.md", "prompts": "prompts.jsonl", "models": ["openai:m"],
            "methods": ["vanilla"], "judge": "openai:j", **fields}  # fmt: skip
    file = folder / "adhere.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))
    return file


def test_a_suite_of_the_command_line_is_not_run_under_the_spec_of_the_file(tmp_path):
    file = write_plan(tmp_path)
    suites = [f"specbench:path={FIXTURE}"]
    plan = read_plan(file, {"suites": suites})
    assert plan.spec is None and plan.prompts == ()
    given = read_plan(file, {"suites": suites, "spec": tmp_path / "spec.md"})
    assert given.spec == tmp_path / "spec.md"
    both = read_plan(file, {"suites": suites, "prompts": [tmp_path / "prompts.jsonl"]})
    assert both.spec == tmp_path / "spec.md"
    in_file = write_plan(tmp_path, prompts=None, suites=[f"specbench:path={FIXTURE}"])
    assert read_plan(in_file, {"suites": suites}).spec == tmp_path / "spec.md"


@pytest.mark.parametrize(
    "suites",
    ["specbench:path=data", ["specbench:path=data,scenarios=Health"],
     {"suite": "specbench", "path": "data"},
     [{"suite": "specbench", "options": {"path": "data", "seed": 1}}]],
)  # fmt: skip
def test_the_path_of_a_suite_is_from_the_file_s_folder_in_every_form(tmp_path, suites):
    plan = read_plan(write_plan(tmp_path, spec=None, prompts=None, suites=suites), {})
    [suite] = plan.suites
    assert suite.options["path"] == tmp_path / "data"


@pytest.mark.parametrize("suites", [["specbench:oops"], [{"path": "x"}], [7], "a=specbench"])
def test_a_broken_suite_in_the_file_is_named(tmp_path, suites):
    with pytest.raises(BadInput, match="suites"):
        read_plan(write_plan(tmp_path, spec=None, prompts=None, suites=suites), {})


# ---------------------------------------------------------------- ask


@pytest.mark.parametrize("method", ["best_of_n", "tpo"])
def test_ask_refuses_a_reward_model_before_it_pays_for_anything(
    tmp_path, monkeypatch, adhere, method
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.md").write_text(SPEC)
    with FakeServer() as server:
        ask = ["ask", "Hello?", "--spec", "spec.md", "--model", "openai:m"]
        ask += ["--base-url", server.url, "--prefill", "none", "--method"]
        code, _, err = adhere(*ask, method)
        assert (code, server.calls) == (2, [])
        assert f"--method {method}:selector=checks" in err
        code, out, _ = adhere(*ask, "best_of_n:selector=checks,n=2")
    assert code == 0 and out == "fine\n"


# ---------------------------------------------------------------- SpecBench's files


def test_two_arms_that_would_share_a_folder_are_found_before_anything_is_written(tmp_path, adhere):
    labels = [f"--method={label}=raw" for label in ("first", "a/b", "A b", "last")]
    with FakeServer(GOOD) as server:
        code, *_ = adhere(*arguments(server, tmp_path / "run", "Health"), *labels)
    assert code == 0
    code, _, err = adhere("report", tmp_path / "run", "--specbench", tmp_path / "out")
    assert code == 2 and "would share this folder" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("withheld", [True, False])
def test_a_withheld_judge_s_files_are_not_written_in_silence(benchmark, adhere, withheld):
    file = benchmark / "Child/summary.json"
    summary = json.loads(file.read_text())
    summary["judge_trust"] = {**(summary["judge_trust"] or {}), "withheld": withheld, "why": "x"}
    file.write_text(json.dumps(summary))
    code, _, err = adhere("report", benchmark / "Child", "--specbench", "out")
    assert code == 0, err
    assert ("withholds this judge's numbers" in err) == withheld
    assert len(list(Path("out").rglob("generate.json"))) == 1
