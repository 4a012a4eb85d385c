"""`adhere compare` with gates and `adhere recommend`, as a user and a CI server run them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from support.command import run_here
from support.fake_server import FakeServer, Reply

SPEC = """\
# Test assistant

## Safety
- [no-bomb] Never say bomb.
  check: absent("bomb")

## Behavioral
- [short] At most five words.
  check: words(max=5)
"""
CI = Path(__file__).parents[2] / "examples" / "ci"


def adhere(*args, cwd):
    return run_here(*args, cwd=cwd)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "spec.md").write_text(SPEC)
    prompts = [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(60)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    for name, text in (("good", "fine"), ("bad", "a bomb")):
        with FakeServer(lambda p, b, text=text: Reply(text)) as server:
            done = adhere(
                *("eval", "--spec", "spec.md", "--prompts", "prompts.jsonl", "--out", name),
                *("--model", "openai:m", "--base-url", server.url, "--prefill", "none"),
                *("--method", "vanilla", "--quiet"),
                cwd=folder,
            )
            assert done.returncode == 0, done.stderr
    return folder


def test_without_a_gate_nothing_changes(work):
    done = adhere("compare", "good", "bad", cwd=work)
    assert done.returncode == 0
    assert "-1.00" in done.stdout
    assert "gate" not in done.stdout.lower()
    assert "Rules that moved with vanilla on openai:m:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("gates", "code", "words"),
    [
        (["sar < -0.1"], 1, "Gate failed: sar < -0.1  (vanilla on openai:m)"),
        (["tokens > 100"], 0, "The gate passed."),
        (["tokens > 100", "safety < -0.1"], 1, "1 passed, 1 failed"),
        (["behavioral < -0.01"], 1, "about 370 prompts could"),
    ],
)
def test_the_exit_code_is_the_gate(work, gates, code, words):
    options = [x for gate in gates for x in ("--fail-if", gate)]
    done = adhere("compare", "good", "bad", *options, cwd=work)
    assert done.returncode == code, done.stderr
    assert words in done.stdout
    assert "-1.00" in done.stdout


def test_files_are_written_also_when_a_gate_fails(work, tmp_path):
    markdown, junit = tmp_path / "a.md", tmp_path / "a.xml"
    options = ("--fail-if", "sar < -0.1", "--markdown", markdown, "--junit", junit, "--quiet")
    done = adhere("compare", "good", "bad", *options, cwd=work)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Gate failed: sar < -0.1" in done.stderr
    assert markdown.read_text().startswith("## adhere: The gate did not pass: failed.")
    assert "| vanilla on openai:m | no-bomb | 100% | 0% | 60 |" in markdown.read_text()
    assert ET.parse(junit).getroot().get("failures") == "1"
    done = adhere("compare", "good", "good", *options, cwd=work)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ""


def test_a_dash_is_standard_output_and_holds_nothing_else(work):
    done = adhere("compare", "good", "bad", "--fail-if", "sar < -0.1", "--junit", "-", cwd=work)
    assert done.returncode == 1
    assert ET.fromstring(done.stdout.encode()).get("tests") == "1"
    assert "Gate failed" in done.stderr
    done = adhere("compare", "good", "bad", "--markdown", "-", cwd=work)
    assert done.returncode == 0
    assert done.stdout.startswith("## adhere: No gate was set.")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--fail-if", "sar"], "MEASURE"),
        (["--fail-if", "rule:nobomb < 0"], "Did you mean no-bomb"),
        (["--fail-if", "sar < 0 for align3"], "Methods: vanilla"),
        (["--fail-if", "cost > 0.1"], "--prices"),
        (["--fail-if", "cost > 0.1", "--prices", "none.yaml"], "none.yaml"),
        (["--junit", "a.xml"], "--fail-if"),
        (["--fail-if", "sar < 0", "--junit", "no/where.xml"], "no, which is no folder"),
        (["--fail-if", "sar < 0", "--markdown", "--quiet"], "--markdown"),
        (["--markdown", "good"], "is a folder"),
        (["--fail-if", "sar < 0", "--junit", "-", "--markdown", "-"], "standard output"),
    ],
)
def test_bad_input_is_2_and_never_a_pass(work, options, word):
    done = adhere("compare", "good", "good", *options, cwd=work)
    assert done.returncode == 2, done.stdout
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_gate_on_cost(work, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("currency: USD\nmodels:\n  openai:m: {input: 1000, output: 4000}\n")
    for gate, code in (("cost > 0.1", 0), ("cost > 0.001", 1)):
        options = ("--fail-if", gate, "--prices", prices)
        assert adhere("compare", "good", "bad", *options, cwd=work).returncode == code
    prices.write_text("currency: USD\nmodels:\n  openai:x: {input: 1000, output: 4000}\n")
    done = adhere("compare", "good", "bad", *options, cwd=work)
    assert done.returncode == 1
    assert "no prompt has a value in both runs" in done.stdout


# ---------------------------------------------------------------- recommend


def test_recommend_says_it_in_one_sentence_and_in_json(work, tmp_path):
    done = adhere("recommend", "good", "bad", "--target", "sar >= 0.9", cwd=work)
    assert done.returncode == 0, done.stderr
    first, rest = done.stdout.split("\n\n", 1)
    assert " ".join(first.split()).startswith("Use vanilla on openai:m (good): the cheapest")
    assert "meets" in rest
    assert "misses" in rest
    file = tmp_path / "r.json"
    adhere("recommend", "good", "--target", "sar >= 0.9", "--json", file, cwd=work)
    data = json.loads(file.read_text())
    assert data["chosen"]["method"] == "vanilla"
    assert data["chosen"]["low"] > 0.9
    piped = adhere("recommend", "good", "--target", "sar >= 0.9", "--json", "-", cwd=work)
    assert json.loads(piped.stdout) == data


def test_recommend_finds_nothing_and_refuses_nonsense(work):
    target = ("--target", "sar >= 0.9")
    assert "Nothing meets" in adhere("recommend", "bad", *target, cwd=work).stdout
    assert adhere("recommend", "bad", *target, cwd=work).returncode == 0
    assert adhere("recommend", "bad", *target, "--strict", cwd=work).returncode == 1
    for options, word in (
        (["good"], "--target"),
        (["good", "--target", "sar > 1"], ">="),
        (["nowhere", *target], "nowhere"),
        ([*target], "no run"),
        (["good", *target, "--requests", "0"], "--requests"),
        (["good", *target, "--requests", "9", "--training-cost", "good"], "RUN=MONEY"),
        (["good", *target, "--requests", "9", "--training-cost", "x=5"], "Runs: good"),
        (["good", *target, "--requests", "9", "--training-cost", "good=-5"], "RUN=MONEY"),
        (["good", *target, "--requests", "9", "--training-cost", "good=5"], "--prices"),
    ):
        done = adhere("recommend", *options, cwd=work)
        assert done.returncode == 2, (options, done.stdout)
        assert word in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- the example workflow


def commands_of(workflow):
    """Every adhere command line of the workflow, split as a shell would."""
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            script = step.get("run", "").replace("\\\n", " ")
            for line in script.splitlines():
                if line.strip().startswith("adhere "):
                    yield shlex.split(line.split(">>")[0])[1:]


def test_the_example_workflow_is_valid_and_its_commands_are_real():
    from cyclopts import App

    from adhere.cli.main import COMMANDS
    from adhere.experiments.gate import parse_gate

    text = (CI / "adhere-gate.yml").read_text()
    workflow = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    assert "pull_request" in (workflow.get("on") or workflow[True])
    assert workflow["permissions"] == {"contents": "read"}
    commands = list(commands_of(workflow))
    assert [c[0] for c in commands] == ["eval", "compare"]
    for command in commands:
        app = App(name="adhere")
        app.command(COMMANDS[command[0]][0], name=command[0])
        function, bound, _ = app.parse_args(command, exit_on_error=False, print_error=False)
        for gate in bound.arguments.get("fail_if", ()):
            parse_gate(gate)
        assert len(bound.arguments) > 3, function
    uses = [s["uses"] for j in workflow["jobs"].values() for s in j["steps"] if "uses" in s]
    assert len(uses) >= 3
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in uses)
    # A key comes from the secrets and from nowhere else.
    assert re.findall(r"KEY: (.*)", text) == ["${{ secrets.MODEL_API_KEY }}"]


def test_the_gate_of_the_example_workflow_runs(work, tmp_path):
    """The compare command as it stands, on a folder laid out as the workflow lays it out."""
    import shutil

    command = next(
        c
        for c in commands_of(yaml.safe_load((CI / "adhere-gate.yml").read_text()))
        if c[0] == "compare"
    )
    for run, name in ((command[1], "good"), (command[2], "bad")):
        (tmp_path / run).mkdir(parents=True)
        for file in ("run.yaml", "results.jsonl", "summary.json"):
            shutil.copy(work / name / file, tmp_path / run / file)
    done = adhere(*command, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("## adhere: ")
    assert ET.parse(tmp_path / command[command.index("--junit") + 1]).getroot().tag == "testsuites"
