"""The one place that knows how models mark their thoughts.

A reasoning model writes its thought between tags and the answer behind the closing one. The
rule is the one of the published SpecBench code: the answer is what stands behind the *last*
closing tag, without its leading line breaks; the thought is the piece just before it; without a
closing tag the whole text is the answer.
"""

from __future__ import annotations

from typing import NamedTuple

OPEN = "<think>"
CLOSE = "</think>"


class Split(NamedTuple):
    """A text taken apart. `closed` is False when no closing tag was found."""

    thought: str
    answer: str
    closed: bool


def split_thought(text: str, close: str = CLOSE) -> Split:
    """Take a model's text apart into thought and answer. The opening tag is not removed."""
    pieces = text.split(close)
    if len(pieces) == 1:
        return Split("", text, closed=False)
    return Split(pieces[-2], pieces[-1].lstrip("\n"), closed=True)


def plain_thought(thought: str) -> str:
    """A thought as people read it: without the opening tag and the space around it."""
    return thought.strip().removeprefix(OPEN).strip()
