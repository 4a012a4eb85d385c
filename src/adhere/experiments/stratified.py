"""A mean over the parts of a benchmark, with an interval that keeps each part's share.

Every case weighs the same, so over parts of equal size this is the mean of the parts' means. The
interval is a percentile bootstrap, 95%, in which each part is resampled by itself: how many cases
a part has is a decision of the benchmark and not chance.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from adhere.experiments.metrics import (
    LEVEL,
    NOTHING,
    RESAMPLES,
    Estimate,
    Values,
    constant_interval,
)


@dataclass(frozen=True)
class Stratum:
    """One measure in one part: what is needed to pool it with the other parts."""

    total: float
    count: int
    least: float
    most: float
    totals: array[float]  # of each resample
    counts: array[int]  # how many cases of the resample have a value


def stratum(
    part: str,
    column: Values,
    cases: Iterable[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Stratum:
    """One measure's values by case (repeats are averaged first), resampled.

    `cases` are all of the part, with a value or not: everything in it is resampled together, and a
    case without a value counts for nothing. The picks depend on the seed, the part's name and the
    cases alone, so the order of rows and of methods changes no number.
    """
    cases = sorted(cases)
    values = {case: sum(found) / len(found) for case, found in column.items() if found}
    if not values:
        return Stratum(0.0, 0, 0.0, 0.0, array("d"), array("l"))
    mark = hashlib.sha256("\n".join([str(seed), part, *cases]).encode("utf-8", "surrogatepass"))
    listed = [values.get(case, 0.0) for case in cases]
    picks = _picks(mark.digest(), len(cases), resamples)
    totals = array("d", (sum(pick(listed)) for pick in picks))
    counts = _counts(mark.digest(), tuple(case in values for case in cases), resamples)
    every = values.values()
    return Stratum(sum(every), len(values), min(every), max(every), totals, counts)


def pooled(strata: Sequence[Stratum], bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Mean over all cases of all parts with its interval; parts without cases count for nothing.

    `bounds`: the smallest and largest possible value. Where all cases of all parts have one value
    the bootstrap has no width; there the interval is the exact bound of a point mass.
    """
    strata = [found for found in strata if found.count]
    if not strata:
        return NOTHING
    count = sum(found.count for found in strata)
    value = sum(found.total for found in strata) / count
    least, most = min(s.least for s in strata), max(s.most for s in strata)
    if most - least < 1e-12:
        return Estimate(value, *constant_interval(value, count, *bounds))
    totals = [sum(each) for each in zip(*(s.totals for s in strata), strict=True)]
    counts = [sum(each) for each in zip(*(s.counts for s in strata), strict=True)]
    means = sorted(total / n for total, n in zip(totals, counts, strict=True) if n)
    return Estimate(value, _quantile(means, (1 - LEVEL) / 2), _quantile(means, (1 + LEVEL) / 2))


@lru_cache(maxsize=4)
def _picks(mark: bytes, count: int, resamples: int) -> tuple[Callable[[Any], Any], ...]:
    """What takes each resample out of a list. All methods of a part have the same cases."""
    rng = random.Random(mark)  # noqa: S311 - statistics, not secrets
    everything = range(count)
    if count == 1:
        return (list,) * resamples
    return tuple(itemgetter(*rng.choices(everything, k=count)) for _ in range(resamples))


@lru_cache(maxsize=64)
def _counts(mark: bytes, there: tuple[bool, ...], resamples: int) -> array[int]:
    """How many cases of each resample are there; all measures of a method have the same."""
    if all(there):
        return array("l", [len(there)]) * resamples
    return array("l", (sum(pick(there)) for pick in _picks(mark, len(there), resamples)))


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics (type 7), as in `metrics.py`."""
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
