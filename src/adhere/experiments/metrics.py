"""Rates with intervals. Pure Python, seeded, independent of the order of rows.

Intervals are percentile bootstraps over *cases* (repeats of one case stay together), 95%. Where
all cases have the same value the bootstrap has no width and would promise too much; there we
use the exact bound of a point mass instead (`constant_interval`).
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean with its interval. All None when nothing was scored."""

    value: float | None
    low: float | None
    high: float | None


NOTHING = Estimate(None, None, None)

Values = Mapping[str, Sequence[float]]  # case id -> one value a repeat


def means(
    columns: Sequence[Values],
    *,
    seed: int = 0,
    bounds: Sequence[tuple[float, float]] | None = None,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """Mean and interval of several measures of the same cases, resampled together.

    `columns` map case id to its values (repeats); all have the same cases. `bounds` are each
    measure's smallest and largest possible value (default 0 to 1). Without resamples there is no
    interval.
    """
    bounds = bounds or [(0.0, 1.0)] * len(columns)
    cases = sorted(columns[0]) if columns else []
    if not cases:
        return [NOTHING] * len(columns)
    per_case = [[_mean(column[case]) for case in cases] for column in columns]
    count = len(cases)
    # The generator depends on what is resampled, so the order of rows changes no number.
    mark = hashlib.sha256("\n".join([str(seed), *cases]).encode("utf-8", "surrogatepass"))
    picks = _picks(mark.digest(), count, resamples)
    draws = [[sum(map(values.__getitem__, picked)) / count for picked in picks]
             for values in per_case]  # fmt: skip
    estimates = []
    low: float | None
    high: float | None
    for values, out, (lowest, highest) in zip(per_case, draws, bounds, strict=True):
        if not resamples:
            low, high = None, None
        elif max(values) - min(values) < 1e-12:
            low, high = constant_interval(values[0], count, lowest, highest)
        else:
            out.sort()
            low, high = _quantile(out, (1 - LEVEL) / 2), _quantile(out, (1 + LEVEL) / 2)
        estimates.append(Estimate(_mean(values), low, high))
    return estimates


@lru_cache(maxsize=4)
def _picks(mark: bytes, count: int, resamples: int) -> tuple[array[int], ...]:
    """The indices of each resample. All methods of a suite have the same cases: drawn once."""
    rng = random.Random(mark)  # noqa: S311 - statistics, not secrets
    return tuple(array("I", rng.choices(range(count), k=count)) for _ in range(resamples))


def paired_difference(ours: Values, baseline: Values, *, seed: int = 0) -> tuple[Estimate, int]:
    """Mean difference over the cases that both have scored, and how many those are."""
    shared = sorted(ours.keys() & baseline.keys())
    if not shared:
        return NOTHING, 0
    column = {case: [_mean(ours[case]) - _mean(baseline[case])] for case in shared}
    return means([column], seed=seed, bounds=[(-1.0, 1.0)])[0], len(shared)


def constant_interval(value: float, n: int, lowest: float, highest: float) -> tuple[float, float]:
    """The interval when all n independent values are equal.

    Seeing one value n times bounds its probability p from below by `(1 - LEVEL)/2 ** (1/n)`
    (Clopper and Pearson 1934, for n of n); the rest of the mass may lie anywhere in the bounds.
    """
    p: float = ((1 - LEVEL) / 2) ** (1 / n)
    return p * value + (1 - p) * lowest, p * value + (1 - p) * highest


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics (type 7, as numpy's default)."""
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
