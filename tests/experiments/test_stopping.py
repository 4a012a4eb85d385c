"""Stopping early when SAR is known well enough: same answers, fewer of them, honest intervals."""

from __future__ import annotations

import hashlib
import json

import pytest

from adhere.errors import BadInput
from support.fake_server import FakeServer, Fault, Reply
from support.runs import line, plan, rows, run, write_inputs


def answers(path, body):
    """About two answers of three are perfect, decided by the question alone."""
    asked = next(m["content"] for m in body["messages"] if m["role"] == "user")
    lucky = hashlib.sha256(asked.encode()).digest()[0] % 3
    return Reply("Be kind and short." if lucky else "take ten mg")


def made(folder, server, half_width, **fields):
    stop = {"half_width": half_width} if half_width else {}
    return plan(folder, server, judge=None, stop=stop, **{"methods": ["vanilla"], **fields})


def test_it_stops_when_the_target_is_reached_and_goes_no_further_when_asked_again(tmp_path):
    write_inputs(tmp_path, prompts=400)
    with FakeServer(answers) as server:
        result = run(made(tmp_path, server, 0.15))
        asked = len(server.calls)
        again = run(made(tmp_path, server, 0.15))
        assert len(server.calls) == asked
    got = line(result, "vanilla")
    suite = result.summary["until_ci"]["suites"]["p"]
    assert suite["reached"] and suite["of"] == 400
    assert got["n"] == suite["cases"] == asked < 400
    assert result.summary["finished"]
    assert (got["sar_high"] - got["sar_low"]) / 2 <= 0.15
    assert again.did_nothing
    assert again.summary["until_ci"] == result.summary["until_ci"]


def test_a_narrower_target_extends_the_run_and_keeps_what_is_there(tmp_path):
    write_inputs(tmp_path, prompts=400)
    with FakeServer(answers) as server:
        first = run(made(tmp_path, server, 0.2))
        before = len(server.calls)
        second = run(made(tmp_path, server, 0.12))
        assert len(server.calls) == line(second, "vanilla")["n"]
    assert before == line(first, "vanilla")["n"] < line(second, "vanilla")["n"]


def test_the_cases_are_a_seeded_sample_that_does_not_depend_on_speed(tmp_path):
    write_inputs(tmp_path, prompts=300)
    chosen = []
    for name, concurrency in (("a", 1), ("b", 16)):
        with FakeServer(answers) as server:
            run(made(tmp_path, server, 0.2, out=tmp_path / name,
                     limits={"attempts": 1, "concurrency": concurrency}))  # fmt: skip
        chosen.append([r["case"] for r in rows(tmp_path / name)])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) < 300
    assert chosen[0] != [str(i) for i in range(len(chosen[0]))]


def test_every_method_must_be_known_well(tmp_path):
    write_inputs(tmp_path, prompts=120)

    def half_failing(path, body):
        if body["messages"][0]["role"] != "system":  # raw has no spec in front
            return Fault(400)
        return answers(path, body)

    with FakeServer(half_failing) as server:
        result = run(
            made(tmp_path, server, 0.2, methods=["raw", "vanilla"],
                 limits={"attempts": 1, "concurrency": 1})
        )  # fmt: skip
        # A row that failed is not asked again with every block.
        assert len(server.calls) <= 240
    assert not result.summary["until_ci"]["suites"]["p"]["reached"]


def test_a_row_that_fails_for_good_is_asked_once_a_start(tmp_path):
    write_inputs(tmp_path, prompts=120)

    def sometimes(path, body):
        return Fault(400) if "Question 7" in str(body) else answers(path, body)

    with FakeServer(sometimes) as server:
        run(made(tmp_path, server, 0.01))
        assert len(server.calls) == 120


def test_the_deadline_is_that_of_all_blocks_together(tmp_path):
    write_inputs(tmp_path, prompts=300)

    def slow(path, body):
        return Reply("Be kind.", delay=0.05)

    with FakeServer(slow) as server:
        result = run(plan(tmp_path, server, judge=None, methods=["vanilla"],
                          stop={"half_width": 0.001, "seconds": 1.0},
                          limits={"attempts": 1, "concurrency": 4}))  # fmt: skip
        assert "deadline" in result.stopped
        assert len(server.calls) < 150


def test_a_suite_of_an_earlier_start_keeps_its_intervals(tmp_path):
    write_inputs(tmp_path, prompts=60)
    (tmp_path / "q.jsonl").write_text(
        (tmp_path / "p.jsonl").read_text().replace("Question", "Asked")
    )

    def by_length(path, body):
        return Reply("Be kind.")

    with FakeServer(by_length) as server:
        run(made(tmp_path, server, None))
        result = run(made(tmp_path, server, 0.3, prompts=tmp_path / "q.jsonl"))
    suites = {
        r["suite"]: r for r in result.summary["rows"] if r["subset"] == "all" and not r["control"]
    }
    assert set(suites) == {"p", "q"}
    assert suites["p"]["n"] == 60


def test_numbers_and_intervals_are_of_the_same_rows(tmp_path):
    """All prompts are there already; a target that fewer would have reached drops none of them."""
    write_inputs(tmp_path, prompts=200)
    with FakeServer(answers) as server:
        run(made(tmp_path, server, None))
        asked = len(server.calls)
        result = run(made(tmp_path, server, 0.2))
        assert len(server.calls) == asked
    got = line(result, "vanilla")
    assert got["n"] == result.summary["until_ci"]["suites"]["p"]["cases"] == 200
    assert got["sar_low"] < got["sar"] < got["sar_high"]


def test_a_block_that_is_not_whole_is_in_no_number(tmp_path):
    write_inputs(tmp_path, prompts=300)
    count = 0

    def dies(path, body):
        nonlocal count
        count += 1
        return Fault(401) if count == 40 else answers(path, body)

    with FakeServer(dies) as server:
        result = run(made(tmp_path, server, 0.01, limits={"attempts": 1, "concurrency": 1}))
    assert result.stopped
    assert line(result, "vanilla")["n"] == result.summary["until_ci"]["suites"]["p"]["cases"] == 32
    assert len(rows(tmp_path / "run")) > 32


def test_without_it_nothing_changes(tmp_path):
    write_inputs(tmp_path, prompts=12)
    with FakeServer(answers) as server:
        result = run(made(tmp_path, server, None))
    assert result.summary["until_ci"] is None
    assert line(result, "vanilla")["n"] == 12


@pytest.mark.parametrize("width", [0.0, 0.5, -1])
def test_a_target_that_makes_no_sense_is_refused(tmp_path, width):
    from adhere.experiments.plan_file import read_plan

    write_inputs(tmp_path, prompts=2)
    with pytest.raises(BadInput, match="half_width"):
        read_plan(None, {
            "spec": tmp_path / "spec.md", "prompts": [tmp_path / "p.jsonl"],
            "models": ["local:smollm2-135m"], "methods": ["vanilla"],
            "stop": {"half_width": width},
        })  # fmt: skip


def test_a_kill_between_blocks_changes_nothing(tmp_path):
    """The rows of a run that was cut off and went on equal those of one that was not."""
    write_inputs(tmp_path, prompts=300)
    with FakeServer(answers) as server:
        run(made(tmp_path, server, 0.14, out=tmp_path / "whole"))
    count = 0

    def dies(path, body):
        nonlocal count
        count += 1
        return Fault(401) if count == 50 else answers(path, body)

    with FakeServer(dies) as server:
        stopped = run(made(tmp_path, server, 0.14, out=tmp_path / "cut"))
        assert stopped.stopped
        finished = run(made(tmp_path, server, 0.14, out=tmp_path / "cut"))
    assert not finished.stopped
    summaries = [json.loads((tmp_path / n / "summary.json").read_text()) for n in ("whole", "cut")]
    assert summaries[0]["until_ci"] == summaries[1]["until_ci"]
    assert [r["case"] for r in rows(tmp_path / "whole")] == [
        r["case"] for r in rows(tmp_path / "cut")
    ]
