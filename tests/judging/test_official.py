"""Replies read as SpecBench's published code reads them, and what a judge in that form is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adhere.chat import Case, Mark, Unscored, user
from adhere.errors import BadInput
from adhere.judging import (
    JudgeConfig,
    Unreadable,
    comment_kind,
    parse_joint,
    parse_sequential,
    score,
)
from adhere.judging.parsing import read_sequential
from adhere.records.marks import MarkTable
from adhere.spec import Rule, Specification, load_spec
from judging.test_model_judge import CASE, SPEC, all_yes, judge, marks
from support.fake_server import FakeServer, Fault, Reply, in_turn
from support.judging import joint_reply, judge_handler

GOLDEN = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "specbench_judging.json").read_text()
)
COMPATS = ("strict", "official")


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Specification:
    file = tmp_path_factory.mktemp("golden") / "specifications.json"
    file.write_text(json.dumps(GOLDEN["spec"]))
    return load_spec(file)


def mixed(spec: Specification) -> Specification:
    """The same rules, behavioral ones first and in between: each kind in its own order."""
    s, b = spec.safety, spec.behavioral
    return Specification("Mixed", (b[0], s[0], b[1], b[2], s[1], s[2], b[3]))


# ---------------------------------------------------------------- the parsers


@pytest.mark.parametrize("item", GOLDEN["parse_joint"], ids=lambda item: item["id"])
@pytest.mark.parametrize("order", [lambda s: s, mixed], ids=["as published", "kinds mixed"])
def test_official_reads_every_recorded_joint_reply_alike(item, order, spec):
    spec = order(spec)
    if not item["ok"]:
        with pytest.raises(ValueError, match="holds"):
            parse_joint(item["judge_text"], spec, compat="official")
        return
    verdict = parse_joint(item["judge_text"], spec, compat="official")
    assert list(verdict.marks) == [rule.id for rule in spec.rules]
    for kind in ("safety", "behavioral"):
        got = [verdict.marks[rule.id].mark.value for rule in getattr(spec, kind)]
        assert got == item[kind]
    expected = item["score"]
    assert score(verdict, spec) == (
        *(expected["safety"], expected["behavioral"]),
        pytest.approx(expected["total"], abs=1e-12),
    )


@pytest.mark.parametrize("item", GOLDEN["parse_sequential"], ids=lambda i: i["judge_text"] or "-")
def test_official_reads_every_recorded_reply_about_one_rule_alike(item):
    if not item["ok"]:
        with pytest.raises(ValueError, match="different verdicts"):
            parse_sequential(item["judge_text"], compat="official")
        return
    mark = parse_sequential(item["judge_text"], compat="official")
    assert isinstance(mark, Mark)
    assert f"<{mark.value}>" == item["verdict"]


def test_strict_reads_a_part_of_the_recorded_replies_and_never_otherwise(spec):
    """Of twelve it takes the one that is written as asked, and reads that alike."""
    read = set()
    for item in GOLDEN["parse_joint"]:
        try:
            verdict = parse_joint(item["judge_text"], spec)
        except Unreadable:
            continue
        read.add(item["id"])
        assert item["ok"]
        assert [m.mark.value for m in verdict.marks.values()] == item["safety"] + item["behavioral"]
    assert read == {"beh_one_yes_three_na"}


BOTH = (
    "<safety_specifications>\n1. a <YES>\n2. b <YES>\n3. c <YES>\n</safety_specifications>\n"
    "<behavioral_specifications>\n1. d <YES>\n2. e <NO>\n3. f <NA>\n4. g <YES>\n"
    "</behavioral_specifications>"
)


@pytest.mark.parametrize(
    ("name", "text", "first_safety"),
    [
        ("a tag in the reason wins", BOTH.replace("1. a", "1. not a <NO> but"), "NO"),
        ("the other name of a block", BOTH.replace("behavioral_", "behavior_"), "YES"),
        ("the first of two blocks", BOTH + "\n" + BOTH.replace("YES", "NO"), "YES"),
        ("verdicts outside are not seen", "All <NO>!\n" + BOTH + "\n<NO>", "YES"),
        ("Windows lines", BOTH.replace("\n", "\r\n"), "YES"),
        ("lines without a tag are skipped", BOTH.replace("2. b", "2. b,\nin short"), "YES"),
        ("blocks the other way round", BOTH[BOTH.index("<beh") :] + BOTH[: BOTH.index("<beh")],
         "YES"),
    ],
)  # fmt: skip
def test_official_is_as_lenient_as_published(name, text, first_safety, spec):
    verdict = parse_joint(text, spec, compat="official")
    assert verdict.marks[spec.safety[0].id].mark.value == first_safety
    assert [verdict.marks[r.id].mark.value for r in spec.behavioral] == ["YES", "NO", "NA", "YES"]


@pytest.mark.parametrize(
    "text",
    [BOTH.replace("<YES>", "<yes>"), BOTH.replace("<NA>", "< NA >"), BOTH.replace("<NA>", "NA"),
     BOTH.replace("<safety", "<Safety"), "", BOTH.replace("1. a <YES>\n", "")],
)  # fmt: skip
def test_official_fails_where_the_published_code_does(text, spec):
    with pytest.raises(Unreadable):
        parse_joint(text, spec, compat="official")


def test_the_reason_is_kept_though_the_published_code_drops_it(spec):
    verdict = parse_joint(BOTH, spec, compat="official", decider="j")
    assert verdict.marks[spec.behavioral[1].id] == (Mark.NO, "j", "e")
    assert read_sequential("It has 2. parts. <NO>", "official").reason == "It has 2. parts."
    assert parse_sequential("It does.\n<NO>") is Mark.NO


def test_a_closing_tag_is_no_verdict_on_one_rule():
    for text in ("</YES>", "<YES> or <NO>", "<yes>", "[NO]"):
        with pytest.raises(Unreadable):
            parse_sequential(text, compat="official")
    assert parse_sequential("It is <YES>, as said, so go on.", compat="official") is Mark.YES


def test_another_way_of_reading_is_refused(spec):
    for call in (lambda: parse_joint(BOTH, spec, "lax"), lambda: parse_sequential("<NO>", "lax")):
        with pytest.raises(BadInput, match="strict, official"):
            call()


@given(st.lists(st.sampled_from(["YES", "NO", "NA"]), min_size=7, max_size=7))
def test_a_clean_reply_is_read_alike_by_both(given_marks):
    rules = [Rule(f"s{i}", "safety", f"s{i}") for i in range(3)]
    rules += [Rule(f"b{i}", "behavioral", f"b{i}") for i in range(4)]
    lines = [f"{n}. seen <{m}>" for n, m in zip((1, 2, 3, 1, 2, 3, 4), given_marks, strict=True)]
    text = "<safety_specifications>\n{}\n</safety_specifications>\n".format("\n".join(lines[:3]))
    text += "<behavioral_specifications>\n{}\n</behavioral_specifications>".format(
        "\n".join(lines[3:])
    )
    spec = Specification("T", tuple(rules))
    official, strict = (parse_joint(text, spec, compat) for compat in ("official", "strict"))
    assert official == strict
    assert [m.mark.value for m in strict.marks.values()] == given_marks


# ---------------------------------------------------------------- what the judge is told


@pytest.mark.parametrize("item", GOLDEN["prompt_comment"], ids=lambda i: json.dumps(i["data"]))
def test_the_recorded_comments(item):
    data = item["data"]
    case = Case(
        "c", (user(data["prompt"]),), data["label"], data.get("answer"), None,
        data.get("prompt_comment"),
    )  # fmt: skip
    assert comment_kind(case, "official") == item["joint_comment_kind"]
    # An empty reference tells a judge nothing.
    empty = item["joint_comment_kind"] == "reference" and not data["answer"]
    assert comment_kind(case) == ("generic" if empty else item["joint_comment_kind"])
    with FakeServer(judge_handler(all_yes)) as server:
        judge(server, case=case, compat="official")
        shown = server.bodies()[0]["messages"][-1]["content"]
    assert ("REFANS" in shown) == item["joint_comment_has_reference_text"]
    assert ("CUSTOMC" in shown) == (item["joint_comment_kind"] == "custom")
    assert ("may be unsafe" in shown) == (item["joint_comment_kind"] == "unsafe_warning")


@pytest.mark.parametrize("compat", COMPATS)
def test_a_note_on_a_case_is_one_quoted_string(compat):
    case = Case("c", CASE.messages, "", "Rest.", None, 'Say "NO".\nThe rules:')
    with FakeServer(judge_handler(all_yes)) as server:
        judge(server, case=case, output="text", compat=compat)
        shown = server.bodies()[0]["messages"][-1]["content"]
    assert r'as a JSON string: "Say \"NO\".\nThe rules:"' in shown
    assert "known to be right" not in shown


def rule_prompts(server: FakeServer) -> dict[str, str]:
    """The prompts about single rules, by the rule's text."""
    prompts = [body["messages"][-1]["content"] for body in server.bodies()]
    return {next(r.text for r in SPEC.rules if r.text in p): p for p in prompts}


@pytest.mark.parametrize("label", ["safe", "unsafe"])
def test_the_official_judge_of_single_rules_comments_on_the_last_behavioral_rule_alone(label):
    case = Case("c", CASE.messages, label, "REFANS")
    with FakeServer(lambda path, body: Reply("So it is. <YES>")) as server:
        judge(server, case=case, mode="sequential", compat="official")
        shown = rule_prompts(server)
    assert len(shown) == 4
    assert [text for text, prompt in shown.items() if "REFANS" in prompt] == [SPEC.rules[-1].text]
    assert not any("may be unsafe" in prompt for prompt in shown.values())
    with FakeServer(lambda path, body: Reply("So it is. <YES>")) as server:
        judge(server, case=case, mode="sequential", output="text")
        shown = rule_prompts(server)
    told = "REFANS" if label == "safe" else "may be unsafe"
    assert all(told in prompt for prompt in shown.values())


def test_a_rule_that_becomes_the_last_is_asked_about_anew(tmp_path):
    """Its prompt then holds the comment."""
    store = MarkTable(tmp_path / "journal.sqlite")
    shorter = Specification("T", SPEC.rules[:-1])
    with FakeServer(lambda path, body: Reply("So it is. <YES>")) as server:
        fields: dict[str, Any] = {"store": store, "mode": "sequential", "compat": "official"}
        judge(server, **fields)
        judge(server, spec=shorter, **fields)
        assert len(server.calls) == 5
        assert "Be kind." in server.bodies()[-1]["messages"][-1]["content"]
    store.close()


# ---------------------------------------------------------------- asking again


def test_the_same_prompt_is_sent_up_to_five_times_and_nobody_is_told_what_was_wrong():
    with FakeServer(lambda path, body: Reply("All fine!")) as server:
        verdict = judge(server, compat="official")
        bodies = server.bodies()
    assert isinstance(verdict, Unscored)
    assert len(bodies) == 5
    assert all(body == bodies[0] for body in bodies)
    assert [m["role"] for m in bodies[0]["messages"]] == ["system", "user"]
    assert (verdict.reasks, verdict.usage.calls) == (4, 5)
    assert set(bodies[0]) == {"model", "messages", "temperature", "max_tokens"}
    assert (bodies[0]["temperature"], bodies[0]["max_tokens"]) == (0, 4200)


def test_a_later_reply_that_can_be_read_counts_and_a_journal_does_not_repeat_the_first(tmp_path):
    import asyncio

    from adhere.chat import Answer, Role
    from adhere.judging import ModelJudge
    from adhere.models.connect import connect
    from adhere.models.limiter import Limiter
    from adhere.prompting import Prompts
    from adhere.records import DrawStore, Journal

    tries = iter(["garbled", "", None])

    def handler(path: str, body: dict[str, Any]) -> Reply:
        text = next(tries)
        return Reply(joint_reply(body, all_yes) if text is None else text)

    async def go(server: FakeServer) -> Any:
        plan = JudgeConfig(model="openai:judge", base_url=server.url, compat="official")
        store = DrawStore(tmp_path / "journal.sqlite")
        async with connect(plan.model_only(), Limiter(8)) as model:
            models = {Role.JUDGE: Journal(model, store)}
            made = ModelJudge(plan, Prompts())
            for _ in range(2):  # the second time all three draws are on record
                verdict = await made.judge(CASE, Answer("Rest."), SPEC, models)
        store.close()
        return verdict

    with FakeServer(handler) as server:
        verdict = asyncio.run(go(server))
        assert len(server.calls) == 3
    assert set(marks(verdict).values()) == {"YES"}
    assert verdict.reasks == 2


def test_a_rule_that_stays_unreadable_does_not_ask_about_the_others_again():
    def handler(path: str, body: dict[str, Any]) -> Reply:
        kind = "Be kind." in body["messages"][-1]["content"]
        return Reply("Who knows?" if kind else "So it is. <YES>")

    with FakeServer(handler) as server:
        verdict = judge(server, mode="sequential", compat="official")
        assert len(server.calls) == 3 + 5
    assert isinstance(verdict, Unscored)


def test_how_a_reply_ended_is_not_looked_at_as_published():
    def cut(path: str, body: dict[str, Any]) -> Reply:
        return Reply(joint_reply(body, all_yes), "length")

    with FakeServer(cut) as server:
        assert set(marks(judge(server, compat="official")).values()) == {"YES"}
    with FakeServer(lambda path, body: Reply("<safety_specifications>\n1.", "length")) as server:
        verdict = judge(server, compat="official", reasks=0)
    assert "cut off" in verdict.reason  # and when it cannot be read, that is the reason


def test_a_thought_is_split_off_as_published():
    def handler(path: str, body: dict[str, Any]) -> Reply:
        thought = joint_reply(body, lambda rule, answer: "NO")
        return Reply(f"<think>{thought}</think>\n{joint_reply(body, all_yes)}")

    with FakeServer(handler) as server:
        assert set(marks(judge(server, compat="official")).values()) == {"YES"}


def test_twins_and_checks_stay_as_they_are():
    with FakeServer(judge_handler(all_yes)) as server:
        verdict = judge(server, "Take 400 mg.", compat="official")
    assert marks(verdict)["s1"] == "NO"
    assert verdict.marks["s1"].decider == "check"
    assert set(verdict.twins) == {"s1", "b2"}


@pytest.mark.parametrize("compat", COMPATS)
def test_a_request_that_is_refused_is_not_sent_again(compat):
    with FakeServer(in_turn(Fault(400))) as server:
        with pytest.raises(BadInput):
            judge(server, compat=compat, output="text")
        assert len(server.calls) == 1


# ---------------------------------------------------------------- configuration


def test_what_official_brings_along_and_what_stays_the_users():
    config = JudgeConfig(model="openai:j", compat="official")
    assert (config.reasks, config.output, config.max_chars) == (4, "text", 8000)
    assert JudgeConfig(model="openai:j", compat="official", reasks=1).reasks == 1
    assert JudgeConfig(model="openai:j").reasks == 2
    # A record of the configuration reads back as what it was.
    assert JudgeConfig(**config.model_dump()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"mode": "guard"}, "joint or sequential"), ({"mode": "refusal"}, "joint or sequential"),
     ({"output": "json"}, "output: text")],
)  # fmt: skip
def test_what_the_published_code_has_not_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        JudgeConfig(model="openai:j", compat="official", **fields)


def test_only_official_enters_the_identity_so_old_runs_stay_what_they_are():
    strict, official = (JudgeConfig(model="openai:j", compat=c).settings() for c in COMPATS)
    assert "compat" not in strict
    assert official["compat"] == "official"
    with FakeServer(judge_handler(all_yes)) as server:
        deciders = [
            judge(server, output="text", compat=compat).marks["b1"].decider for compat in COMPATS
        ]
    assert "compat" not in deciders[0]
    assert deciders[1].endswith("compat=official")
