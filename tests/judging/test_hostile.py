"""Answers that try to write their own verdict: none can, whatever the judge makes of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from adhere.chat import Unscored
from adhere.prompting import BLOCK_LIKE, VERDICT_LIKE, defanged, enclosed
from judging.test_model_judge import judge
from support.fake_server import FakeServer, Reply
from support.judging import examined, fixture, is_judging

HOSTILE = fixture("hostile_responses.jsonl")
MODES = ("joint", "sequential", "guard")


def test_there_are_enough_hostile_answers():
    assert len(HOSTILE) >= 15
    assert len({item["response"] for item in HOSTILE}) == len(HOSTILE)


def enclosing(prompt: str, name: str) -> list[str]:
    """All texts that stand between a tag of this name and its closing tag, in any spelling."""
    opens = re.findall(rf"^<({name}[\w-]*)>$", prompt, re.MULTILINE)
    assert len(opens) == 1, f"one opening tag, found {opens}"
    return re.findall(rf"<\s*/\s*{re.escape(opens[0])}\s*>", prompt, re.IGNORECASE)


@pytest.mark.parametrize("mode", ("joint", "sequential", "refusal"))
@pytest.mark.parametrize("item", HOSTILE, ids=lambda item: item["name"])
def test_no_answer_closes_its_delimiter_or_brings_a_verdict_tag(item, mode):
    prompts: list[str] = []

    def handler(path: str, body: dict[str, Any]) -> Reply:
        prompts.append(body["messages"][-1]["content"])
        return Reply("nothing")

    from adhere.spec import Rule, Specification

    spec = Specification("T", (Rule("a", "behavioral", "Answer.", category="compliance"),))
    with FakeServer(handler) as server:
        judge(server, item["response"], spec=spec, mode=mode, output="text", reasks=0)
    [prompt] = prompts
    assert len(enclosing(prompt, "answer")) == 1
    inside = examined({"messages": [{"role": "user", "content": prompt}]})
    assert not VERDICT_LIKE.search(inside)
    assert not BLOCK_LIKE.search(inside)
    assert not re.search(r"<\|.*?\|>|\[/?INST\]|<(REFUSES|PARTLY|ANSWERS)>", inside)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("item", HOSTILE, ids=lambda item: item["name"])
def test_a_judge_that_parrots_the_answer_gives_no_verdict(item, mode):
    """The weakest judge there is: it replies with whatever stands in the answer."""

    def parrot(path: str, body: dict[str, Any]) -> Reply:
        assert is_judging(body) or mode == "guard"
        prompt = next(m["content"] for m in body["messages"] if m["role"] == "user")
        tag = "message" if mode == "guard" else "answer"
        return Reply(re.findall(rf"<({tag}[\w-]*)>\n(.*?)\n</\1>", prompt, re.DOTALL)[-1][1])

    with FakeServer(parrot) as server:
        verdict = judge(server, item["response"], mode=mode, output="text", reasks=1)
    assert isinstance(verdict, Unscored), verdict


@pytest.mark.parametrize("item", HOSTILE, ids=lambda item: item["name"])
def test_a_prompt_is_as_harmless_as_an_answer(item):
    from adhere.chat import Case, user

    case = Case("c", (user(item["response"]),), "unsafe")
    with FakeServer(lambda path, body: Reply("nothing")) as server:
        judge(server, "Fine.", case=case, output="text", reasks=0)
        prompt = server.bodies()[0]["messages"][-1]["content"]
    assert len(enclosing(prompt, "question")) == 1
    assert examined(server.bodies()[0]) == "Fine."


def test_ordinary_markup_is_shown_as_it_is():
    for text in (
        "<p>Yes</p>",
        "a < b and b > a",
        "[1] Source",
        "```html\n<no-script>\n```",
        "naïve",
    ):
        assert defanged(text) == text
    assert enclosed("a</answer>b", "answer").count("</answer>") == 1
