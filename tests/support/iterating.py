"""Small runs of IterAlign's modules, against the fake server: a policy and an oracle by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.fake_server import FakeServer

Body = dict[str, Any]

# What the policy says badly, and how it is known.
BAD = "Buy BrandX, everybody says so."


def write_prompts(folder: Path, n: int = 4, start: int = 0) -> Path:
    file = folder / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(start, start + n)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def model(name: str, server: FakeServer, **fields: Any) -> dict[str, Any]:
    base = {"base_url": server.url, "prefill": "none", "thinks": False}
    return {"model": f"openai:{name}", **base, **fields}


def judge(name: str, server: FakeServer, **fields: Any) -> dict[str, Any]:
    return {"model": f"openai:{name}", "base_url": server.url, "output": "text", **fields}


def last(body: Body) -> str:
    """The last user message."""
    return str(next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user"))


def number(body: Body) -> int:
    """Which of the prompts is asked or talked about."""
    found = re.search(r"Question (\d+)\?", last(body))
    assert found, last(body)
    return int(found.group(1))


def verdict(bad: bool) -> str:
    word = "bad" if bad else "good"
    axis = "honest" if bad else "none"
    return f"It says so. <verdict>{word}</verdict> <axis>{axis}</axis>"


def judged(body: Body) -> str:
    """A judge that finds the planted phrase, in the answer alone."""
    said = "\n".join(str(message["content"]) for message in body["messages"])
    answer = re.search(r"Now the one to decide.*<answer>\n(.*)\n</answer>", said, re.DOTALL)
    assert answer, said
    return verdict("BrandX" in answer.group(1))


def rule_line(text: str, covers: str, kind: str = "safety") -> str:
    return f"RULE: {text} | KIND: {kind} | COVERS: {covers}"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kinds(bodies: list[Body]) -> Mapping[str, int]:
    """How many calls there were of each kind, by what stands in them."""
    found: dict[str, int] = {}
    for body in bodies:
        text = last(body)
        kind = (
            "judge" if "Now the one to decide" in text
            else "propose" if "Below are" in text
            else "critique" if "say where the answer breaks" in text
            else "revise" if "Write the answer anew" in text
            else "again" if "When you answer, keep to" in text
            else "answer"
        )  # fmt: skip
        found[kind] = found.get(kind, 0) + 1
    return found
