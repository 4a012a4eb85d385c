"""Dot and whisker by scenario and method, as plain geometry for the page.

Scenarios are groups of lines, one line a method, so that every dot has its name beside it and no
color has to be told from another. The template draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.axes import Axis, Tick, rate_axis
from adhere.reporting.benchmark_texts import (
    ALL_PARTS,
    is_base,
    lines_of,
    part_names,
    percent,
    points,
    several_models,
    span,
)

WIDTH = 560
LEFT, RIGHT = 176.0, 488.0  # of the axis; names stand left of it, numbers right
_LINE, _GAP, _TOP, _BOTTOM = 19.0, 12.0, 10.0, 48.0
_MOST_LINES = 90  # beyond that only the scenarios together are drawn
_MOST_METHODS = 60


@dataclass(frozen=True)
class ForestLine:
    """One method in one scenario."""

    y: float
    name: str
    text: str
    hint: str
    at: float | None
    ends: tuple[float, float] | None
    hollow: bool


@dataclass(frozen=True)
class ForestGroup:
    """One scenario: its title, its lines, and where the baseline stands."""

    title: str
    y: float
    level: float | None
    top: float
    bottom: float
    lines: tuple[ForestLine, ...]


@dataclass(frozen=True)
class Forest:
    """A whole figure."""

    id: str
    title: str
    better: str
    desc: str
    x_title: str
    height: float
    ticks: tuple[Tick, ...]
    zero: float | None
    groups: tuple[ForestGroup, ...]


def forests(table: Mapping[str, Any]) -> list[Forest]:
    """SAR by scenario and method, and its difference to the baseline; what has numbers."""
    found = (
        _forest(table, "sar", "SAR by scenario", "right is better; hollow: the baseline"),
        _forest(
            table,
            "sar_diff",
            f"SAR against {f.one_line(table.get('baseline') or 'the baseline', 24)}",
            "paired by prompt; right of 0 is better",
        ),
    )
    return [forest for forest in found if forest]


def _forest(table: Mapping[str, Any], key: str, title: str, better: str) -> Forest | None:
    everywhere: list[str | None] = [None, *part_names(table)]
    drawn = {part: _rows(table, part, key) for part in everywhere}
    if sum(len(rows) for rows in drawn.values()) > _MOST_LINES:
        drawn = {None: drawn[None][:_MOST_METHODS]}
    values = [
        v
        for rows in drawn.values()
        for row in rows
        for name in (key, f"{key}_low", f"{key}_high")
        if (v := f.number(row, name)) is not None
    ]
    if not values:
        return None
    signed = key == "sar_diff"
    axis, ticks = _moves_axis(values) if signed else _percent_axis(values)
    named = _namer(table)
    groups = []
    y = _TOP
    for part, rows in drawn.items():
        if not rows:
            continue
        top = y
        y += _LINE
        lines = []
        for row in rows:
            lines.append(_line(row, key, axis, y, named, hollow=is_base(table, row)))
            y += _LINE
        base = None if signed else _base_value(rows, table)
        level = None if base is None or len(rows) < 2 else axis.at(base)
        name = ALL_PARTS if part is None else f.one_line(part, 50)
        groups.append(ForestGroup(name, top + 12, level, top + 18, y - 4, tuple(lines)))
        y += _GAP
    said = [f"{g.title}: " + ", ".join(line.hint for line in g.lines) for g in groups]
    return Forest(
        f"forest-{key.replace('_', '-')}",
        title,
        better,
        f"{title}, {better}. {'; '.join(said)}."[:8000],
        "SAR, percent" if not signed else "Difference of SAR, percent points",
        y - _GAP + _BOTTOM,
        ticks,
        axis.at(0.0) if signed else None,
        tuple(groups),
    )


def _rows(table: Mapping[str, Any], part: str | None, key: str) -> list[Mapping[str, Any]]:
    rows = [row for row in lines_of(table, part) if not row.get("control")]
    return [row for row in rows if f.number(row, key) is not None]


def _line(
    row: Mapping[str, Any],
    key: str,
    axis: Axis,
    y: float,
    named: Callable[[Mapping[str, Any]], str],
    *,
    hollow: bool,
) -> ForestLine:
    value, low, high = (f.number(row, f"{key}{end}") for end in ("", "_low", "_high"))
    text = points(value) if key == "sar_diff" else percent(value)
    ends = None if low is None or high is None else (axis.at(low), axis.at(high))
    return ForestLine(
        y + 9,
        named(row),
        text,
        f"{named(row)} {text} {span(row, key)}".rstrip(),
        None if value is None else axis.at(value),
        ends,
        hollow,
    )


def _base_value(rows: Sequence[Mapping[str, Any]], table: Mapping[str, Any]) -> float | None:
    """The baseline's value, where one model makes it one value."""
    found = [f.number(row, "sar") for row in rows if is_base(table, row)]
    return found[0] if len(found) == 1 else None


def _namer(table: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str]:
    methods = {r.get("method") for r in f.objects(table.get("rows")) if not r.get("control")}
    with_model = several_models(table)

    def name(row: Mapping[str, Any]) -> str:
        dagger = " †" if row.get("oracle") else ""
        method, model = (f.one_line(row.get(key), 60) for key in ("method", "model"))
        if with_model and len(methods) == 1:
            method = model
        elif with_model:
            method = f"{model} · {method}"
        return f.one_line(method, 26) + dagger

    return name


def _percent_axis(values: Sequence[float]) -> tuple[Axis, tuple[Tick, ...]]:
    axis, ticks = rate_axis(values, LEFT, RIGHT)
    return axis, tuple(Tick(t.at, f"{100 * float(t.text):.0f}") for t in ticks)


def _moves_axis(values: Sequence[float]) -> tuple[Axis, tuple[Tick, ...]]:
    """An axis of differences: holds zero, ends on whole steps, no narrower than 4 points."""
    low, high = min(*values, -0.02), max(*values, 0.02)
    step = next((s for s in (1, 2, 5, 10, 20) if (high - low) * 100 / s <= 7), 50)
    first, last = -int(-low * 100 // step) - 1, int(high * 100 // step) + 1
    axis = Axis(first * step / 100, last * step / 100, LEFT, RIGHT, log=False)
    ticks = (Tick(axis.at(i * step / 100), _signed(i * step)) for i in range(first, last + 1))
    return axis, tuple(ticks)


def _signed(value: int) -> str:
    return "0" if value == 0 else f"+{value}" if value > 0 else f"{f.MINUS}{-value}"
