"""A run that stops by itself: whole, resumable, and not beyond what was allowed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from adhere.chat import digest
from adhere.errors import BadInput
from adhere.experiments.dry_run import estimate_plan
from support.fake_server import FakeServer, Reply
from support.judging import is_judging, judge_handler
from support.runs import line, plan, rows, run, write_inputs

PRICES = """currency: USD
models:
  openai:policy: {input: 1.0, output: 10.0}
  openai:judge: {input: 2.0, output: 20.0}
"""


def handler(path: str, body: dict[str, Any]) -> Reply:
    """Every call: a token for every four characters, 20 tokens out, though 50 were allowed."""
    said = lambda body: f"Answer {digest(body['messages'])[:8]}"  # noqa: E731 - no two alike
    good = judge_handler(lambda rule, answer: "YES", said)(path, body)
    characters = sum(len(m["content"]) for m in body["messages"])
    return Reply(good.text, prompt_tokens=characters // 4, completion_tokens=20, delay=0.005)


def settings(folder, server, **fields):
    return plan(folder, server, sampling={"max_tokens": 50}, **fields)


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_limit_on_tokens_is_kept_and_the_run_goes_on_from_there(tmp_path, concurrency):
    write_inputs(tmp_path, prompts=30)
    fields = {"judge": None, "methods": ["raw"], "limits": {"concurrency": concurrency}}
    with FakeServer(handler) as server:
        result = run(settings(tmp_path, server, stop={"tokens": 500}, **fields))
        first = len(server.calls)
        assert result.exit_code == 4
        assert "500 tokens" in result.stopped
        # 22 or 23 tokens a call; the next one might take 61. Not far below, and never above.
        assert (500 - 61) // 23 <= first <= 500 // 22
        assert result.summary["spent"]["completion_tokens"] == 20 * first
        assert not result.summary["finished"]
        done = {r["case"] for r in rows(tmp_path / "run")}
        assert len(done) == first
        result = run(settings(tmp_path, server, **fields))
        assert len(server.calls) == 30
    assert result.exit_code == 0
    assert line(result, "raw")["n_scored"] == 30


def test_what_earlier_starts_spent_counts(tmp_path):
    write_inputs(tmp_path, prompts=30)
    fields = {"judge": None, "methods": ["raw"]}
    with FakeServer(handler) as server:
        run(settings(tmp_path, server, stop={"tokens": 500}, **fields))
        made = len(server.calls)
        again = run(settings(tmp_path, server, stop={"tokens": 500}, **fields))
        assert again.exit_code == 4
        assert len(server.calls) - made <= 1


def test_a_limit_on_money_counts_the_judge_too(tmp_path):
    write_inputs(tmp_path, prompts=30)
    (tmp_path / "prices.yaml").write_text(PRICES)
    with FakeServer(handler) as server:
        made = settings(
            tmp_path, server, methods=["raw"], prices=tmp_path / "prices.yaml",
            stop={"cost": 0.04},
        )  # fmt: skip
        result = run(made)
        judged = sum(is_judging(b) for b in server.bodies())
        spent = 0.0
        for body in server.bodies():
            tokens = sum(len(m["content"]) for m in body["messages"]) // 4
            spent += (tokens + 200) * (2 if is_judging(body) else 1) / 1e6
    assert result.exit_code == 4
    assert judged
    assert result.summary["spent_cost"] == pytest.approx(spent)
    assert result.summary["currency"] == "USD"
    # A judging call may take up to 896 tokens of answer: so much money may be left unspent.
    assert 0.04 - 0.022 <= spent <= 0.04


def test_a_limit_on_money_needs_a_price_for_every_model(tmp_path):
    write_inputs(tmp_path)
    (tmp_path / "prices.yaml").write_text(PRICES.replace("openai:judge", "openai:other"))
    with FakeServer(handler) as server:
        with pytest.raises(BadInput, match="openai:judge"):
            run(
                settings(
                    tmp_path, server, prices=tmp_path / "prices.yaml", stop={"cost": 1.0}
                )
            )  # fmt: skip
        with pytest.raises(ValueError, match="prices"):
            settings(tmp_path, server, stop={"cost": 1.0})
        assert not server.calls
    assert not (tmp_path / "run").exists()


def test_a_deadline_stops_the_run(tmp_path):
    write_inputs(tmp_path, prompts=200)

    def slow(path: str, body: dict[str, Any]) -> Reply:
        return Reply("fine", delay=0.05)

    with FakeServer(slow) as server:
        fields = {"judge": None, "methods": ["raw"], "limits": {"concurrency": 2}}
        started = time.monotonic()
        result = run(plan(tmp_path, server, stop={"seconds": 1.0}, **fields))
        assert time.monotonic() - started < 4
    assert result.exit_code == 4
    assert "deadline" in result.stopped
    found = rows(tmp_path / "run")
    assert 0 < len(found) < 200
    assert all(r["outcome"] == "scored" for r in found)  # what was begun was ended


def test_a_dry_run_asks_nobody_and_holds_what_the_run_takes(tmp_path):
    write_inputs(tmp_path)
    (tmp_path / "prices.yaml").write_text(PRICES)
    with FakeServer(handler) as server:
        made = settings(tmp_path, server, prices=tmp_path / "prices.yaml", controls=2)
        found = estimate_plan(made)
        assert not server.calls
        assert not (tmp_path / "run").exists()
        run(made)
        calls = len(server.calls)
        total = found.total
        assert total.calls.low <= calls <= (total.calls.high or 0)
        left = estimate_plan(made)
    assert left.total.calls.high == 0 or left.total.rows == 0 or left.lines[0].rows == 0
