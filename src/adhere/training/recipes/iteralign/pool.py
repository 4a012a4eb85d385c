"""The pool of red-team prompts: the user's files, suites of attacks, or both.

`wrap: utterances` puts each single question into a made-up talk in which somebody answers in full
(a chain of utterances; Bhardwaj and Poria, arXiv 2308.09662, in our own words). `left_out` are
prompts that hold more than text, or stood there before; a suite's harmless half is left out too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from adhere.chat import Case, digest, user
from adhere.errors import BadInput
from adhere.experiments.plan import SuitePlan
from adhere.prompting import Prompts
from adhere.suites import Suite, load_prompts, suite_parts

Wrap = Literal["none", "utterances"]
SAFE = "safe"


@dataclass(frozen=True)
class Pool:
    """Prompts in their order, with ids that are unique; `harmful`: its texts may ask for harm."""

    cases: tuple[Case, ...]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    harmful: bool = False
    by_id: dict[str, Case] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over what is asked, in order."""
        return cases_digest(self.cases)


def cases_digest(cases: Iterable[Case]) -> str:
    """SHA-256 over ids and messages, in order."""
    return digest([[c.id, [m.to_dict() for m in c.messages], c.judged_prompt] for c in cases])


def read_pool(
    prompts: Sequence[Path], suites: Sequence[SuitePlan], wrap: Wrap, templates: Prompts
) -> Pool:
    """Read files and suites, in this order. Raises BadInput, also for a pool without prompts."""
    parts = [load_prompts(path) for path in prompts]
    for item in suites:
        parts += suite_parts(item.suite, item.options)
    if choice := next((part for part in parts if part.is_choice), None):
        raise BadInput(
            f"suite {choice.name}: has answers to choose among; expected prompts to red-team with"
        )
    cases: list[Case] = []
    seen: set[str] = set()
    again = more = harmless = 0
    several = len(parts) > 1
    names = _names(parts)
    for name, part in zip(names, parts, strict=True):
        for case in part.cases:
            if part.harmful and case.label == SAFE:
                harmless += 1
                continue
            if any(not isinstance(m.content, str) or m.tool_calls for m in case.messages):
                more += 1
                continue
            mark = digest([m.to_dict() for m in case.messages])
            if mark in seen:
                again += 1
                continue
            seen.add(mark)
            named = replace(case, id=f"{name}:{case.id}") if several else case
            cases.append(wrapped(named, wrap, templates))
    if not cases:
        raise BadInput(
            "the pool of red-team prompts: found none; expected at least one",
            hint="Give --prompts FILE.jsonl or --suite harmfulqa:path=FILE (docs/iteralign.md).",
        )
    counts = {
        "prompts left out that stand there a second time": again,
        "prompts left out that hold more than text": more,
        "prompts left out that are labeled safe": harmless,
    }
    notes = [note for part in parts for note in part.notes]
    notes += [f"{count} {what}" for what, count in counts.items() if count]
    return Pool(
        tuple(cases),
        tuple(part.source or part.name for part in parts),
        tuple(notes),
        any(part.harmful for part in parts),
        {case.id: case for case in cases},
    )


def _names(parts: Sequence[Suite]) -> list[str]:
    """What the parts are called before their cases' ids: files of one name are told apart."""
    out: list[str] = []
    for part in parts:
        again = sum(other == part.name or other.startswith(f"{part.name}~") for other in out)
        out.append(f"{part.name}~{again + 1}" if again else part.name)
    return out


def wrapped(case: Case, wrap: Wrap, templates: Prompts) -> Case:
    """The case in the wrapper; a conversation stays as it is. It is judged by its question."""
    if wrap == "none" or len(case.messages) > 1:
        return case
    text = templates.render("iteralign/utterances", question=case.prompt)
    return replace(case, messages=(user(text),), judged_prompt=case.judged_prompt or case.prompt)


def batches(cases: Sequence[Case], size: int) -> list[tuple[Case, ...]]:
    """The pool in pieces of `size` in its order, the last one shorter (published: 20)."""
    return [tuple(cases[at : at + size]) for at in range(0, len(cases), size)]


def as_suite(name: str, cases: Sequence[Case], *, harmful: bool) -> Suite:
    """Cases as a suite, for those parts that take one."""
    return Suite(name, tuple(cases), harmful=harmful)
