"""Intervals for a mean that hold at every number of values at once, so that one may look and stop.

An ordinary 95% interval holds at *one* number of values that was fixed before. Whoever looks after
each block and stops when it is narrow enough picks a lucky moment, and it holds less often. A
confidence sequence holds at all of them together, so also at the one where somebody stopped.

This one is the hedged capital confidence sequence of Waudby-Smith and Ramdas ("Estimating means of
bounded random variables by betting", JRSS B 86, 2024, theorem 3). For every mean m that could be
true, bet against it: with x in [0, 1] and bets b that look at earlier values only,

    K+(m) = product of 1 + b+(m) (x - m)     b+(m) = min(b, c / m)
    K-(m) = product of 1 - b-(m) (x - m)     b-(m) = min(b, c / (1 - m))

At the true mean both are nonnegative martingales that start at 1, so by Ville's inequality
(K+ + K-)/2 ever reaches 1/(1 - level) with probability at most 1 - level. The interval is what no
bet has ruled out. K+ falls in m and K- rises, so it is an interval and its ends are two roots.

Assumes: values within the bounds, independent, of one mean given those before (i.i.d. is enough):
here, cases in a random order that is fixed before the first (`shuffled`), each giving one value.
Nothing else: no normality, no least number of values.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Values
from dataclasses import dataclass

LEVEL = 0.95
FIRST = 32
_MOST_OF_CAPITAL = 0.5  # c: the part of the capital that one bet may lose
_CLOSE = 1e-6  # how near an end is found, in parts of the range; it always errs outward


class Sequence:
    """The confidence sequence of one mean: `add` values in their order, read `interval` any time.

    `low` and `high` bound every value. With `aim`, a half width, the bets are made so that the
    interval is narrowest when it gets there; with `most` they expect no more values than that.
    Both are choices about the bets that must be made before the first value: the interval holds
    for any, but not when one is picked by how it came out.

    The interval is the intersection of those at fixed numbers of values (the ends of `blocks`)
    and at the present one: it depends on the values alone, not on when it was read. Reading costs
    time in proportion to the values. Raises ValueError on bounds or values that cannot be.
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        level: float = LEVEL,
        *,
        aim: float | None = None,
        most: int | None = None,
    ) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"bounds {low} to {high}; expected finite ones, the lower first")
        if not 0 < level < 1:
            raise ValueError(f"level {level}; expected one between 0 and 1")
        if (aim is not None and not aim > 0) or (most is not None and most < 1):
            raise ValueError(f"aim {aim}, most {most}; expected numbers above 0")
        self.low, self.high, self.level = low, high, level
        self._aim = None if aim is None else aim / (high - low)
        self._most = most
        self._log_price = math.log(2 / (1 - level))  # both hands share the start: twice the price
        self._values: list[float] = []  # within 0 and 1
        self._bets: list[float] = []
        self._sum, self._squares = 0.5, 0.25  # as after one value of 1/2 whose variance is 1/4
        self._held = (0.0, 1.0)  # the intersection up to the last block
        self._next = FIRST

    @property
    def n(self) -> int:
        """How many values there are."""
        return len(self._values)

    @property
    def mean(self) -> float | None:
        """The mean of the values, None without any. It may lie outside of the interval."""
        if not self._values:
            return None
        return self.low + (self.high - self.low) * (self._sum - 0.5) / self.n

    def add(self, value: float) -> None:
        """Take in the next value. Raises ValueError when it is outside of the bounds."""
        if not self.low <= value <= self.high:  # also true of NaN
            raise ValueError(f"value {value} is outside of {self.low} to {self.high}")
        x = (value - self.low) / (self.high - self.low)
        self._bets.append(self._bet())
        self._values.append(x)
        self._sum += x
        self._squares += (x - self._sum / (self.n + 1)) ** 2
        if self.n == self._next:
            self._held = self._intersected()
            self._next = _following(self._next)

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends, the lower first.

        Never empty: where the intersection is (one of the misses that the level allows, or values
        that are not of one mean) it is the interval of the present values alone.
        """
        low, high = self._intersected()
        width = self.high - self.low
        return self.low + width * low, self.low + width * high

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        low, high = self.interval
        return (high - low) / 2

    def _bet(self) -> float:
        """The next bet: `sqrt(2 log(2/alpha) / (variance T))` is best at T values, if T is known.

        Without an aim T is t log(t + 1), the published bet, good at any t and best at none. The
        width at T is about `2 sqrt(2 log(2/alpha) variance / T)`; solved for T, that is the time
        at which the aim is reached.
        """
        n = len(self._values)
        variance = self._squares / (n + 1)
        price = 2 * self._log_price
        if self._aim is None:
            horizon = (n + 1) * math.log(n + 2)
        else:
            horizon = price * variance / self._aim**2
        if self._most is not None:
            horizon = min(horizon, self._most)
        return math.sqrt(price / (variance * horizon))

    def _intersected(self) -> tuple[float, float]:
        held_low, held_high = self._held
        low = self._end(self._values)
        high = 1 - self._end([1 - x for x in self._values])
        if max(low, held_low) <= min(high, held_high):
            return max(low, held_low), min(high, held_high)
        return min(low, high), max(low, high)

    def _end(self, values: list[float]) -> float:
        """The lower end: the largest m that K+ rules out, or 0. For the upper one mirror values."""
        if not values:
            return 0.0
        bets = self._bets

        def excess(m: float) -> float:
            cap = _MOST_OF_CAPITAL / m
            capital = [(b if b < cap else cap) * (x - m) for b, x in zip(bets, values, strict=True)]
            return sum(map(math.log1p, capital)) - self._log_price

        return _root(excess, _CLOSE, min(max(sum(values) / len(values), _CLOSE), 1 - _CLOSE))


def _root(falling: Callable[[float], float], left: float, right: float) -> float:
    """Where the function crosses 0, from the left side (false position, Illinois).

    0 when it is below 0 already at the left; the last point still above 0 in any other case.
    """
    above, below = falling(left), falling(right)
    if above < 0:
        return 0.0
    if below >= 0:
        return right
    side = 0
    for step in range(75):
        if right - left < _CLOSE:
            break
        middle = (left * below - right * above) / (below - above)
        if step % 3 == 2 or not left < middle < right:
            middle = (left + right) / 2  # now and then: so it ends for any function
        found = falling(middle)
        if found >= 0:
            left, above = middle, found
            below = below / 2 if side == 1 else below
            side = 1
        else:
            right, below = middle, found
            above = above / 2 if side == -1 else above
            side = -1
    return left


# ---------------------------------------------------------------- order, blocks, stopping


def shuffled(cases: Values[str], seed: int) -> list[str]:
    """The cases in a random order that depends on their names and the seed alone."""
    out = sorted(cases)
    random.Random(f"order {seed}").shuffle(out)  # noqa: S311 - statistics, not secrets
    return out


def blocks(n: int, first: int = FIRST) -> list[int]:
    """After how many of n cases to look: the first block, then half as many again, then n."""
    if n < 0 or first < 1:
        raise ValueError(f"{n} cases in blocks from {first}; expected numbers from 0 and from 1")
    ends = []
    end = first
    while end < n:
        ends.append(end)
        end = _following(end)
    return [*ends, n] if n else []


def _following(end: int) -> int:
    return end + max(end // 2, 1)


@dataclass(frozen=True)
class Stop:
    """What a look saw. `n`: the fewest values that any arm has."""

    reached: bool
    n: int
    half_widths: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def looked_at(
    values_by_arm: Mapping[str, Values[float]],
    half_width: float,
    level: float = LEVEL,
    *,
    most: int | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Stop:
    """Whether every arm's interval is narrow enough to stop.

    Each arm has its values so far, in the seeded order, from the first whole block to the last;
    `most` is how many cases there are at most. The level holds for each arm by itself, whenever
    and for whatever reason the run stops. For paired differences give the bounds -1 and 1.
    """
    intervals = {}
    for arm, values in values_by_arm.items():
        sequence = Sequence(low, high, level, aim=half_width, most=most)
        for value in values:
            sequence.add(value)
        intervals[arm] = sequence.interval
    halves = {arm: (ends[1] - ends[0]) / 2 for arm, ends in intervals.items()}
    return Stop(
        reached=bool(halves) and all(half <= half_width for half in halves.values()),
        n=min((len(values) for values in values_by_arm.values()), default=0),
        half_widths=halves,
        intervals=intervals,
    )
