"""Each way in which a row can end without a verdict is a count of its own, and costs what it must."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from adhere.errors import EXIT_STOPPED
from judging.test_model_judge import SPEC, judge
from support.fake_server import FakeServer, Fault, Reply
from support.judging import examined, is_judging, joint_reply, judge_handler
from support.runs import judge_given, line, plan, rows, run, write_inputs

COMPATS = ("strict", "official")


def all_yes(rule: str, answer: str) -> str:
    return "YES"


def judged(folder, server: FakeServer, answers: list[str], concurrency: int = 8, **config: Any):
    """Judge so many answers, each to a prompt of its own."""
    write_inputs(folder)
    lines = [{"id": f"q{i}", "prompt": f"Q{i}?", "response": a} for i, a in enumerate(answers)]
    (folder / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    fields = {"model": "openai:judge", "base_url": server.url, "prefill": "none", "output": "text"}
    return judge_given(
        folder,
        server,
        responses=folder / "a.jsonl",
        judge={**fields, **config},
        controls=0,
        limits={"attempts": 5, "concurrency": concurrency},
    )


# ---------------------------------------------------------------- the judge's replies

REPLIES: dict[str, Any] = {
    "cut": lambda good: Reply(good[: len(good) // 2], "length"),
    "empty": lambda good: Reply(""),
    "nothing": lambda good: Reply(None),
    "filtered": lambda good: Reply("", "content_filter"),
    "prose": lambda good: Reply("All of it is fine."),
    "fine": Reply,
}
REASONS = {
    "cut": "cut off by the token limit", "empty": "it is empty", "nothing": "it is empty",
    "filtered": "Filtered", "prose": "safety_specifications",
}  # fmt: skip


@pytest.mark.parametrize("compat", COMPATS)
def test_replies_that_hold_no_verdict_are_counted_by_what_was_wrong(tmp_path, compat):
    kinds = [kind for kind in REPLIES for _ in range(2)]

    def handler(path: str, body: dict[str, Any]) -> Reply:
        kind = examined(body).split()[0].lower()
        return REPLIES[kind](joint_reply(body, all_yes))

    with FakeServer(handler) as server:
        answers = [f"{kind} so {i}" for i, kind in enumerate(kinds)]
        result = judged(tmp_path, server, answers, compat=compat)
        asked = Counter(examined(body).split()[0] for body in server.bodies())
    found = line(result, "given")
    assert (found["n"], found["n_scored"], found["n_unscored"]) == (12, 2, 10)
    assert found["n_failed"] == 0
    assert found["sar"] == 1.0  # of the two; and nothing is said of the others
    assert found["sar_worst"] == pytest.approx(2 / 12)
    by_kind = {kinds[int(row["case"][1:])]: row for row in rows(tmp_path / "judged")}
    for kind, reason in REASONS.items():
        assert reason in by_kind[kind]["reason"]
        assert by_kind[kind]["score"] is None
        assert by_kind[kind]["marks"] == {}
    counts = Counter()
    for failure in result.summary["failures"]:
        counts[failure["kind"] or failure["reason"].split(": ", 1)[1][:11]] += failure["count"]
    assert sorted(counts.values()) == [2, 2, 2, 4]
    assert counts["Filtered"] == 2
    # What a filter withholds it withholds again: asked once. The others as often as allowed.
    tries = {"strict": 3, "official": 5}[compat]
    expected = {
        "fine": 2,
        "filtered": 2,
        **dict.fromkeys(("cut", "empty", "nothing", "prose"), 2 * tries),
    }
    assert asked == expected


# ---------------------------------------------------------------- the answers

ANSWERS: dict[str, tuple[Any, str, str]] = {
    "fine": (Reply("Rest and drink."), "scored", "n_scored"),
    "cut": (Reply("Rest and", "length"), "scored", "n_scored"),
    "empty": (Reply(""), "unscored", "n_unscored"),
    "blank": (Reply(" \n"), "unscored", "n_unscored"),
    "thought": (Reply("<think>\nI", "length"), "truncated", "n_truncated"),
    "withheld": (Reply("", "content_filter"), "filtered", "n_filtered"),
    "refused request": (Fault(400), "failed", "n_failed"),
    "no protocol": (Fault(200, "{}"), "failed", "n_failed"),
}


@pytest.mark.parametrize("compat", COMPATS)
def test_answers_that_cannot_be_judged_never_reach_the_judge(tmp_path, compat):
    names = list(ANSWERS)
    write_inputs(tmp_path, prompts=len(names))
    good = judge_handler(all_yes)

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        if is_judging(body):
            return good(path, body)
        return ANSWERS[names[int(body["messages"][-1]["content"].split()[-1][0])]][0]

    with FakeServer(handler) as server:
        fields = {
            "model": "openai:judge", "base_url": server.url, "prefill": "none", "output": "text",
            "compat": compat,
        }  # fmt: skip
        result = run(plan(tmp_path, server, methods=["raw"], judge=fields, controls=0))
        shown = [examined(body) for body in server.bodies() if is_judging(body)]
    assert sorted(shown) == ["Rest and", "Rest and drink."]
    found = {names[int(row["case"])]: row["outcome"] for row in rows(tmp_path / "run")}
    assert found == {name: outcome for name, (_, outcome, _) in ANSWERS.items()}
    table = line(result, "raw")
    # Rows that were truncated or filtered stand apart and among the unscored.
    assert {k: table[k] for k in table if k.startswith("n_") and k[2:] in OUTCOMES} == {
        "n_scored": 2, "n_unscored": 4, "n_truncated": 1, "n_filtered": 1, "n_failed": 2
    }  # fmt: skip
    assert table["share_empty"] == pytest.approx(2 / 4)
    assert table["share_cut"] == pytest.approx(1 / 4)


OUTCOMES = ("scored", "unscored", "failed", "truncated", "filtered")


# ---------------------------------------------------------------- a judge that is gone for good


@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_judge_that_refuses_requests_costs_one_a_row(tmp_path, compat, concurrency):
    with FakeServer(lambda path, body: Fault(400)) as server:
        result = judged(tmp_path, server, ["Fine."] * 12, concurrency, compat=compat)
        assert len(server.calls) == 12
    assert not result.stopped
    assert line(result, "given")["n_unscored"] == 12


@pytest.mark.parametrize("compat", COMPATS)
def test_a_judge_that_refuses_every_request_stops_the_run(tmp_path, compat):
    with FakeServer(lambda path, body: Fault(400)) as server:
        result = judged(tmp_path, server, [f"Fine {i}." for i in range(300)], 4, compat=compat)
        # The twenty that open the breaker, and rows that were on their way to the judge by then.
        assert 20 <= len(server.calls) <= 20 + 16
    assert result.exit_code == EXIT_STOPPED
    assert "the judge: BadInput" in result.stopped


@pytest.mark.parametrize("mode", ["joint", "sequential"])
@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize("status", [401, 404])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_dead_key_or_a_lost_model_costs_a_handful(tmp_path, concurrency, status, compat, mode):
    alive = False

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        if not alive:
            return Fault(status)
        return Reply(joint_reply(body, all_yes) if mode == "joint" else "So it is. <YES>")

    answers = [f"Fine {i}." for i in range(60)]
    with FakeServer(handler) as server:
        result = judged(tmp_path, server, answers, concurrency, compat=compat, mode=mode)
        wasted = len(server.calls)
        assert 1 <= wasted <= 2 * concurrency + 2
        assert result.exit_code == EXIT_STOPPED
        assert line(result, "given")["n_scored"] == 0
        alive = True
        result = judged(tmp_path, server, answers, concurrency, compat=compat, mode=mode)
        assert len(server.calls) - wasted == 60 * (1 if mode == "joint" else 4)
    assert line(result, "given")["n_scored"] == 60


@pytest.mark.parametrize("fault", [Fault(400), Fault(400, '{"error": {"code": "content_filter"}}')])
def test_one_permanent_error_ends_the_calls_about_the_other_rules(tmp_path, fault):
    with FakeServer(lambda path, body: fault) as server:
        result = judged(tmp_path, server, ["Fine."], 1, mode="sequential")
        assert len(server.calls) <= 2  # of four rules
    assert line(result, "given")["n_unscored"] == 1


def test_an_error_that_may_pass_lets_the_calls_about_other_rules_end():
    """They are on record then, and the next start need not repeat them."""

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        if "Be kind." in body["messages"][-1]["content"]:
            return Fault(503)
        return Reply("So it is. <YES>", delay=0.05)

    with FakeServer(handler) as server:
        verdict = judge(server, mode="sequential", output="text")
        assert len(server.calls) == len(SPEC.rules) + 1  # one more try of the rule that failed
    assert "Overloaded" in verdict.reason
    assert verdict.usage.calls == 3
