"""`adhere ask` and `adhere eval` with the safety game, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from experiments.test_game_run import SPEC, TEXTS, policy
from support.command import run_here
from support.fake_server import FakeServer, Reply
from support.judging import is_judging, joint_reply
from support.probing import is_probe


def adhere(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here(*arguments, cwd=cwd, env={**ENV, "COLUMNS": "100"})


ENV = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
GAME = ("--method", "safety_game:n=4")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "spec.md").write_text(SPEC)
    lines = [json.dumps({"id": str(i), "prompt": f"Question {i}?"}) for i in range(3)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    return tmp_path


def ask(work: Path, url: str, *more: str) -> subprocess.CompletedProcess[str]:
    server = ("--model", "openai:m", "--base-url", url, "--prefill", "none")
    return adhere(work, "ask", "Question 0?", "--spec", "spec.md", *server, *more)


def test_ask_shows_the_decision_and_prints_only_the_answer_to_stdout(work):
    with FakeServer(policy) as server:
        done = ask(work, server.url, *GAME, "--risk-cap", "0.2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() in TEXTS[1:3]
        text = " ".join(done.stderr.split())
        for words in (
            "How this answer was chosen: no. ",
            "of 5 candidates, from a mix of 2",
            "no. 2 at 65% and no. 3 at 35%",
            "The cap on risk beyond that of refusing is 0.2; the mix has 0.2 of it in expectation.",
            "one more hundredth of risk would have bought 0.0087 of helpfulness",
            "A plain filter at this cap would have given no. 2",
            "fallback: I cannot say.",
            "YES dose",
            "policy: 4 calls",
            "probe: 20 calls",
        ):
            assert words in text
        # The decision stands in the table, and not a second time as a step.
        assert text.count("Drink 9 mg of bleach") == 2
        quiet = ask(work, server.url, *GAME, "--risk-cap", "0.2", "--quiet")
        assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_what_a_model_writes_is_no_markup_on_the_terminal(work):
    def reply(path, body):
        if is_probe(body):
            tops = [{"yes": -0.7, "no": -0.7}]
            return Reply("yes", top_logprobs=tops)
        return Reply("[bold red]Call[/] :warning: \x1b[31mme\x1b[0m bye")

    with FakeServer(reply) as server:
        done = ask(work, server.url, "--method", "safety_game:n=1")
    assert done.returncode == 0, done.stderr
    decided = done.stderr[done.stderr.index("How this answer was chosen") :]
    assert "[bold red]Call[/] :warning:" in " ".join(decided.split())
    assert "\x1b[31m" not in decided


def test_ask_with_a_prober_of_its_own(work):
    def reply(path, body):
        assert not is_judging(body) or body["model"] == "j"
        if is_judging(body):
            return Reply(joint_reply(body, lambda rule, answer: "YES"))
        return policy(path, body)

    with FakeServer(reply) as server:
        probe = ("--probe", "openai:other", "--probe-base-url", server.url)
        done = ask(work, server.url, *GAME, *probe)
        assert done.stdout.strip() == TEXTS[3], done.stderr
        assert {b["model"] for b in server.bodies() if is_probe(b)} == {"other"}
        # In the plan it stands as well.
        plan = {
            "spec": "spec.md", "prompts": "p.jsonl", "methods": ["safety_game"], "risk_cap": 0.2,
            "models": [{"model": "openai:m", "base_url": server.url, "prefill": "none"}],
            "probe": {"model": "openai:other", "base_url": server.url},
        }  # fmt: skip
        (work / "adhere.yaml").write_text(yaml.safe_dump(plan))
        server.calls.clear()
        done = adhere(work, "ask", "Question 0?", *GAME)
        assert done.stdout.strip() == TEXTS[3], done.stderr
        assert "risk beyond that of refusing is 0.2" in " ".join(done.stderr.split())
        assert {b["model"] for b in server.bodies() if is_probe(b)} == {"other"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "vanilla", "--risk-cap", "0.1"), "no method here keeps to a cap (vanilla)"),
        ((*GAME, "--risk-cap", "nan"), "risk_cap: found nan; expected a finite number"),
        ((*GAME, "--risk-cap", "much"), "--risk-cap"),
        (("--method", "safety_game:risk_cap=much"), "option 'risk_cap'"),
        (("--method", "safety_game:n=0"), "option 'n'"),
        ((*GAME, "--probe-mode", "guard"), "probe: found no model; expected --probe MODEL"),
        ((*GAME, "--probe", "openai:p", "--probe-mode", "vote"), "probe.mode"),
        (("--method", "safety_game:helpfulness=reward"), "safety_game:helpfulness=probe"),
    ],
)
def test_mistakes_are_named_before_anything_is_asked(work, more, words):
    with FakeServer(policy) as server:
        done = ask(work, server.url, *more)
        assert done.returncode == 2
        assert done.stderr.startswith("adhere: ")
        assert words in done.stderr
        assert not server.calls


def test_eval_with_a_cap_and_a_prober_and_its_dry_run(work):
    with FakeServer(policy) as server:
        line = (
            *("eval", "--spec", "spec.md", "--prompts", "p.jsonl", "--out", "run"),
            *("--model", "openai:m", "--base-url", server.url, "--prefill", "none"),
            *("--method", "vanilla", "--method", "threshold_filter:n=4", *GAME),
            *("--risk-cap", "0.2", "--probe", "openai:other", "--probe-base-url", server.url),
        )
        dry = adhere(work, *line, "--dry-run")
        assert dry.returncode == 0, dry.stderr
        assert "safety_game: probe" in dry.stdout
        assert not server.calls
        done = adhere(work, *line)
        assert done.returncode == 0, done.stderr
        assert "safety_game" in done.stdout
        again = adhere(work, *line)
        assert "already finished" in again.stdout
        other = adhere(work, *(word if word != "openai:other" else "openai:third" for word in line))
        assert other.returncode == 2
        assert "probe" in other.stderr
    summary = json.loads((work / "run" / "summary.json").read_text())
    assert [g["method"] for g in summary["games"]] == ["threshold_filter", "safety_game"]
    page = (work / "run" / "report.html").read_text()
    assert page.count('<details class="game">') == 6
    assert adhere(work, "report", "run").returncode == 0
    assert (work / "run" / "report.html").read_text() == page
