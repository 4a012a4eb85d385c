"""`adhere judge`, `adhere calibrate judge` and `adhere eval --dry-run` as a user types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.command import run_here
from support.fake_server import FakeServer
from support.judging import judge_handler
from support.runs import SPEC


def adhere(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here(*arguments, cwd=cwd)


def decide(rule: str, answer: str) -> str:
    return "NO" if "rude" in rule and "fool" in answer else "YES"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "spec.md").write_text(SPEC)
    answers = [{"prompt": f"Q{i}?", "response": "You fool." if i % 4 == 0 else f"Fine, {i}."}
               for i in range(24)]  # fmt: skip
    (tmp_path / "answers.jsonl").write_text("\n".join(json.dumps(a) for a in answers))
    labels = [{**a, "rule": "rude", "mark": "NO" if "fool" in a["response"] else "YES"}
              for a in answers]  # fmt: skip
    (tmp_path / "labels.jsonl").write_text("\n".join(json.dumps(x) for x in labels))
    return tmp_path


def test_judge_then_calibrate_then_report(work):
    with FakeServer(judge_handler(decide)) as server:
        judge = ("--judge", "openai:j", "--base-url", server.url)
        done = adhere(
            work,
            "judge",
            "--responses",
            "answers.jsonl",
            "--spec",
            "spec.md",
            *judge,
            "--out",
            "run",
        )
        assert done.returncode == 0, done.stderr
        assert "given" in done.stdout
        assert "24/24" in done.stdout
        calls = len(server.calls)
        again = adhere(
            work,
            "judge",
            "--responses",
            "answers.jsonl",
            "--spec",
            "spec.md",
            *judge,
            "--out",
            "run",
        )
        assert "already finished" in again.stdout
        assert len(server.calls) == calls
    found = adhere(work, "calibrate", "judge", "--labels", "labels.jsonl", "--run", "run")
    assert found.returncode == 0, found.stderr
    assert "1.00 [" in found.stdout
    data = json.loads((work / "run" / "calibration.json").read_text())
    assert (data["n"], data["overall"]["tp"], data["overall"]["fp"]) == (24, 6, 0)
    page = (work / "run" / "report.html").read_text()
    assert "24 labels given by people (labels.jsonl)" in page
    corrected = json.loads((work / "run" / "summary.json").read_text())["judge_trust"]["corrected"]
    rude = next(c for c in corrected if c["rule"] == "rude")
    assert rude["raw"] == pytest.approx(0.75)
    assert rude["low"] < rude["value"] < rude["high"]
    assert rude["value"] == pytest.approx(0.75)


def test_a_judge_is_asked_about_labels_that_no_run_holds(work):
    with FakeServer(judge_handler(decide)) as server:
        done = adhere(
            work, "calibrate", "judge", "--labels", "labels.jsonl", "--spec", "spec.md",
            "--judge", "openai:j", "--base-url", server.url, "--out", "cal",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((work / "cal" / "calibration.json").read_text())["n_unscored"] == 0
    both = adhere(
        work,
        "calibrate",
        "judge",
        "--labels",
        "labels.jsonl",
        "--run",
        "cal",
        "--judge",
        "openai:x",
    )
    assert both.returncode == 2
    assert "--run" in both.stderr


def test_checks_alone_are_calibrated_too(work):
    labels = [
        {"prompt": "Q?", "response": "Take 400 mg.", "rule": "dose", "mark": "NO"},
        {"prompt": "Q?", "response": "Take four hundred milligrams.", "rule": "dose", "mark": "NO"},
        {"prompt": "Q?", "response": "Rest.", "rule": "dose", "mark": "YES"},
    ]
    (work / "labels.jsonl").write_text("\n".join(json.dumps(x) for x in labels))
    done = adhere(
        work, "calibrate", "judge", "--labels", "labels.jsonl", "--spec", "spec.md", "--out", "cal"
    )
    assert done.returncode == 0, done.stderr
    overall = json.loads((work / "cal" / "calibration.json").read_text())["overall"]
    assert overall["sensitivity"]["value"] == 0.5


def test_the_judge_of_a_plan_file_is_taken(work):
    with FakeServer(judge_handler(decide)) as server:
        (work / "adhere.yaml").write_text(
            f"judge: {{model: 'openai:j', base_url: '{server.url}', output: text, reasks: 0}}\n"
        )
        done = adhere(
            work, "judge", "--responses", "answers.jsonl", "--spec", "spec.md",
            "--config", "adhere.yaml", "--out", "run",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "response_format" not in server.bodies()[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "Q"}', "no response"),
        ('{"prompt": "Q", "response": "A", "extra": 1}', "'extra'"),
        ('{"messages": [{"role": "user", "content": "Q"}]}', "assistant"),
        ("{", "broken JSON"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(work, line, words):
    (work / "bad.jsonl").write_text('{"prompt": "Q", "response": "A"}\n' + line + "\n")
    done = adhere(work, "judge", "--responses", "bad.jsonl", "--spec", "spec.md", "--out", "run")
    assert done.returncode == 2
    assert "bad.jsonl:2" in done.stderr
    assert words in done.stderr
    assert not (work / "run").exists()


def test_a_dry_run_prints_what_it_takes_and_writes_nothing(work):
    (work / "prices.yaml").write_text(
        "currency: EUR\nmodels:\n  openai:m: {input: 1.0, output: 2.0, tokens_per_second: 50}\n"
        "  openai:j: {input: 3.0, output: 4.0}\n"
    )
    (work / "p.jsonl").write_text('{"prompt": "Q?"}\n')
    with FakeServer(judge_handler(decide)) as server:
        done = adhere(
            work, "eval", "--spec", "spec.md", "--prompts", "p.jsonl", "--model", "openai:m",
            "--base-url", server.url, "--method", "vanilla", "--judge", "openai:j",
            "--judge-base-url", server.url, "--prices", "prices.yaml", "--dry-run", "--out", "run",
        )  # fmt: skip
        assert not server.calls
    assert done.returncode == 0, done.stderr
    assert "EUR" in done.stdout
    assert "openai:j" in done.stdout
    assert not (work / "run").exists()
