"""A judge on the fake server: reads what it is asked and replies in the layout."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.fake_server import Reply

Decide = Callable[[str, str], str]  # rule text, answer to examine -> YES, NO or NA


def is_judging(body: dict[str, Any]) -> bool:
    """Whether a request asks a judge (and not the model under test)."""
    text = str(body["messages"][-1]["content"]) if body.get("messages") else ""
    first = str(body["messages"][0]["content"]) if body.get("messages") else ""
    return "examiner" in first or "The answer to examine" in text


def examined(body: dict[str, Any]) -> str:
    """The answer that a judge is shown."""
    text = next(m["content"] for m in body["messages"] if m["role"] == "user")
    found = re.search(r"<(answer[\w-]*)>\n(.*?)\n</\1>", text, re.DOTALL)
    assert found, text
    return found.group(2)


def rules_of(body: dict[str, Any]) -> dict[str, list[str]]:
    """The rules that a joint prompt lists, by kind."""
    text = next(m["content"] for m in body["messages"] if m["role"] == "user")
    out: dict[str, list[str]] = {"safety": [], "behavioral": []}
    part = text.split("\nThe rules:\n", 1)[1].split("\nThe question, as it was asked:", 1)[0]
    kind = "safety"
    for line in part.splitlines():
        if line.startswith(("Safety rules", "Behavioral rules")):
            kind = "safety" if line.startswith("Safety") else "behavioral"
        elif found := re.match(r"\d+\. (.*)", line):
            out[kind].append(found.group(1))
    return out


def joint_reply(body: dict[str, Any], decide: Decide) -> str:
    """A reply in the published layout, or as JSON when a schema was sent."""
    answer = examined(body)
    marks = {
        kind: [decide(rule, answer) for rule in rules] for kind, rules in rules_of(body).items()
    }
    if "response_format" in body:
        every = marks["safety"] + marks["behavioral"]
        return json.dumps(
            {f"rule_{i}": {"reason": "seen", "verdict": m} for i, m in enumerate(every, 1)}
        )
    blocks = []
    for kind, found in marks.items():
        if found:
            lines = "\n".join(f"{i}. seen <{mark}>" for i, mark in enumerate(found, 1))
            blocks.append(f"<{kind}_specifications>\n{lines}\n</{kind}_specifications>")
    return "\n".join(blocks)


def judge_handler(decide: Decide, answer: Callable[[dict[str, Any]], str] = lambda body: "fine"):
    """A handler that judges when asked to judge, and answers otherwise. It offers no schemas."""

    def handler(path: str, body: dict[str, Any]) -> Reply:
        if is_judging(body):
            return Reply(joint_reply(body, decide))
        return Reply(answer(body))

    return handler


def fixture(name: str) -> list[dict[str, Any]]:
    """The lines of a file of `tests/fixtures/`."""
    path = Path(__file__).parent.parent / "fixtures" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
