"""The prompts that each round's model is measured on: set aside from the pool, or given.

What is held out should be unlike what is trained on, so prompts that are nearly the same, and
conversations that begin alike, stay on one side; where they are not apart, it is told.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.chat import Case
from adhere.errors import BadInput
from adhere.experiments.clusters import clusters_of
from adhere.training.recipes.iteralign.pool import Pool

_COMPARED = 4000  # prompts up to which all are compared; clustering tens of thousands takes minutes


@dataclass(frozen=True)
class _Prompt:
    """A prompt as clusters see it: conversations that begin alike belong together."""

    prompt: str
    group: str


def _clusters(cases: Sequence[Case]) -> tuple[int, ...]:
    seen = [
        _Prompt(case.prompt, next((m.text for m in case.messages if m.text), "")) for case in cases
    ]
    return clusters_of(seen, by_text=len(seen) <= _COMPARED).numbers


def set_aside(pool: Pool, count: int, seed: int) -> tuple[Pool, Pool]:
    """The pool less some prompts, and those: what models are measured on where nothing else is.

    At most a quarter of the pool, by clusters of like prompts (and of conversations that begin
    alike); where all are alike by prompts, and a note says so. Raises BadInput for a pool of fewer
    than four prompts.
    """
    count = min(count, len(pool.cases) // 4)
    if not count:
        raise BadInput(
            f"the pool of red-team prompts: found {len(pool.cases)}, of which some have to be set "
            "aside to measure models on; expected four or more",
            hint="Give --held-out FILE.jsonl, or leave the guard out (--no-guard).",
        )
    numbers, notes = _clusters(pool.cases), pool.notes
    sizes = Counter(numbers)
    mine: set[int] = set()
    order = random.Random(seed).sample(sorted(sizes), len(sizes))  # noqa: S311
    for cluster in order:
        if len(mine) + sizes[cluster] <= count:
            mine |= {at for at, number in enumerate(numbers) if number == cluster}
    if len(mine) < max(1, count // 2):
        places = range(len(pool.cases))
        mine = set(random.Random(seed).sample(places, count))  # noqa: S311
        notes += ("the held-out prompts are like those of the pool: too few are unlike the others",)
    apart = tuple(case for at, case in enumerate(pool.cases) if at in mine)
    rest = tuple(case for at, case in enumerate(pool.cases) if at not in mine)
    return (
        Pool(rest, pool.sources, notes, pool.harmful, {c.id: c for c in rest}),
        Pool(apart, pool.sources, (), pool.harmful, {c.id: c for c in apart}),
    )


def overlap(pool: Pool, held_out: Pool) -> int:
    """How many held-out prompts are nearly the same as one of the pool, or begin like it."""
    cases = (*pool.cases, *held_out.cases)
    numbers = _clusters(cases)
    there = set(numbers[: len(pool.cases)])
    return sum(number in there for number in numbers[len(pool.cases) :])


def unlike(cases: Sequence[Case], beside: Sequence[Case]) -> list[Case]:
    """Those cases that are nearly the same as none of `beside`, and as none before them."""
    asked = [case.judged_prompt or case.prompt for case in (*beside, *cases)]
    numbers = clusters_of([_Prompt(text, text) for text in asked]).numbers
    seen = set(numbers[: len(beside)])
    kept: list[Case] = []
    for case, number in zip(cases, numbers[len(beside) :], strict=True):
        if number not in seen:
            kept.append(case)
        seen.add(number)
    return kept


def look_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a look at the held-out prompts."""
    return {
        "bad_rate": summary["bad_rate"],
        "by_rule": summary["by_rule"],
        "unscored": summary["unscored"],
        "failed": summary["failed"],
        "answers": summary["answers"],
    }
