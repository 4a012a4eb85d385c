"""Whole runs against a server that fails: the right outcome and count, and nothing scored safe."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from adhere.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_STOPPED, Auth, NotFound
from adhere.experiments.plan_file import read_plan
from adhere.experiments.run import run_experiment
from support.fake_server import FakeServer, Fault, Reply
from support.faults import FAULTS, TIMEOUT

SPEC = """\
# Test assistant

## Safety
- [no-bomb] Never say bomb.
  check: absent("bomb")

## Behavioral
- [bye] End with bye.
  check: ends_with("bye")
"""
BREAKER = 20  # equal failures in a row that stop a run
OUTCOMES = ("scored", "unscored", "failed", "truncated", "filtered")
NO_VERDICT = ("unscored", "truncated", "filtered")


def run(folder, server, n, *, methods=("raw",), **limits):
    (folder / "spec.md").write_text(SPEC)
    lines = [json.dumps({"id": f"p{i}", "prompt": f"Question {i}?"}) + "\n" for i in range(n)]
    (folder / "prompts.jsonl").write_text("".join(lines))
    plan = read_plan(
        None,
        {
            "spec": folder / "spec.md",
            "order": "spec_first",
            "prompts": [folder / "prompts.jsonl"],
            "models": [{"model": "openai:m", "base_url": server.url, "prefill": "none"}],
            "methods": list(methods),
            "out": folder / "run",
            "limits": {"attempts": 1, "timeout": 5, **limits},
        },
    )
    return asyncio.run(run_experiment(plan))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "run" / "results.jsonl").open()]


def arm(result, method="raw"):
    [found] = [r for r in result.summary["rows"] if r["method"] == method and r["subset"] == "all"]
    return found


def number(body):
    return int(body["messages"][-1]["content"].split()[1].strip("?"))


def good(path, body):
    return Reply("bye")


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_ends_in_the_right_outcome_and_count(tmp_path, name):
    """Three of six prompts meet the fault; the others are answered."""
    case = FAULTS[name]
    slow = TIMEOUT if name in ("hang", "drip") else 5

    def reply(path, body):
        return case.reply if number(body) % 2 else good(path, body)

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 6, timeout=slow)
    rows = {row["case"]: row for row in rows_of(tmp_path)}
    stopped = case.error in (Auth, NotFound)
    assert bool(result.stopped) == stopped
    hit = [row for case_id, row in rows.items() if int(case_id[1:]) % 2]
    spared = [row for case_id, row in rows.items() if int(case_id[1:]) % 2 == 0]
    assert all(row["outcome"] == "scored" and row["score"] == 1 for row in spared)
    assert {row["outcome"] for row in hit} == {case.outcome}
    for row in hit:
        scored = case.outcome == "scored"
        assert (row["safety"] is not None) == bool(row["marks"]) == scored
        assert (row["score"] is not None) == scored
        if case.outcome == "failed":
            assert row["error"]["kind"] == case.error.__name__
            assert row["error"]["fatal"] == stopped
            assert row["text"] == ""
        else:
            assert row["error"] is None
        if not scored:
            assert row["reason"]
        assert all(v >= 0 for used in row["usage"].values() for v in used.values())
    if stopped:
        assert result.exit_code == EXIT_STOPPED
        assert 1 <= len(hit) <= 3
    else:
        assert len(rows) == 6
        assert len(server.calls) == 6
        assert result.exit_code == (EXIT_DONE if case.outcome == "scored" else EXIT_INCOMPLETE)
    found = arm(result)
    for outcome in OUTCOMES:
        # Among the unscored are those that were filtered or truncated, which also stand apart.
        these = NO_VERDICT if outcome == "unscored" else (outcome,)
        assert found[f"n_{outcome}"] == sum(r["outcome"] in these for r in rows.values()), outcome
    assert found["safety"] == (1.0 if found["n_scored"] else None)
    assert all(found[k] is None or found[k] >= 0 for k in ("prompt_tokens", "completion_tokens"))


@pytest.mark.parametrize("name", [n for n, c in FAULTS.items() if c.outcome != "scored"])
def test_where_nothing_was_answered_nothing_is_safe(tmp_path, name):
    case = FAULTS[name]
    slow = TIMEOUT if name in ("hang", "drip") else 5
    with FakeServer(lambda p, b: case.reply) as server:
        result = run(tmp_path, server, 3, timeout=slow)
    found = arm(result)
    assert (found["n_scored"], found["safety"], found["behavioral"], found["sar"]) == (
        *(0, None, None, None),
    )
    assert all(not row["marks"] and row["score"] is None for row in rows_of(tmp_path))
    assert "No answer could be scored" in result.summary["headline"]
    assert result.exit_code in (EXIT_INCOMPLETE, EXIT_STOPPED)


def test_a_method_of_several_calls_has_no_answer_when_its_second_call_fails(tmp_path):
    def reply(path, body):
        again = len(body["messages"]) > 2 or "Question" not in body["messages"][-1]["content"][:9]
        return Fault(400) if again else Reply("a bomb")  # which a check finds, so repair asks again

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 3, methods=("repair",))
    assert len(server.calls) == 6
    assert (arm(result, "repair")["n_failed"], arm(result, "repair")["n_scored"]) == (3, 0)
    for row in rows_of(tmp_path):
        assert (row["text"], row["marks"], row["score"]) == ("", {}, None)
        assert row["usage"]["policy"]["calls"] == 1  # what the first call cost is not lost


def test_a_fault_that_passes_costs_a_retry_and_no_row(tmp_path):
    seen = set()

    def reply(path, body):
        if number(body) not in seen:
            seen.add(number(body))
            return FAULTS[("500", "truncated JSON", "reset in the body")[number(body) % 3]].reply
        return good(path, body)

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 6, attempts=2)
    assert arm(result)["n_scored"] == 6
    assert len(server.calls) == 12
    assert result.exit_code == EXIT_DONE


# ---------------------------------------------------------------- the breaker


@pytest.mark.parametrize("good_answers", [0, 5])
def test_a_dead_key_costs_at_most_20_requests_and_the_run_goes_on_later(tmp_path, good_answers):
    alive = [False]

    def reply(path, body):
        if alive[0] or len(server.calls) <= good_answers:
            return Reply("bye", delay=0.005)
        return Fault(401)

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 500, concurrency=64, attempts=5)
        wasted = len(server.calls) - good_answers
        assert 1 <= wasted <= 20
        assert result.exit_code == EXIT_STOPPED
        assert "Auth" in result.stopped
        assert arm(result)["n_scored"] == good_answers
        # Rows that were never asked are no rows; those that were say why they failed.
        assert arm(result)["n_failed"] <= 20
        alive[0] = True
        before = len(server.calls)
        result = run(tmp_path, server, 500, concurrency=64)
    assert result.exit_code == EXIT_DONE
    assert arm(result)["n_scored"] == 500
    assert len(server.calls) - before == 500 - good_answers


def test_a_key_that_dies_at_full_speed_costs_what_was_in_flight(tmp_path):
    dead = threading.Event()
    late = []

    def reply(path, body):
        if len(server.calls) > 200:
            if dead.is_set():
                late.append(time.monotonic())
            dead.set()
            return Fault(401)
        return Reply("bye", delay=0.02)

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 500, concurrency=64)
    assert "Auth" in result.stopped
    assert len(server.calls) <= 200 + 64
    assert arm(result)["n_scored"] == 200


@pytest.mark.parametrize(
    ("name", "kind"),
    [("400", "BadInput"), ("500", "Overloaded"), ("HTML", "Garbage"), ("400 too long", None)],
)
def test_twenty_equal_failures_in_a_row_open_the_breaker(tmp_path, name, kind):
    concurrency = 8
    with FakeServer(lambda p, b: FAULTS[name].reply) as server:
        result = run(tmp_path, server, 300, concurrency=concurrency)
    assert result.exit_code == EXIT_STOPPED
    assert f"{BREAKER} rows in a row failed alike: {kind or 'ContextTooLong'}" in result.stopped
    assert BREAKER <= len(server.calls) <= BREAKER + concurrency
    assert BREAKER <= arm(result)["n_failed"] <= BREAKER + concurrency


def test_failures_that_come_between_answers_do_not_open_the_breaker(tmp_path):
    def reply(path, body):
        return Fault(400) if number(body) % 3 else good(path, body)

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 90, concurrency=1)
    assert not result.stopped
    assert (arm(result)["n_scored"], arm(result)["n_failed"]) == (30, 60)
    assert len(server.calls) == 90


@pytest.mark.parametrize("name", ["content filter", "400 content filter", "null content"])
def test_what_is_no_failure_never_opens_the_breaker(tmp_path, name):
    with FakeServer(lambda p, b: FAULTS[name].reply) as server:
        result = run(tmp_path, server, 60)
    assert not result.stopped
    assert len(server.calls) == 60


def test_a_storm_of_429_ends_well(tmp_path):
    """The server takes 4 calls at a time and 100 in all a second; it turns the rest away."""
    begun, refused = time.monotonic(), []
    taken = []

    def reply(path, body):
        now = time.monotonic()
        taken[:] = [t for t in taken if now - t < 0.1]
        if len(taken) >= 10:
            refused.append(now)
            return Fault(429, headers={"Retry-After": "0.1"})
        taken.append(now)
        return Reply("bye")

    with FakeServer(reply) as server:
        result = run(tmp_path, server, 120, concurrency=32, attempts=20)
    assert arm(result)["n_scored"] == 120
    assert result.exit_code == EXIT_DONE
    assert refused
    assert len(server.calls) == 120 + len(refused)
    assert len(refused) < 120  # the limit follows what the server takes
    assert time.monotonic() - begun < 20
