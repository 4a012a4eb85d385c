"""The chosen rows as the page shows them: cut to a length, marks beside their rules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.teaching import MAX_ROWS, Choice, Chosen


@dataclass(frozen=True)
class AnswerLimits:
    """How much of the answers a page shows."""

    answers: int = MAX_ROWS
    text: int = 12_000
    steps: int = 24
    marks: int = 200


@dataclass(frozen=True)
class Text:
    """The beginning of a text and how many characters of it were cut."""

    shown: str
    cut: int = 0


@dataclass(frozen=True)
class MarkView:
    """One rule's mark on one answer."""

    rule: str
    text: str
    mark: str
    decider: str
    reason: str


@dataclass(frozen=True)
class StepView:
    """One intermediate text of a method."""

    name: str
    note: str
    ended: str
    text: Text


@dataclass(frozen=True)
class AnswerView:
    """One method's answer to a case."""

    label: str
    model: str
    outcome: str
    score: str
    reason: str
    flags: tuple[str, ...]
    text: Text
    thought: Text
    steps: tuple[StepView, ...]
    steps_left_out: int
    marks: tuple[MarkView, ...]
    facts: Text
    cost: str

    @property
    def broken(self) -> tuple[MarkView, ...]:
        """The rules this answer violates."""
        return tuple(m for m in self.marks if m.mark == "NO")

    @property
    def tally(self) -> str:
        """`6 followed, 2 broken, 1 not applicable`."""
        words = (("YES", "followed"), ("NO", "broken"), ("NA", "not applicable"))
        counts = ((sum(m.mark == mark for m in self.marks), word) for mark, word in words)
        return ", ".join(f"{n} {word}" for n, word in counts if n)


@dataclass(frozen=True)
class CaseView:
    """A case with its answers side by side."""

    case: str
    suite: str
    label: str
    why: str
    snippet: str
    prompt: Text
    turns: tuple[tuple[str, Text], ...]
    answers: tuple[AnswerView, ...]
    of: int

    @property
    def sensitive(self) -> bool:
        """True when its texts stay blurred until the reader asks for them."""
        return self.label == "unsafe"


@dataclass(frozen=True)
class Frame:
    """What all cases of a page share: the limits, the rules' texts, and which names vary."""

    limits: AnswerLimits
    rules: Mapping[str, str]
    models: bool
    suites: bool
    repeats: bool


def case_views(
    found: Mapping[int, Mapping[str, Any]],
    choice: Choice,
    summary: Mapping[str, Any],
    limits: AnswerLimits,
) -> tuple[CaseView, ...]:
    """The chosen cases out of the rows picked up, cut to the limits."""
    rules = (summary.get("spec") or {}).get("rules") or ()
    frame = Frame(
        limits,
        {str(r.get("id")): str(r.get("text") or "") for r in rules},
        models=len({r.get("model") for r in found.values()}) > 1,
        suites=len({c.key[0] for c in choice.cases}) > 1,
        repeats=any(r.get("repeat") for r in found.values()),
    )
    return tuple(_case(c, [found[p] for p in c.places], frame) for c in choice.cases)


def weight(cases: Iterable[CaseView]) -> int:
    """How many characters the long texts of these cases have: less than the bytes they take."""
    total = 0
    for case in cases:
        texts = [case.prompt, *(said for _, said in case.turns)]
        for answer in case.answers:
            texts += [answer.text, answer.thought, answer.facts, *(s.text for s in answer.steps)]
        total += sum(len(text.shown) for text in texts)
    return total


def cut(value: Any, limit: int) -> Text:
    """A text cut to `limit` characters; a text only a little longer stays whole."""
    value = value if isinstance(value, str) else "" if value is None else str(value)
    if len(value) <= limit * 1.1:
        return Text(value)
    return Text(value[:limit], len(value) - limit)


def _case(chosen: Chosen, rows: list[Mapping[str, Any]], frame: Frame) -> CaseView:
    first = rows[0]
    messages = first.get("messages") or ()
    turns = tuple((_role(m), cut(_content(m), frame.limits.text)) for m in messages[-8:])
    prompt = first.get("prompt")
    if not isinstance(prompt, str):
        prompt = next((_content(m) for m in reversed(messages) if _role(m) == "user"), "")
    return CaseView(
        f.one_line(chosen.key[1], 80),
        f.one_line(chosen.key[0], 60) if frame.suites else "",
        f.one_line(first.get("label"), 40),
        chosen.why,
        f.one_line(prompt, 110),
        cut(prompt, frame.limits.text),
        turns if len(messages) > 1 else (),
        tuple(_answer(r, frame) for r in rows),
        chosen.of,
    )


def _answer(row: Mapping[str, Any], frame: Frame) -> AnswerView:
    outcome = f.one_line(row.get("outcome") or "unscored", 30)
    all_steps = [s for s in row.get("steps") or () if isinstance(s, Mapping)]
    deciders, reasons = row.get("deciders") or {}, row.get("mark_reasons") or {}
    label = f.method_label(row)
    if frame.repeats:
        label += f", repeat {f.count(row.get('repeat', 0))}"
    return AnswerView(
        label,
        f.one_line(row.get("model"), 60) if frame.models else "",
        outcome,
        f.score(row.get("score")) if outcome == "scored" else "",
        _reason(row),
        tuple(w for k, w in (("cut", "cut off"), ("refused", "refused"), ("empty", "empty"))
              if row.get(k)),
        cut(row.get("text"), frame.limits.text),
        cut(row.get("thought"), frame.limits.text),
        tuple(
            StepView(
                f.one_line(s.get("name"), 60),
                f.one_line(s.get("note"), 200),
                "cut off" if s.get("finish_reason") == "length" else "",
                cut(s.get("text"), frame.limits.text),
            )
            for s in all_steps[: frame.limits.steps]
        ),
        max(len(all_steps) - frame.limits.steps, 0),
        tuple(
            MarkView(
                f.one_line(rule, 60),
                f.one_line(frame.rules.get(rule, ""), 160),
                f.one_line(mark, 10),
                f.one_line(deciders.get(rule), 60),
                f.one_line(reasons.get(rule), 300),
            )
            for rule, mark in list((row.get("marks") or {}).items())[: frame.limits.marks]
        ),
        cut(_compact(row.get("facts")), min(frame.limits.text, 1500)),
        _cost(row),
    )  # fmt: skip


def _reason(row: Mapping[str, Any]) -> str:
    error = row.get("error") or {}
    parts = [row.get("reason"), error.get("kind"), error.get("message")]
    said = dict.fromkeys(f.one_line(p, 300) for p in parts if p)
    return ": ".join(said)


def _cost(row: Mapping[str, Any]) -> str:
    usage = [u for u in (row.get("usage") or {}).values() if isinstance(u, Mapping)]
    if not usage:
        return ""
    total = {k: sum(f.number(u, k) or 0.0 for u in usage) for k in ("calls", "completion_tokens")}
    spent = f.seconds(row.get("seconds"))
    calls = "1 call" if total["calls"] == 1 else f"{f.count(total['calls'])} calls"
    return f"{calls}, {f.count(total['completion_tokens'])} tokens out" + (
        f", {spent} s" if spent != f.DASH else ""
    )


def _compact(facts: Any) -> str:
    return json.dumps(facts, ensure_ascii=False, sort_keys=True, default=str) if facts else ""


def _role(message: Any) -> str:
    return f.one_line(message.get("role") if isinstance(message, Mapping) else "?", 20)


def _content(message: Any) -> str:
    """The text of an OpenAI message; parts that are no text are named."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, list | tuple):
        parts = (p if isinstance(p, Mapping) else {"text": p} for p in content)
        return "\n".join(str(p.get("text") or f"[{p.get('type', 'part')}]") for p in parts)
    return "" if content is None else str(content)
