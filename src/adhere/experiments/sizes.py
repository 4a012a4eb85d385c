"""How many tokens a prompt will have, before any model has read it: a range from its characters.

One token for every 4 characters is the low end (plain English), one for every 2.5 the high end
(names, numbers, markup). Characters beyond the Latin script may be a token each. A message may
cost up to 8 tokens of a chat template. Parts of a message that are no text are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from adhere.chat import Case, Message, canonical_json, digest
from adhere.methods.base import PlannedCall
from adhere.methods.prompting import compose
from adhere.prompting import BUILT_IN, Prompts, bullets, spec_text
from adhere.spec import Specification

CHARACTERS_LOW = 4.0  # characters of a token, for the low end
CHARACTERS_HIGH = 2.5
LAST_LATIN = "\u024f"
MESSAGE_HIGH = 8  # tokens that a chat template adds to a message, at most
REASON = 200  # characters in which a check says what it found, at most
_SYSTEM = ("system", "developer")


class Size(NamedTuple):
    """Tokens, low and high."""

    low: float
    high: float

    def plus(self, other: Size) -> Size:
        """Both together."""
        return Size(self.low + other.low, self.high + other.high)


NOTHING = Size(0, 0)


def size_of(text: str) -> Size:
    """Tokens of a text."""
    wide = 0 if text.isascii() else sum(c > LAST_LATIN for c in text)
    return Size(len(text) / CHARACTERS_LOW, (len(text) - wide) / CHARACTERS_HIGH + wide)


class Sizes:
    """Sizes of prompts under one spec and one set of templates. What repeats is kept."""

    def __init__(self, spec: Specification, prompts: Prompts) -> None:
        self.spec = spec
        self.prompts = prompts
        # Lists of rules stand in prompts with and without headings.
        self._parts: dict[str, Size] = {
            "rules": Size(size_of(bullets(spec.rules)).low, size_of(spec_text(spec)).high),
            "safety": size_of(bullets(spec.safety)),
            "behavioral": size_of(bullets(spec.behavioral)),
            "reasons": Size(0, len(spec.rules) * REASON / CHARACTERS_HIGH),
        }
        self._heads: dict[tuple[str, str], Size] = {}
        self._cases: dict[int, dict[str, Size]] = {}

    def prompt(self, call: PlannedCall, case: Case, earlier: float) -> Size:
        """One prompt of a call; its earlier completions have at most `earlier` tokens each."""
        messages = len(case.messages) + 2 + 2 * call.earlier
        total = Size(0, call.earlier * earlier + MESSAGE_HIGH * messages)
        for part in call.prompt:
            total = total.plus(self._part(part, case))
        return total

    def _part(self, part: str, case: Case) -> Size:
        own = self._cases.setdefault(id(case), {})
        found = self._parts.get(part) or own.get(part)
        if found is not None:
            return found
        if "/" in part:
            self._parts[part] = self._template(part)
            return self._parts[part]
        if part == "conversation":
            size = _messages(case.messages)
        elif part == "question":
            size = size_of(case.prompt)
        else:
            talk = [m for m in case.messages if m.role not in _SYSTEM]
            size = self._head(part, case).plus(_messages(talk))
        own[part] = size
        return size

    def _head(self, order: str, case: Case) -> Size:
        """What the spec and the system message add to a conversation of this order."""
        own = [m for m in case.messages if m.role in _SYSTEM]
        key = order, canonical_json([m.to_dict() for m in own])
        if key not in self._heads:
            empty = [*own, Message("user", "")]
            self._heads[key] = _messages(compose(empty, self.spec, self.prompts, order))
        return self._heads[key]

    def _template(self, name: str) -> Size:
        """A template's own words: none at the low end, its whole source at the high end."""
        places = [self.prompts.folder] if self.prompts.folder else []
        files = [place / f"{name}.jinja" for place in (*places, *BUILT_IN)]
        text = next((f.read_text(encoding="utf-8") for f in files if f.is_file()), "")
        return Size(0, size_of(text).high)


def fingerprint(case: Case) -> str:
    """Equal for cases that ask the same: their draws are shared, so they are paid once."""
    return digest([m.to_dict() for m in case.messages])


def _messages(messages: Sequence[Message]) -> Size:
    total = NOTHING
    for message in messages:
        total = total.plus(size_of(message.text))
        if message.tool_calls:
            total = total.plus(size_of(json.dumps(list(message.tool_calls))))
    return total
