"""Running all parts of a suite: folders, limits, other choices of parts, errors, and a kill."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from adhere.errors import BadInput
from adhere.experiments.benchmark import (
    BenchmarkResult,
    evaluate_plan,
    part_plan,
    refresh_benchmark,
)
from adhere.experiments.benchmark_folders import check_folders
from adhere.experiments.dry_run import estimate_plan
from adhere.experiments.plan import Plan, SuitePlan
from adhere.experiments.starts import RunResult, Silent
from adhere.suites import Suite
from support.fake_server import FakeServer, Reply
from support.judging import is_judging, joint_reply, judge_handler

FIXTURE = Path(__file__).parents[1] / "fixtures/specbench"
GOOD = judge_handler(lambda rule, answer: "YES", lambda body: "fine")
OWN_SPEC = '# Mine\n\n## Safety\n- [no-bomb] Never say bomb.\n  check: absent("bomb")\n'


def plan(folder: Path, server: FakeServer, scenarios: str = "Child+Health", **fields: Any) -> Plan:
    base: dict[str, Any] = {
        "suites": [f"specbench:path={FIXTURE},scenarios={scenarios}"],
        "models": [{"model": "openai:policy", "base_url": server.url, "prefill": "none"}],
        "methods": ["vanilla"],
        "judge": {"model": "openai:judge", "base_url": server.url, "prefill": "none",
                  "output": "text"},
        "controls": 1,
        "limits": {"attempts": 1},
        "out": folder / "run",
    }  # fmt: skip
    return Plan(**{**base, **fields})


class Notes(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def evaluate(made: Plan, listener: Any = None) -> Any:
    return asyncio.run(evaluate_plan(made, listener))


def parts_of(table) -> list[str]:
    return [part["name"] for part in table["parts"]]


# ---------------------------------------------------------------- one part and several


def test_a_single_part_is_an_ordinary_run_in_the_folder_itself(tmp_path):
    with FakeServer(GOOD) as server:
        result = evaluate(plan(tmp_path, server, "Health"))
        calls = len(server.calls)
        again = evaluate(plan(tmp_path, server, "Health"))
        assert len(server.calls) == calls
        # Its folder is no place for the parts of another plan, nor the other way round.
        with pytest.raises(BadInput, match="a run of one part"):
            evaluate(plan(tmp_path, server))
    assert isinstance(result, RunResult) and again.did_nothing
    names = {entry.name for entry in result.folder.iterdir()}
    assert {"run.yaml", "results.jsonl", "report.html", "spec.md"} <= names
    assert "benchmark.json" not in names and "Health" not in names


def test_several_parts_each_have_a_run_and_one_table_stands_above(tmp_path):
    notes = Notes()
    with FakeServer(GOOD) as server:
        result = evaluate(plan(tmp_path, server), notes)
        with pytest.raises(BadInput, match="several parts"):
            evaluate(plan(tmp_path, server, "Health"))
    assert isinstance(result, BenchmarkResult)
    assert (result.exit_code, result.did_nothing, result.stopped) == (0, False, "")
    assert list(result.parts) == parts_of(result.table) == ["Child", "Health"]
    assert notes.said[0] == "Child (1 of 2)"
    for part in ("Child", "Health"):
        assert (tmp_path / "run" / part / "spec.md").is_file()
    assert refresh_benchmark(tmp_path / "run") == result.table


def test_another_choice_of_parts_keeps_those_that_are_there(tmp_path):
    with FakeServer(GOOD) as server:
        evaluate(plan(tmp_path, server))
        made = len(server.calls)
        result = evaluate(plan(tmp_path, server, "Code+Health"))
        calls = len(server.calls) - made
    assert list(result.parts) == ["Code", "Health"]
    assert parts_of(result.table) == ["Child", "Health", "Code"]
    assert result.table["incomplete"] == []
    assert calls == made // 2  # Health was there
    assert parts_of(refresh_benchmark(tmp_path / "run")) == ["Child", "Health", "Code"]
    # What never ran and is not chosen any more is not missing.
    shutil.rmtree(tmp_path / "run/Child")
    with FakeServer(GOOD) as server:
        table = evaluate(plan(tmp_path, server, "Code+Health")).table
    assert parts_of(table) == ["Health", "Code"]


def test_one_spec_for_a_suite_that_brings_its_own_is_said(tmp_path):
    (tmp_path / "mine.md").write_text(OWN_SPEC)
    notes = Notes()
    with FakeServer(GOOD) as server:
        result = evaluate(plan(tmp_path, server, spec=tmp_path / "mine.md"), notes)
    assert isinstance(result, RunResult)
    [said] = [text for text in notes.said if "mine.md" in text]
    assert "Child, Health" in said and "--spec" in said


# ---------------------------------------------------------------- folders and names


@pytest.mark.parametrize(
    "stray", ["notes.txt", "photos/a.jpg", "Child/thesis.txt", "Child", ".git/config"]
)
@pytest.mark.parametrize("how", [evaluate, estimate_plan])
def test_a_folder_with_other_files_is_refused_before_anything_is_asked(tmp_path, stray, how):
    file = tmp_path / "run" / stray
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with FakeServer(GOOD) as server:
        with pytest.raises(BadInput, match=r"holds other files|regular file"):
            how(plan(tmp_path, server))
        assert not server.calls
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("how", [evaluate, estimate_plan])
def test_so_is_one_for_a_single_run(tmp_path, how):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with FakeServer(GOOD) as server, pytest.raises(BadInput, match="no run folder"):
        how(plan(tmp_path, server, "Child"))


def test_a_benchmark_without_its_file_goes_on(tmp_path):
    with FakeServer(GOOD) as server:
        evaluate(plan(tmp_path, server))
        calls = len(server.calls)
        for name in ("benchmark.json", "report.html"):
            (tmp_path / "run" / name).unlink()
        (tmp_path / "run/.benchmark.json.tmp").write_text("half")
        (tmp_path / "run/Code").mkdir()
        (tmp_path / "run/Code/.lock").touch()  # killed while it began
        again = evaluate(plan(tmp_path, server))
        assert len(server.calls) == calls
    assert again.did_nothing and (tmp_path / "run/benchmark.json").is_file()


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "a/b", "a\\b", ".hidden", "-x", "a:b", "a\n", "a\0", "Benchmark.json",
     "report.html"],
)  # fmt: skip
def test_a_part_s_name_that_can_be_no_folder_is_refused(tmp_path, name):
    with FakeServer() as server:
        made = plan(tmp_path, server)
    with pytest.raises(BadInput, match="cannot be the name of a folder"):
        part_plan(made, name)
    with pytest.raises(BadInput, match="cannot be the name of a folder"):
        check_folders(tmp_path / "run", [Suite("Health", ()), Suite(name, ())])


def test_names_of_data_of_one_s_own_are_looked_at_before_anything_is_asked(tmp_path):
    for name in ("Fine 1.0", "a;b"):
        shutil.copytree(FIXTURE / "Health", tmp_path / "data" / name)
    own = [{"suite": "specbench", "path": tmp_path / "data"}]
    with FakeServer(GOOD) as server:
        for how in (evaluate, estimate_plan):
            with pytest.raises(BadInput, match="'a;b'"):
                how(plan(tmp_path, server, suites=own))
        assert not server.calls
    assert not (tmp_path / "run").exists()


def test_names_that_differ_in_case_alone_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"'Health' and 'HEALTH'"):
        check_folders(tmp_path / "run", [Suite("Health", ()), Suite("HEALTH", ())])


@pytest.mark.parametrize("folder", ["..", "../other", "/etc", "", "a\\b"])
def test_a_benchmark_s_file_cannot_lead_out_of_its_folder(tmp_path, folder):
    file = tmp_path / "benchmark.json"
    parts = [{"name": "Child", "folder": folder}]
    file.write_text(json.dumps({"name": "x", "seed": 0, "parts": parts}))
    with pytest.raises(BadInput, match=r"benchmark\.json: cannot be read"):
        refresh_benchmark(tmp_path)


# ---------------------------------------------------------------- limits


def test_nothing_is_done_only_where_something_was_done_before(tmp_path):
    assert not BenchmarkResult(tmp_path, {}, {}).did_nothing
    done = RunResult(tmp_path, {}, did_nothing=True)
    assert BenchmarkResult(tmp_path, {"a": done}, {}).did_nothing
    assert not BenchmarkResult(tmp_path, {"a": done}, {}, "stopped before b").did_nothing


@pytest.mark.parametrize("stop", [{"tokens": 1}, {"seconds": 1e-9}])
def test_a_spent_limit_stops_only_what_has_work(tmp_path, stop):
    with FakeServer(GOOD) as server:
        evaluate(plan(tmp_path, server))
        calls = len(server.calls)
        again = evaluate(plan(tmp_path, server, stop=stop))
        assert (again.exit_code, again.did_nothing, list(again.parts)) == (
            0, True, ["Child", "Health"],
        )  # fmt: skip
        # A part that is new.
        more = evaluate(plan(tmp_path, server, "Child+Code+Health", stop=stop))
        assert (more.exit_code, more.did_nothing, list(more.parts)) == (4, False, ["Child"])
        assert "before Code" in more.stopped
        assert not (tmp_path / "run/Code").exists()
        assert {"part": "Code", "why": "not run yet"} in more.table["incomplete"]
        # A part that was finished and has a further method now.
        wider = evaluate(plan(tmp_path, server, methods=["vanilla", "raw"], stop=stop))
        assert wider.exit_code == 4 and wider.stopped.startswith("Child: ")
        assert len(server.calls) == calls
        whole = evaluate(plan(tmp_path, server, "Child+Code+Health"))
    assert whole.exit_code == 0


def test_what_parts_of_an_earlier_choice_spent_is_spent(tmp_path):
    with FakeServer(GOOD) as server:
        first = evaluate(plan(tmp_path, server))
        used = [part["spent"] for part in first.table["parts"]]
        tokens = sum(u["prompt_tokens"] + u["completion_tokens"] for u in used)
        calls = len(server.calls)
        result = evaluate(plan(tmp_path, server, "Code+Travel", stop={"tokens": tokens}))
        assert len(server.calls) == calls
    assert result.exit_code == 4 and "before Code" in result.stopped


# ---------------------------------------------------------------- errors


def test_the_error_on_its_way_is_not_hidden_by_a_damaged_part(tmp_path):
    with FakeServer(GOOD) as server:
        evaluate(plan(tmp_path, server, "Code+Health+Travel"))
        travel = tmp_path / "run/Travel/results.jsonl"
        travel.write_text("no row\n" + travel.read_text())
        with pytest.raises(BadInput, match=r"Travel/results\.jsonl:1"):
            refresh_benchmark(tmp_path / "run")
        shutil.rmtree(tmp_path / "run/Code")
        other = plan(tmp_path, server, "Code+Health", sampling={"temperature": 0.1})
        with pytest.raises(BadInput, match="another identity"):
            evaluate(other)


# ---------------------------------------------------------------- dry run


def test_a_dry_run_refuses_what_the_run_would(tmp_path):
    with FakeServer() as server:
        made = plan(tmp_path, server, reuse=tmp_path / "nothing")
        for how in (evaluate, estimate_plan):
            with pytest.raises(BadInput, match="--reuse"):
                how(made)
        (tmp_path / "file").write_text("")
        under = plan(tmp_path, server, out=tmp_path / "file/run")
        for how in (evaluate, estimate_plan):
            with pytest.raises(BadInput, match="regular file"):
                how(under)


def test_a_dry_run_says_that_an_early_stop_may_ask_less(tmp_path):
    with FakeServer() as server:
        found = estimate_plan(plan(tmp_path, server, stop={"half_width": 0.05}))
        assert "may stop earlier" in found.notes[-1] and "0.05" in found.notes[-1]
        plain = estimate_plan(plan(tmp_path, server))
    assert not any("earlier" in note for note in plain.notes)
    assert found.total == plain.total


def test_the_short_and_the_long_form_of_a_suite_are_one():
    assert SuitePlan.model_validate("specbench:path=x") == SuitePlan(
        suite="specbench", options={"path": "x"}
    )


# ---------------------------------------------------------------- killed


def fingerprint(body: dict[str, Any]) -> int:
    """What tells a request from every other one; it is its number of prompt tokens."""
    coded = json.dumps(body, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(coded).digest()[:4]) % 900_000_000


def asked_of(bodies: list[dict[str, Any]]) -> list[int]:
    """All but what every part asks alike: which forms of reply its judge can give."""
    own = [body for body in bodies if body["model"] == "policy" or is_judging(body)]
    return [fingerprint(body) for body in own]


def decide(rule: str, answer: str) -> str:
    return random.Random(rule + answer).choice(["YES", "YES", "NO", "NA"])


def committed(run: Path) -> set[int]:
    """The calls on record, read from copies: opening a journal tidies up what a kill left."""
    found: set[int] = set()
    for journal in run.glob("*/journal.sqlite"):
        with tempfile.TemporaryDirectory() as copy:
            for file in journal.parent.glob("journal.sqlite*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, copy)
            db = sqlite3.connect(Path(copy) / journal.name)
            draws = [json.loads(text) for (text,) in db.execute("SELECT completion FROM draws")]
            db.close()
        found |= {draw["usage"]["prompt_tokens"] for draw in draws}
    return found


def timeless(table: Any) -> Any:
    """Without what a clock decides, and without the folder's own name."""
    if isinstance(table, dict):
        clocks = ("seconds", "created", "name")
        return {k: timeless(v) for k, v in table.items() if k not in clocks}
    return [timeless(v) for v in table] if isinstance(table, list) else table


def test_a_benchmark_killed_in_its_second_part_goes_on_without_asking_twice(tmp_path):
    concurrency = 4
    kill_at: int | None = None
    process: subprocess.Popen[bytes] | None = None

    def handler(path: str, body: dict[str, Any]) -> Reply:
        if process and kill_at is not None and len(server.calls) >= kill_at:
            process.kill()  # before this request is answered
        text = joint_reply(body, decide) if is_judging(body) else f"Answer {fingerprint(body)}."
        return Reply(text, prompt_tokens=fingerprint(body), completion_tokens=7, delay=0.003)

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "adhere", "eval", "--out", out, "--quiet"),
            *("--suite", f"specbench:path={FIXTURE},scenarios=Child+Code+Health"),
            *("--model", "openai:policy", "--base-url", server.url, "--prefill", "none"),
            *("--method", "raw", "--method", "vanilla", "--concurrency", str(concurrency)),
            *("--judge", "openai:judge", "--judge-base-url", server.url),
        ]
        return subprocess.Popen(command, cwd=tmp_path)

    with FakeServer(handler) as server:
        assert start("whole").wait(120) == 0
        asked = asked_of(server.bodies())
        assert len(set(asked)) == len(asked)
        server.calls.clear()

        kill_at = len(asked) // 3 + len(asked) // 6
        process = start("killed")
        assert process.wait(120) == -9
        process = kill_at = None
        run = tmp_path / "killed"
        assert sorted(entry.name for entry in run.iterdir()) == ["Child", "Code"]
        assert (run / "Child/summary.json").is_file()
        assert not (run / "Code/summary.json").exists()
        known = committed(run)
        before = len(server.calls)
        assert before - 2 * concurrency <= len(known) <= before

        assert start("killed").wait(120) == 0
        again = set(asked_of(server.bodies()[before:]))
        assert not again & known
        assert set(asked) <= again | known
        assert len(asked_of(server.bodies())) <= len(asked) + 2 * concurrency
    tables = [
        json.loads((tmp_path / out / "benchmark.json").read_text()) for out in ("whole", "killed")
    ]
    assert tables[0]["incomplete"] == [] and len(tables[0]["rows"]) > 20
    assert timeless(tables[0]) == timeless(tables[1])
