"""The frame of a plot and its scales: from data to places on the page, with ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adhere.reporting.placement import Box

WIDTH, HEIGHT = 560, 430
FRAME = Box(58, 26, WIDTH - 22, HEIGHT - 52)


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


class Axis:
    """A scale from data to the page, with its ticks."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool) -> None:
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def at(self, value: float) -> float:
        """The place of a value, rounded so that equal input gives equal bytes."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self.start + part * (self.end - self.start), 1)


def rate_axis(values: Sequence[float], start: float, end: float) -> tuple[Axis, tuple[Tick, ...]]:
    """An axis of scores: shows all values and no less than 0.2, ends on whole steps."""
    low, high = min(values), max(values)
    middle = (low + high) / 2
    low, high = min(low, middle - 0.1) - 0.02, max(high, middle + 0.1) + 0.02
    if low < 0:
        low, high = 0.0, max(high, 0.2)
    if high > 1:
        low, high = min(low, 0.8), 1.0
    step = next((s for s in (5, 10, 20) if (high - low) * 100 / s <= 7), 20)
    first = max(math.floor(low * 100 / step + 1e-9), 0)
    last = min(math.ceil(high * 100 / step - 1e-9), 100 // step)
    axis = Axis(first * step / 100, last * step / 100, start, end, log=False)
    ticks = range(first, last + 1)
    return axis, tuple(Tick(axis.at(i * step / 100), f"{i * step / 100:g}") for i in ticks)


def amount_axis(values: Sequence[float], *, least: float) -> tuple[Axis, tuple[Tick, ...]]:
    """An axis of tokens or money: from zero, or logarithmic when they spread more than tenfold.

    `least` is the amount that is as good as none: smaller ones would draw the axis out for nothing.
    """
    low, high = min(values), max(values)
    if low >= least and high / low > 10:
        start = math.floor(math.log10(low))
        steps = [m * 10.0**e for e in range(start - 1, start + 20) for m in (1, 2, 5)]
        first = max(s for s in steps if s <= low * (1 + 1e-9))
        last = next(s for s in steps if s >= high * (1 - 1e-9))
        inner = [s for s in steps if first <= s <= last]
        if len(inner) > 7:
            inner = [s for s in inner if f"{s:e}".startswith("1")]  # powers of ten alone
            inner = inner[:: math.ceil(len(inner) / 7)]
        axis = Axis(first, last, FRAME.left, FRAME.right, log=True)
    else:
        step = nice(max(high, least * 10) / 4)
        last = step * max(math.ceil(high * 1.06 / step), 1)
        inner = [step * i for i in range(round(last / step) + 1)]
        axis = Axis(0.0, last, FRAME.left, FRAME.right, log=False)
    return axis, tuple(Tick(axis.at(v), whole(v)) for v in inner)


def token_axis(values: Sequence[float]) -> tuple[Axis, tuple[Tick, ...]]:
    """An axis of token counts."""
    return amount_axis(values, least=0.1)


def whole(value: float) -> str:
    """A round number without needless decimals: `0.00002`, `0.5`, `2`, `1,000`."""
    if abs(value - round(value)) < 1e-9 * max(abs(value), 1e-6):
        return f"{value:,.0f}"
    return f"{value:,.{max(1 - math.floor(math.log10(abs(value))), 1)}f}".rstrip("0")


def nice(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten: what a person would count in."""
    scale = 10.0 ** math.floor(math.log10(step))
    return next(m * scale for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * scale >= step * 0.999)
