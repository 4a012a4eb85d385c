"""A control that spends on each prompt what another method spent there."""

from __future__ import annotations

import pytest

from adhere.errors import BadInput
from adhere.experiments.inputs import read_inputs
from support.fake_server import FakeServer, Fault, Reply
from support.runs import plan, rows, run, write_inputs


def answers(path, body):
    """Longer answers to some questions, so that each prompt has its own number to match."""
    text = str(body)
    number = next(i for i in range(20) if f"Question {i}?" in text)
    most = body.get("max_tokens") or 77
    return Reply("Be kind.", completion_tokens=min(most, 5 + number))


METHODS = [
    {"method": "self_refine", "iterations": 2},
    {"name": "as_self_refine", "method": "best_of_n", "selector": "random",
     "equal_tokens_to": "self_refine"},
]  # fmt: skip


def tokens(row):
    return row["usage"]["policy"]["completion_tokens"]


@pytest.mark.parametrize("concurrency", [1, 8])
def test_each_row_spends_what_the_other_method_spent_on_the_same_prompt(tmp_path, concurrency):
    write_inputs(tmp_path, prompts=6)
    with FakeServer(answers) as server:
        run(plan(tmp_path, server, judge=None, methods=METHODS,
                 limits={"attempts": 1, "concurrency": concurrency}))  # fmt: skip
    found = {(r["method"], r["case"]): r for r in rows(tmp_path / "run")}
    for i in range(6):
        theirs = tokens(found["self_refine", str(i)])
        ours = tokens(found["as_self_refine", str(i)])
        assert theirs == 5 * (5 + i)
        assert abs(ours - theirs) <= 5 + i  # within one answer
        assert found["as_self_refine", str(i)]["facts"]["spend"] == theirs


def test_it_waits_for_a_method_that_stands_behind_it(tmp_path):
    write_inputs(tmp_path, prompts=4)
    with FakeServer(answers) as server:
        run(plan(tmp_path, server, judge=None, methods=METHODS[::-1],
                 limits={"attempts": 1, "concurrency": 2}))  # fmt: skip
    assert {r["outcome"] for r in rows(tmp_path / "run")} != {"failed"}


def test_nothing_to_match_is_a_failed_row_that_is_tried_again(tmp_path):
    write_inputs(tmp_path, prompts=3)
    broken = True

    def sometimes(path, body):
        if broken and "Question 1?" in str(body):
            return Fault(500)
        return answers(path, body)

    with FakeServer(sometimes) as server:
        run(plan(tmp_path, server, judge=None, methods=METHODS))
        found = {(r["method"], r["case"]): r for r in rows(tmp_path / "run")}
        assert found["self_refine", "1"]["outcome"] == "failed"
        assert found["as_self_refine", "1"]["error"]["kind"] == "Unmatched"
        assert found["as_self_refine", "0"]["outcome"] != "failed"
        broken = False
        run(plan(tmp_path, server, judge=None, methods=METHODS))
    assert all(r["outcome"] != "failed" for r in rows(tmp_path / "run"))


def test_a_row_that_will_never_come_leaves_no_control_open(tmp_path):
    """The prompt does not fit the model: nothing to try again, for neither of the two."""
    write_inputs(tmp_path, prompts=3)

    def too_long(path, body):
        if "Question 1?" in str(body):
            return Fault(400, '{"error": {"message": "maximum context length"}}')
        return answers(path, body)

    with FakeServer(too_long) as server:
        first = run(plan(tmp_path, server, judge=None, methods=METHODS))
        asked = len(server.calls)
        second = run(plan(tmp_path, server, judge=None, methods=METHODS))
        assert len(server.calls) == asked
    assert first.summary["finished"]
    assert second.did_nothing


def test_a_run_that_stops_does_not_leave_a_control_waiting(tmp_path):
    write_inputs(tmp_path, prompts=6)
    with FakeServer(lambda path, body: Fault(401)) as server:
        result = run(plan(tmp_path, server, judge=None, methods=METHODS))
    assert result.stopped


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([{"method": "raw", "equal_tokens_to": "vanilla"}, "vanilla"], "cannot use up"),
        ([{"method": "best_of_n", "selector": "random", "equal_tokens_to": "gone"}], "gone"),
        ([{"method": "best_of_n", "selector": "random", "equal_tokens_to": "best_of_n"}], "follow"),
    ],
)
def test_mistakes_are_named(tmp_path, methods, message):
    write_inputs(tmp_path, prompts=1)
    with FakeServer() as server, pytest.raises((BadInput, ValueError), match=message):
        read_inputs(plan(tmp_path, server, judge=None, methods=methods))
