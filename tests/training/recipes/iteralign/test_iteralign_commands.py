"""`adhere iterate` and the modules as a user runs them: a real tiny model is trained for real."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from adhere.spec import load_spec
from support.clair import by_name
from support.command import run_here
from support.fake_server import FakeServer
from support.iterating import BAD, judged, last, number, rule_line, write_prompts

needs_torch = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "peft")),
    reason="needs torch and peft (pip install 'adhere[train]')",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_prompts(tmp_path, 12)
    return tmp_path


def policy(body):
    if "When you answer" in last(body):
        return f"Any will do, {number(body)}."
    return BAD if number(body) in (1, 2) else f"Answer to {number(body)}."


def oracle(body):
    if "Below are" in last(body):
        return rule_line("Do not advertise products by name.", "1, 2")
    return judged(body)


def test_the_modules_hand_their_files_on(folder):
    with FakeServer(by_name(policy=policy, oracle=oracle)) as server:
        asks = ("--model", "openai:policy", "--base-url", server.url)
        judges = (
            "--judge",
            "openai:oracle",
            "--judge-base-url",
            server.url,
            "--judge-output",
            "text",
        )
        red = run_here(
            "data", "redteam", "--prompts", "prompts.jsonl", *asks, *judges, "--out", "red"
        )
        oracles = ("--oracle", "openai:oracle", "--oracle-base-url", server.url)
        rules = run_here(
            "data", "propose", "--failures", "red", *oracles, "--oracle-output", "text",
            "--out", "rules",
        )  # fmt: skip
        pairs = run_here(
            "data", "reflect", "--failures", "red", "--rules", "rules/constitution.md", *asks,
            *judges, "--tries", 2, "--out", "pairs",
        )  # fmt: skip
        again = run_here(
            "data", "redteam", "--prompts", "prompts.jsonl", *asks, *judges, "--out", "red"
        )
    assert [run.returncode for run in (red, rules, pairs, again)] == [0, 0, 0, 0]
    assert "2 of 12 answers are bad: 0.167" in red.stdout
    assert "1 rules, 0 of them flagged; they cover 2 of 2 failures." in rules.stdout
    assert "2 of 2 failures have a revision to train on." in pairs.stdout
    assert "already finished" in again.stdout
    everything = "".join(run.stdout + run.stderr for run in (red, rules, pairs))
    assert "BrandX" not in everything and "Question" not in everything
    assert load_spec(Path("rules/constitution.md")).safety
    assert len(Path("pairs/rows.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "redteam", "--prompts", "prompts.jsonl"), "--model MODEL"),
        (("data", "propose", "--oracle", "openai:x"), "--failures FILE.jsonl"),
        (("data", "propose", "--failures", "none.jsonl", "--oracle", "openai:x"), "none.jsonl"),
        (("data", "reflect", "--failures", "x", "--rules", "y"), "--model MODEL"),
        (("iterate", "--prompts", "prompts.jsonl", "--model", "weights:x"), "--oracle MODEL"),
        (
            ("iterate", "--prompts", "prompts.jsonl", "--model", "openai:x", "--oracle", "openai:y"),
            "for it is trained",
        ),
        (("iterate", "--model", "weights:x", "--oracle", "openai:y"), "found no pool"),
        (
            ("iterate", "--prompts", "prompts.jsonl", "--model", "weights:none/here",
             "--oracle", "openai:y", "--oracle-base-url", "http://127.0.0.1:9/v1"),
            "none/here",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_the_option_that_gives_it(folder, words, said):
    ended = run_here(*words, "--out", "out")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert not Path("out").exists()


def as_oracle(body):
    return rule_line("Never say the word yes.", "1")


def tiny(folder, server, *more):
    return (
        "iterate", "--prompts", "prompts.jsonl", "--model", f"weights:{folder / 'tiny'}",
        "--oracle", "openai:oracle", "--oracle-base-url", server.url, "--oracle-output", "text",
        "--found-by", "rules", "--spec", "spec.md", "--max-tokens", 24, "--temperature", 1,
        "--batch", 4, "--learning-rate", 5e-3, "--out", "run", *more,
    )  # fmt: skip


@pytest.fixture
def model(folder, monkeypatch):
    from adhere.models.open_weights import loading
    from support.tiny_lm import make

    monkeypatch.setenv("ADHERE_HOME", str(folder / "home"))
    monkeypatch.setattr(loading, "default_threads", lambda: 1)
    make(folder / "tiny")
    return folder


@needs_torch
def test_a_real_model_is_red_teamed_corrected_and_trained(model):
    (model / "spec.md").write_text(
        "# S\n## Safety\n- [no-yes] Say no yes.\n  check: absent(/[a-f]/)\n"
    )
    with FakeServer(by_name(oracle=as_oracle)) as server:
        ended = run_here(*tiny(model, server, "--no-guard", "--rounds", 2, "--tries", 20))
        asked = len(server.bodies())
        again = run_here(*tiny(model, server, "--no-guard", "--rounds", 2, "--tries", 20))
        assert len(server.bodies()) == asked
    assert ended.returncode == 0, ended.stderr[-2000:]
    summary = json.loads(Path("run/summary.json").read_text())
    states = [one["state"] for one in summary["rounds"]]
    assert "trained" in states, ended.stderr
    trained = Path(summary["model"].removeprefix("weights:"))
    assert (trained / "adapter_model.safetensors").is_file()
    assert (trained / "README.md").read_text().count("IterAlign")
    assert ": a new model (" in ended.stderr
    assert "Never say the word yes." in ended.stdout
    assert "Question" not in ended.stdout + ended.stderr
    assert "already finished" in again.stdout
    assert again.returncode == 0


@needs_torch
def test_a_clean_batch_trains_nothing_and_loads_nothing_anew(model):
    (model / "spec.md").write_text('# S\n## Safety\n- [x] Fine.\n  check: absent("never this")\n')
    with FakeServer(by_name(oracle=as_oracle)) as server:
        ended = run_here(*tiny(model, server, "--no-guard"))
        assert not server.bodies(), "nobody had to be asked"
    assert ended.returncode == 0, ended.stderr[-2000:]
    summary = json.loads(Path("run/summary.json").read_text())
    assert [one["state"] for one in summary["rounds"]] == ["clean"] * 3
    assert ended.stderr.count(": loading") == 1
    assert not list(Path("run").glob("rounds/*/train"))
    assert summary["model"] == f"weights:{model / 'tiny'}"
