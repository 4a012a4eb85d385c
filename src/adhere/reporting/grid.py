"""A table as plain data: columns, cells, and small pictures inside cells. The page draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.reporting import formats as f


@dataclass(frozen=True)
class Column:
    """A column: its key, its heading and whether its cells are numbers."""

    key: str
    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Bar:
    """An interval as a picture 100 units wide; `worst` and `best` reach beyond it."""

    at: float
    low: float | None
    high: float | None
    worst: float | None = None
    best: float | None = None
    was: float | None = None  # another value of the same thing: before, or raw


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar 100 units wide."""

    kind: str
    start: float
    width: float


@dataclass(frozen=True)
class Cell:
    """A cell: its value, the interval around it, what must not be overlooked, and a picture."""

    text: str
    interval: str = ""
    notes: tuple[str, ...] = ()
    bar: Bar | None = None
    stack: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table of the page. The first cell of a row is its heading; `left_out` rows did not fit."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0


def interval_bar(row: Mapping[str, Any], key: str = "sar") -> Bar | None:
    """The bar of one rate with the bounds over unscored rows, or None when there is no number."""
    value = f.number(row, key)
    if value is None:
        return None
    low, high = _pair(row, f"{key}_low", f"{key}_high")
    worst, best = _pair(row, f"{key}_worst", f"{key}_best")
    return Bar(_unit(value), low, high, worst, best)


def estimate_bar(found: Mapping[str, Any], was: Any = None) -> Bar | None:
    """The bar of a `{value, low, high}`, with a tick where it was before."""
    value = f.number(found, "value")
    if value is None:
        return None
    return Bar(
        _unit(value), *_pair(found, "low", "high"), was=_unit(was) if f.is_number(was) else None
    )


def estimate(found: Any) -> Cell:
    """A cell of a `{value, low, high}`; a dash when there is none."""
    if not isinstance(found, Mapping):
        return Cell(f.DASH)
    return Cell(f.score(found.get("value")), f.interval(found.get("low"), found.get("high")))


def varying(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Which of model and suite differ between rows, so that each row has to name its own."""
    return tuple(key for key in ("model", "suite") if len({str(r.get(key)) for r in rows}) > 1)


def who(row: Mapping[str, Any], named: Sequence[str]) -> Cell:
    """The method of a row; below it its variant, and its model and suite where these vary."""
    notes = [f.one_line(row.get(key), 60) for key in ("variant", *named)]
    return Cell(f.one_line(row.get("method") or "?", 60), notes=tuple(n for n in notes if n))


def _pair(row: Mapping[str, Any], low: str, high: str) -> tuple[float | None, float | None]:
    ends = f.number(row, low), f.number(row, high)
    if ends[0] is None or ends[1] is None:
        return None, None
    return _unit(ends[0]), _unit(ends[1])


def _unit(value: float) -> float:
    return round(min(max(value, 0.0), 1.0) * 100, 1)
