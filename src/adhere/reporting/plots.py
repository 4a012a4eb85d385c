"""The pictures: interval bars in the table, and two plots of a run as plain geometry for the page.

Nothing here writes markup: the template draws what these objects say, so that every text from
outside passes the same escaping as the rest of the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.axes import FRAME, WIDTH, Axis, Tick, nice, rate_axis, token_axis, whole
from adhere.reporting.placement import Box, Label, Mark, place, text_width

_LABELS = Box(FRAME.left + 2, 2, WIDTH - 2, FRAME.bottom - 2)  # labels may reach the margins
TEXT = 12.5
SHAPES = ("circle", "square", "diamond", "triangle")
_MOST_LABELS = 40  # beyond that no label could be read, and finding places takes long
_R_CONTROL, _R_LEAST, _R_MOST, _R_PLAIN = 5.0, 4.0, 17.0, 6.0


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
    unlabelled: int = 0


@dataclass(frozen=True)
class Bar:
    """An interval as a picture 100 units wide."""

    at: float
    low: float | None
    high: float | None


def interval_bar(row: Mapping[str, Any], key: str = "sar") -> Bar | None:
    """The bar of one rate, or None when there is no number."""
    value = f.number(row, key)
    if value is None:
        return None
    low, high = f.number(row, f"{key}_low"), f.number(row, f"{key}_high")
    if low is None or high is None:
        return Bar(_unit(value), None, None)
    return Bar(_unit(value), _unit(low), _unit(high))


def _unit(value: float) -> float:
    return round(min(max(value, 0.0), 1.0) * 100, 1)


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
        return _R_PLAIN
    return round(max(largest * math.sqrt(max(tokens, 0.0) / most), _R_LEAST), 1)


def _shapes(rows: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
    models = dict.fromkeys(r.get("model") for r in rows if not r.get("control"))
    return {model: SHAPES[i % len(SHAPES)] for i, model in enumerate(models)}


def _hint(row: Mapping[str, Any]) -> str:
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
    return f"{who}: {', '.join(parts)}"


def _whisker(axis: Axis, row: Mapping[str, Any], key: str, cross: float) -> Any:
    low, high = f.number(row, f"{key}_low"), f.number(row, f"{key}_high")
    if low is None or high is None or low == high:
        return None
    return axis.at(low), axis.at(high), cross


def _ends(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    keys = (key, f"{key}_low", f"{key}_high")
    return [v for r in rows for k in keys if (v := f.number(r, k)) is not None]


# ---------------------------------------------------------------- the two plots


def adherence_plot(rows: Sequence[Mapping[str, Any]], ident: str = "adherence") -> Plot | None:
    """Safety against behavioral, with both intervals; None when no method has both numbers."""
    rows = [
        r
        for r in rows
        if f.number(r, "safety") is not None and f.number(r, "behavioral") is not None
    ]
    if all(r.get("control") for r in rows):
        return None
    x_axis, x_ticks = rate_axis(_ends(rows, "behavioral"), FRAME.left, FRAME.right)
    y_axis, y_ticks = rate_axis(_ends(rows, "safety"), FRAME.bottom, FRAME.top)
    tokens = [f.number(r, "completion_tokens") for r in rows if not r.get("control")]
    most = max((t for t in tokens if t is not None), default=0.0)
    largest = _R_MOST if len(rows) <= 16 else _R_MOST * 0.7
    drawn = []
    for row in rows:
        x, y = x_axis.at(row["behavioral"]), y_axis.at(row["safety"])
        tok = f.number(row, "completion_tokens")
        r = _R_CONTROL if row.get("control") else _radius(tok, most, largest)
        across, upright = (
            _whisker(x_axis, row, "behavioral", y), _whisker(y_axis, row, "safety", x),
        )  # fmt: skip
        drawn.append((row, x, y, r, across, upright))
    drawn.sort(key=lambda d: -d[3])  # large marks first, so that none hides a smaller one
    points = _points(drawn, _shapes(rows))
    return Plot(
        ident,
        "Safety against behavioral score",
        "up and right is better",
        "Each mark is a method; up and to the right is better. Lines are intervals. "
        + "; ".join(_hint(r) for r in rows[:40])
        + ".",
        "Behavioral score",
        "Safety",
        x_ticks,
        y_ticks,
        points,
        keys=_keys(rows),
        size_keys=_size_keys(most, largest),
        unlabelled=sum(p.label is None for p in points),
    )


def cost_plot(rows: Sequence[Mapping[str, Any]], ident: str = "cost") -> Plot | None:
    """SAR against mean completion tokens; controls, which cost nothing, are levels across."""
    shown = [r for r in rows if f.number(r, "sar") is not None]
    paid = [
        r for r in shown if not r.get("control") and f.number(r, "completion_tokens") is not None
    ]
    if not paid:
        return None
    controls = [r for r in shown if r.get("control")]
    levels = [r["sar"] for r in controls]
    x_axis, x_ticks = token_axis([r["completion_tokens"] for r in paid])
    y_axis, y_ticks = rate_axis(_ends(paid, "sar") + levels, FRAME.bottom, FRAME.top)
    drawn = []
    for row in paid:
        x, y = x_axis.at(row["completion_tokens"]), y_axis.at(row["sar"])
        drawn.append((row, x, y, _R_PLAIN, None, _whisker(y_axis, row, "sar", x)))
    lines = tuple(_freer_side(line, drawn) for line in _levels(controls, y_axis))
    points = _points(drawn, _shapes(paid), [line.box for line in lines if line.text] * 3)
    return Plot(
        ident,
        "SAR against completion tokens per answer",
        "up and left is better",
        "Each mark is a method; up and to the left is better. "
        + "; ".join(_hint(r) for r in [*paid, *controls][:40])
        + ".",
        "Completion tokens per answer" + (", logarithmic" if x_axis.log else ""),
        "SAR",
        x_ticks,
        y_ticks,
        points,
        lines,
        keys=tuple(k for k in _keys(paid) if not k.hollow),
        unlabelled=sum(p.label is None for p in points),
    )


def _freer_side(line: Line, drawn: Sequence[tuple[Any, float, float, float, Any, Any]]) -> Line:
    """The line with its name at the left when marks and whiskers leave more room there."""
    taken = [Box(x - r, y - r, x + r, y + r) for _, x, y, r, _, _ in drawn]
    taken += [Box(w[2] - 3, w[1], w[2] + 3, w[0]) for *_, w in drawn if w]
    left = replace(line, at_left=True)
    covered = [sum(side.box.overlap(box) for box in taken) for side in (line, left)]
    return left if covered[1] < covered[0] else line


def _points(
    drawn: Sequence[tuple[Mapping[str, Any], float, float, float, Any, Any]],
    shapes: Mapping[Any, str],
    obstacles: Sequence[Box] = (),
) -> tuple[Point, ...]:
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
        out.append(Point(path, hollow, _hint(row), name, label, across, upright))
    return tuple(out)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names: with the variant only where a model has the method more than once."""
    pairs = [(r.get("model"), r.get("method")) for r in rows]
    return [
        f.one_line(f.method_label(r if pairs.count(p) > 1 else {**r, "variant": ""}), 30)
        for r, p in zip(rows, pairs, strict=True)
    ]


def _levels(controls: Sequence[Mapping[str, Any]], axis: Axis) -> tuple[Line, ...]:
    """One line a control; lines too close for two labels share one."""
    lines: list[Line] = []
    for row in sorted(controls, key=lambda r: -float(r["sar"])):
        y, text = axis.at(row["sar"]), f"{f.method_label(row)} {f.score(row['sar'])}"
        if lines and y - lines[-1].text_y - 4 < 15:
            last = lines[-1]
            lines[-1] = Line(last.y, f"{last.text}, {text}", last.text_y)
            if y != last.y:
                lines.append(Line(y, "", y - 4))
        else:
            lines.append(Line(y, text, y - 4))
    return tuple(lines)


def _keys(rows: Sequence[Mapping[str, Any]]) -> tuple[Key, ...]:
    """The legend: shapes when there are several models, and what a hollow mark is."""
    shapes = _shapes(rows)
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
