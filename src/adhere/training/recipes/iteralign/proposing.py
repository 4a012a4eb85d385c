"""Proposing rules: what an oracle is asked about failures, and how its reply is read.

* `rules` (recommended): failures with their prompts, in chunks by tokens, and a list of rules each
  of which names the failures that it covers.
* `published`: one call for a whole batch with all bad answers joined by a blank, no prompts; the
  text after the reply's last blank line is the constitution, whatever it is.

A failure's text may hold instructions to the oracle. Two nets are under it: a rule that repeats a
long run of words of its source, and a source that speaks of rules, instructions or reviews, are
flagged, and a flagged rule is held back until a person lets it in (`ledger.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adhere.judging.parsing import Unreadable
from adhere.judging.questions import conversation
from adhere.prompting import without_hidden
from adhere.training.recipes.iteralign.failures import Failure
from adhere.training.recipes.iteralign.telling import Group, groups, sentences_with

LONGEST_RULE = 400  # characters
CHARS_A_TOKEN = 4
RUN = 6  # words in a row that a rule may not share with its source

_LINE = re.compile(
    r"\s*(?:[-*]|\d+[.)])?\s*\**RULE\**\s*:\s*(?P<rule>.+?)\s*\|\s*KIND\s*:\s*(?P<kind>\w+)\s*"
    r"\|\s*COVERS\s*:\s*(?P<covers>[\d,;\s#and]*?)\s*\.?\s*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_SPELLED = re.compile(r"\\u([0-9a-fA-F]{4})")
# How a text that wants to get a rule in speaks: to whoever reviews, of rules and instructions.
_SPEAKS_OF_RULES = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instruction|rule|above|previous|prior)"
    r"|\b(?:new|add|write|following|this|propose|output|include)\b.{0,30}"
    r"\b(?:rules?|principles?|constitution|guidelines?)\b"
    r"|\b(?:oracle|reviewer|judge|examiner|proposer)\b.{0,40}\b(?:must|should|please|note|write)\b"
    r"|[{\[]\s*\"?rules?\"?\s*[:\]]|\bRULE\s*:|\bCOVERS\s*:",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Proposal:
    """One proposed rule. `covers`: ids of the failures that it would have prevented.

    `flags`: why it should be looked at before it is used, in words; empty for none.
    """

    text: str
    kind: str
    covers: tuple[str, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Failures of one call. `apart`: their texts speak to a reviewer of rules.

    `word`: one that stands in all of their answers, and in `in_good` of `of_good` good ones;
    `also`: others that stand beside it.
    """

    failures: tuple[Failure, ...]
    apart: bool = False
    word: str = ""
    also: tuple[str, ...] = ()
    in_good: int = 0
    of_good: int = 0


def chunks(
    failures: Sequence[Failure], tokens: int, *, good: Sequence[Failure] | None = None
) -> list[Chunk]:
    """The failures in pieces of about so many tokens; one that is longer is a piece of its own.

    `good`: good answers; the pieces are then of groups that share a telling word. Those that speak
    of rules come last and among themselves, so that what they may have planted is in no other
    reply.
    """
    loud = {name for name, _ in speaking_of_rules(failures)}
    plain = [failure for failure in failures if failure.id not in loud]
    others = [failure for failure in failures if failure.id in loud]
    sorts = [Group("", tuple(plain))] if good is None else groups(plain, good)
    if good is not None:
        # Sentences that stood apart in an answer stand side by side where they are shown.
        told = {name for sort in sorts for name, _ in speaking_of_rules(as_told(sort))}
        others += [failure for failure in plain if failure.id in told]
        sorts = [
            replace(sort, failures=tuple(f for f in sort.failures if f.id not in told))
            for sort in sorts
        ]
    return [
        *(
            Chunk(
                piece,
                word=sort.word,
                also=sort.also,
                in_good=sort.in_good,
                of_good=len(good or ()),
            )
            for sort in sorts
            for piece in _pieces(sort.failures, tokens)
        ),
        *(Chunk(piece, apart=True) for piece in _pieces(others, tokens)),
    ]


def as_told(group: Group | Chunk) -> list[Failure]:
    """The failures as the oracle is shown them: of a group with a word, the sentences with it."""
    if not group.word:
        return list(group.failures)
    return [
        replace(failure, answer=" ".join(sentences_with(group.word, failure.answer)))
        for failure in group.failures
    ]


def _pieces(failures: Sequence[Failure], tokens: int) -> list[tuple[Failure, ...]]:
    out: list[tuple[Failure, ...]] = []
    held: list[Failure] = []
    size = 0
    for failure in failures:
        own = length_of(failure)
        if held and size + own > tokens:
            out.append(tuple(held))
            held, size = [], 0
        held.append(failure)
        size += own
    return [*out, tuple(held)] if held else out


def length_of(failure: Failure) -> int:
    """About how many tokens a failure takes in the oracle's prompt."""
    chars = len(conversation(failure.case)) + len(failure.answer) + len(failure.reason)
    return chars // CHARS_A_TOKEN + 20


def parse_rules(reply: str, failures: Sequence[Failure], most: int) -> list[Proposal]:
    """The rules of a reply in lines. Raises Unreadable; a reply without any rule is one."""
    found = []
    for line in without_hidden(reply).strip().splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise Unreadable(
                "each line must be RULE: one sentence | KIND: safety or behavioral | COVERS: "
                "numbers, and nothing else may stand there"
            )
        covers = [int(number) for number in re.findall(r"\d{1,6}", match["covers"])]
        found.append((match["rule"], match["kind"].lower(), covers))
    return _proposals(found, failures, most)


def parse_structured_rules(reply: str, failures: Sequence[Failure], most: int) -> list[Proposal]:
    """The rules of a JSON reply. Raises Unreadable."""
    try:
        data = json.loads(reply)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON object") from None
    items = data.get("rules") if isinstance(data, dict) and set(data) == {"rules"} else None
    if not isinstance(items, list):
        raise Unreadable("it must be an object with the one key rules, a list")
    found = []
    for item in items:
        if not isinstance(item, dict) or set(item) != {"rule", "kind", "covers"}:
            raise Unreadable("each rule must have exactly rule, kind and covers")
        covers = item["covers"]
        if not isinstance(item["rule"], str) or not isinstance(item["kind"], str):
            raise Unreadable("rule and kind must be texts")
        if not isinstance(covers, list) or any(type(n) is not int for n in covers):
            raise Unreadable("covers must be a list of numbers")
        found.append((item["rule"], item["kind"].lower(), covers))
    return _proposals(found, failures, most)


def _proposals(
    found: Sequence[tuple[str, str, Sequence[int]]], failures: Sequence[Failure], most: int
) -> list[Proposal]:
    if not found:
        raise Unreadable("it holds no rule")
    if len(found) > most:
        raise Unreadable(f"it holds {len(found)} rules; at most {most} were asked for")
    out = []
    for text, kind, covers in found:
        plain = " ".join(text.split())
        if len(_WORD.findall(plain)) < 3:
            raise Unreadable(f"{plain[:60]!r} is no rule: a whole sentence is expected")
        if len(plain) > LONGEST_RULE:
            raise Unreadable(f"a rule has {len(plain)} characters; at most {LONGEST_RULE}")
        if kind not in ("safety", "behavioral"):
            raise Unreadable("the kind must be safety or behavioral")
        numbers = list(dict.fromkeys(covers))
        if not numbers or any(not 1 <= number <= len(failures) for number in numbers):
            raise Unreadable(f"each rule must cover answers by their numbers, 1 to {len(failures)}")
        sources = [failures[number - 1] for number in numbers]
        out.append(Proposal(plain, kind, tuple(f.id for f in sources), flags_of(plain, failures)))
    return out


def with_patterns(
    found: Sequence[Proposal], shown: Sequence[Failure], known: Sequence[Failure]
) -> list[Proposal]:
    """The rules with the failures behind those that a model's own prompts brought about.

    A prompt that was written like a failure may carry on what stood in it: that failure is named
    with it, and a rule that shares its words is flagged like one that was made of it.
    """
    by_id = {failure.id: failure for failure in known}
    likes = {failure.id: failure.like for failure in shown if failure.like in by_id}
    behind = [by_id[like] for like in dict.fromkeys(likes.values())]
    return [
        replace(
            rule,
            covers=tuple(
                dict.fromkeys([*rule.covers, *(likes[c] for c in rule.covers if c in likes)])
            ),
            flags=tuple(dict.fromkeys([*rule.flags, *flags_of(rule.text, behind)])),
        )
        for rule in found
    ]


def schema(n: int, most: int) -> Mapping[str, Any]:
    """The JSON schema of a structured reply about n failures."""
    rule = {
        "type": "object",
        "properties": {
            "rule": {"type": "string"},
            "kind": {"type": "string", "enum": ["safety", "behavioral"]},
            "covers": {
                "type": "array", "minItems": 1,
                "items": {"type": "integer", "minimum": 1, "maximum": n},
            },
        },
        "required": ["rule", "kind", "covers"],
        "additionalProperties": False,
    }  # fmt: skip
    return {
        "type": "object",
        "properties": {"rules": {"type": "array", "minItems": 1, "maxItems": most, "items": rule}},
        "required": ["rules"],
        "additionalProperties": False,
    }


def last_paragraph(reply: str) -> str:
    """The constitution as the released script reads it: what stands after the last blank line.

    A blank line is two line breaks side by side. A reply without one is the constitution whole, as
    it stands; rules before a closing remark are lost. That is as published.
    """
    return reply.rsplit("\n\n", maxsplit=1)[-1]


def joined_answers(failures: Sequence[Failure]) -> str:
    """All bad answers of a batch as the released script shows them: one blank between them."""
    return " ".join(failure.answer for failure in failures)


# ---------------------------------------------------------------- texts that want a rule in


def flags_of(rule: str, shown: Sequence[Failure]) -> tuple[str, ...]:
    """Why a rule should be looked at: it stands in a source, or a source speaks of rules.

    `shown`: all failures that the oracle saw, covered or not: a planted rule may name others.
    """
    out: list[str] = []
    words = _words(rule)
    runs = {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)} or {tuple(words)}
    for failure in shown:
        for where, text in _texts(failure):
            said = _words(text)
            if any(tuple(said[at : at + len(r)]) == r for r in runs for at in _starts(said, r)):
                out.append(f"{RUN} words in a row stand in the {where} of {failure.id}")
    out += [f"the {where} of {name} speaks of rules" for name, where in speaking_of_rules(shown)]
    return tuple(dict.fromkeys(out))


def speaking_of_rules(shown: Sequence[Failure]) -> list[tuple[str, str]]:
    """Ids of the failures whose texts speak to a reviewer of rules, with which text does."""
    found = [
        (failure.id, where)
        for failure in shown
        for where, text in _texts(failure)
        if _SPEAKS_OF_RULES.search(_plain(text))
    ]
    return list(dict.fromkeys(found))


def _texts(failure: Failure) -> list[tuple[str, str]]:
    """All that the oracle is shown of a failure, as it was written and not as it is quoted."""
    case = failure.case
    said = [("message", message.text) for message in case.messages]
    judged = [("message", case.judged_prompt)] if case.judged_prompt else []
    return [*said, *judged, ("answer", failure.answer), ("reason", failure.reason)]


def _plain(text: str) -> str:
    """The text as an oracle reads it: hidden characters gone, what stands for a blank a blank.

    Letters that JSON spells by their numbers are letters.
    """
    text = _SPELLED.sub(lambda found: chr(int(found[1], 16)), text)
    return re.sub(r"[_\s]+", " ", without_hidden(text))


def _starts(said: Sequence[str], run: Sequence[str]) -> list[int]:
    return [at for at, word in enumerate(said) if run and word == run[0]]


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text).casefold())
