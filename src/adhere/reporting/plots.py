"""The plots of a run as plain geometry for the page: safety against behavioral, and what all share.

Nothing here writes markup: the template draws what these objects say, so that every text from
outside passes the same escaping as the rest of the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.axes import FRAME, WIDTH, Axis, Tick, nice, rate_axis, whole
from adhere.reporting.placement import Box, Label, Mark, place, text_width

_LABELS = Box(FRAME.left + 2, 2, WIDTH - 2, FRAME.bottom - 2)  # labels may reach the margins
TEXT = 12.5
SHAPES = ("circle", "square", "diamond", "triangle")
_MOST_LABELS = 40  # beyond that no label could be read, and finding places takes long
_R_CONTROL, _R_LEAST, _R_MOST, R_PLAIN = 5.0, 4.0, 17.0, 6.0


@dataclass(frozen=True)
class Point:
    """One method of one model. `hint` is what a pointer or a screen reader gets."""

    path: str
    hollow: bool
    hint: str
    name: str
    label: Label | None
    across: tuple[float, float, float] | None = None
    upright: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Line:
    """A level across the whole plot, with its name."""

    y: float
    text: str
    text_y: float
    at_left: bool = False

    @property
    def box(self) -> Box:
        """Where its name stands."""
        width = text_width(self.text, 11) + 4
        left = FRAME.left if self.at_left else FRAME.right - width
        return Box(left, self.text_y - 10, left + width, self.text_y + 3)


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a mark and its meaning."""

    path: str
    text: str
    r: float
    hollow: bool = False


@dataclass(frozen=True)
class Plot:
    """A whole plot, ready to draw."""

    id: str
    title: str
    better: str
    desc: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    lines: tuple[Line, ...] = ()
    keys: tuple[Key, ...] = ()
    size_keys: tuple[Key, ...] = ()
    frontier: str = ""  # the path of the line that joins what nothing dominates
    frontier_key: str = ""
    unlabelled: int = 0


# ---------------------------------------------------------------- marks


def shape(name: str, x: float, y: float, r: float) -> str:
    """The path of a mark; all shapes of one `r` cover about the same area."""

    def line(*corners: tuple[float, float]) -> str:
        return "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "Z"

    if name == "square":
        s = r * 0.886
        return line((-s, -s), (s, -s), (s, s), (-s, s))
    if name == "diamond":
        s = r * 1.253
        return line((0, -s), (s, 0), (0, s), (-s, 0))
    if name == "triangle":
        s = r * 1.347
        return line((0, -s * 1.1), (s, s * 0.7), (-s, s * 0.7))
    half = f"a{r:.1f} {r:.1f} 0 1 0"
    return f"M{x - r:.1f} {y:.1f}{half} {2 * r:.1f} 0{half} {-2 * r:.1f} 0Z"


def _radius(tokens: float | None, most: float, largest: float) -> float:
    """Area stands for tokens; a mark stays large enough to be seen."""
    if tokens is None or most <= 0:
        return R_PLAIN
    return round(max(largest * math.sqrt(max(tokens, 0.0) / most), _R_LEAST), 1)


def shapes_of(rows: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
    """The mark of each model."""
    models = dict.fromkeys(r.get("model") for r in rows if not r.get("control"))
    return {model: SHAPES[i % len(SHAPES)] for i, model in enumerate(models)}


def hint_of(row: Mapping[str, Any], currency: Any = None) -> str:
    """A row in words, for a pointer or a screen reader."""
    who = f.method_label(row) + (f", {f.one_line(row['model'], 60)}" if row.get("model") else "")
    parts = [
        f"{name} {f.score(row.get(key))}"
        + (
            f" {span}"
            if (span := f.interval(row.get(f"{key}_low"), row.get(f"{key}_high")))
            else ""
        )
        for name, key in (("safety", "safety"), ("behavioral", "behavioral"), ("SAR", "sar"))
    ]
    if f.number(row, "completion_tokens") is not None:
        parts.append(f"{f.mean_count(row.get('completion_tokens'))} completion tokens")
    if f.number(row, "cost") is not None:
        parts.append(f"{f.money(row.get('cost'), currency)} per answer")
    return f"{who}: {', '.join(parts)}"


def whisker(axis: Axis, row: Mapping[str, Any], key: str, cross: float) -> Any:
    """Both ends of an interval on the page and where it stands across; None without one."""
    low, high = f.number(row, f"{key}_low"), f.number(row, f"{key}_high")
    if low is None or high is None or low == high:
        return None
    return axis.at(low), axis.at(high), cross


def ends(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """All values of a rate and of its interval: what an axis has to hold."""
    keys = (key, f"{key}_low", f"{key}_high")
    return [v for r in rows for k in keys if (v := f.number(r, k)) is not None]


# ---------------------------------------------------------------- safety against behavioral


def adherence_plot(rows: Sequence[Mapping[str, Any]], ident: str = "adherence") -> Plot | None:
    """Safety against behavioral, with both intervals; None when no method has both numbers."""
    rows = [
        r
        for r in rows
        if f.number(r, "safety") is not None and f.number(r, "behavioral") is not None
    ]
    if all(r.get("control") for r in rows):
        return None
    x_axis, x_ticks = rate_axis(ends(rows, "behavioral"), FRAME.left, FRAME.right)
    y_axis, y_ticks = rate_axis(ends(rows, "safety"), FRAME.bottom, FRAME.top)
    tokens = [f.number(r, "completion_tokens") for r in rows if not r.get("control")]
    most = max((t for t in tokens if t is not None), default=0.0)
    largest = _R_MOST if len(rows) <= 16 else _R_MOST * 0.7
    drawn = []
    for row in rows:
        x, y = x_axis.at(row["behavioral"]), y_axis.at(row["safety"])
        tok = f.number(row, "completion_tokens")
        r = _R_CONTROL if row.get("control") else _radius(tok, most, largest)
        across, upright = (
            whisker(x_axis, row, "behavioral", y), whisker(y_axis, row, "safety", x),
        )  # fmt: skip
        drawn.append((row, x, y, r, across, upright))
    drawn.sort(key=lambda d: -d[3])  # large marks first, so that none hides a smaller one
    points = points_of(drawn, shapes_of(rows))
    return Plot(
        ident,
        "Safety against behavioral score",
        "up and right is better",
        "Each mark is a method; up and to the right is better. Lines are intervals. "
        + "; ".join(hint_of(r) for r in rows[:40])
        + ".",
        "Behavioral score",
        "Safety",
        x_ticks,
        y_ticks,
        points,
        keys=keys_of(rows),
        size_keys=_size_keys(most, largest),
        unlabelled=sum(p.label is None for p in points),
    )


def points_of(
    drawn: Sequence[tuple[Mapping[str, Any], float, float, float, Any, Any]],
    shapes: Mapping[Any, str],
    obstacles: Sequence[Box] = (),
) -> tuple[Point, ...]:
    """The drawn rows as points with their labels, off each other and off the obstacles."""
    rows = [d[0] for d in drawn]
    names = _names(rows)
    thin = [Box(w[0], w[2] - 2, w[1], w[2] + 2) for *_, w, _ in drawn if w]
    thin += [Box(w[2] - 2, w[1], w[2] + 2, w[0]) for *_, w in drawn if w]
    marks = [Mark(x, y, r, name) for (_, x, y, r, _, _), name in zip(drawn, names, strict=True)]
    labels: list[Label | None] = [None] * len(marks)
    if len(marks) <= _MOST_LABELS:
        labels = place(marks, _LABELS, [*thin, *obstacles], size=TEXT)
    out = []
    for (row, x, y, r, across, upright), name, label in zip(drawn, names, labels, strict=True):
        hollow = bool(row.get("control"))
        path = shape("circle" if hollow else shapes[row.get("model")], x, y, r)
        out.append(Point(path, hollow, hint_of(row), name, label, across, upright))
    return tuple(out)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names: with the variant only where a model has the method more than once."""
    pairs = [(r.get("model"), r.get("method")) for r in rows]
    return [
        f.one_line(f.method_label(r if pairs.count(p) > 1 else {**r, "variant": ""}), 30)
        for r, p in zip(rows, pairs, strict=True)
    ]


def keys_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Key, ...]:
    """The legend: shapes when there are several models, and what a hollow mark is."""
    shapes = shapes_of(rows)
    keys = [Key(shape(s, 7, 7, 5), f.one_line(m or "no model", 60), 5.0) for m, s in shapes.items()]
    keys = keys if len(shapes) > 1 else []
    if any(r.get("control") for r in rows):
        keys.append(Key(shape("circle", 7, 7, _R_CONTROL), "control", _R_CONTROL, hollow=True))
    return tuple(keys)


def _size_keys(most: float, largest: float) -> tuple[Key, ...]:
    if most <= 0:
        return ()
    steps = [nice(most * part) for part in (0.06, 0.3)] + [nice(most * 0.8)]
    steps = sorted({s for s in steps if s <= most * 1.3})
    out = []
    for step in steps:
        r = _radius(step, most, largest)
        out.append(Key(shape("circle", r + 1, r + 1, r), whole(step), r))
    return tuple(out)
