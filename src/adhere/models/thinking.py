"""The one place that knows how models mark their thoughts.

A reasoning model writes its thought between tags and the answer behind the closing one. The
rule is the one of the published SpecBench code: the answer is what stands behind the *last*
closing mark, without its leading line breaks; the thought is the piece just before it, without
its last line breaks; without a closing mark the whole text is the answer.
"""

from __future__ import annotations

from typing import NamedTuple

OPEN = "<think>"
CLOSE = "</think>"

# Models with marks of their own, by how their name begins (behind a publisher's "name/").
_OTHER_MARKS = (("gemini", "</thought>"), ("stair", "Final Answer: "))


class Split(NamedTuple):
    """A text taken apart. `closed` is False when no closing mark was found."""

    thought: str
    answer: str
    closed: bool


def thought_end(model_name: str) -> str:
    """The mark behind which a model's answer stands: `</think>` for all but a few families."""
    name = model_name.rsplit("/", 1)[-1].lower()
    return next((mark for start, mark in _OTHER_MARKS if name.startswith(start)), CLOSE)


def split_thought(text: str, close: str = CLOSE) -> Split:
    """Take a model's text apart into thought and answer. The opening tag is not removed."""
    pieces = text.split(close)
    if len(pieces) == 1:
        return Split("", text, closed=False)
    return Split(pieces[-2].rstrip("\n"), pieces[-1].lstrip("\n"), closed=True)


def plain_thought(thought: str) -> str:
    """A thought as people read it: without the opening tag and the space around it."""
    return thought.strip().removeprefix(OPEN).strip()
