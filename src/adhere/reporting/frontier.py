"""The frontier: SAR against what an answer costs, and which methods nothing else dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.axes import FRAME, Axis, amount_axis, rate_axis
from adhere.reporting.placement import Box
from adhere.reporting.plots import (
    R_PLAIN,
    Line,
    Plot,
    ends,
    hint_of,
    keys_of,
    points_of,
    shapes_of,
    whisker,
)

# Least amounts that count as more than nothing: a tenth of a token, a billionth of the currency.
_LEAST = {"completion_tokens": 0.1, "cost": 1e-9}


def cost_key(rows: Sequence[Mapping[str, Any]]) -> str:
    """What an answer's cost is counted in: money if known of every method, else tokens out."""
    paid = [r for r in rows if not r.get("control") and f.number(r, "sar") is not None]
    known = paid and all(f.number(r, "cost") is not None for r in paid)
    return "cost" if known else "completion_tokens"


def non_dominated(rows: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """The rows that no other beats: none costs at most as much and scores at least as high.

    By rising cost. Of two equal rows the first stays. Oracle selectors stand aside: they select
    by the checks that score them.
    """
    fair = [r for r in rows if not r.get("oracle") and not r.get("control")]
    best, out = -1.0, []
    for row in sorted(fair, key=lambda r: (r[key], -r["sar"])):
        if row["sar"] > best:
            out.append(row)
            best = row["sar"]
    return out


def frontier_plot(
    rows: Sequence[Mapping[str, Any]], ident: str = "frontier", currency: Any = None
) -> Plot | None:
    """SAR against cost per answer with the frontier; controls, which cost nothing, are levels."""
    key = cost_key(rows)
    shown = [r for r in rows if f.number(r, "sar") is not None]
    paid = [r for r in shown if not r.get("control") and f.number(r, key) is not None]
    if not paid:
        return None
    controls = [r for r in shown if r.get("control")]
    x_axis, x_ticks = amount_axis([r[key] for r in paid], least=_LEAST[key])
    levels = [r["sar"] for r in controls]
    y_axis, y_ticks = rate_axis(ends(paid, "sar") + levels, FRAME.bottom, FRAME.top)
    drawn = []
    for row in paid:
        x, y = x_axis.at(row[key]), y_axis.at(row["sar"])
        drawn.append((row, x, y, R_PLAIN, None, whisker(y_axis, row, "sar", x)))
    lines = tuple(_freer_side(line, drawn) for line in _levels(controls, y_axis))
    best = non_dominated(paid, key)
    corners = _steps([(x_axis.at(r[key]), y_axis.at(r["sar"])) for r in best])
    taken = [line.box for line in lines if line.text] * 3 + _thin(corners)
    points = points_of(drawn, shapes_of(paid), taken)
    unit = f" ({f.one_line(currency, 8)})" if key == "cost" and currency else ""
    what = f"Cost per answer{unit}" if key == "cost" else "Completion tokens per answer"
    names = ", ".join(f.one_line(f.method_label(r), 40) for r in best[:12])
    left_out = any(r.get("oracle") for r in paid)
    return Plot(
        ident,
        "SAR against " + ("cost" if key == "cost" else "completion tokens") + " per answer",
        "up and left is better",
        "Each mark is a method; up and to the left is better. "
        + (f"On the frontier, where no other is both cheaper and better: {names}. " if best else "")
        + "; ".join(hint_of(r, currency) for r in [*paid, *controls][:40])
        + ".",
        what + (", logarithmic" if x_axis.log else ""),
        "SAR",
        x_ticks,
        y_ticks,
        points,
        lines,
        keys=tuple(k for k in keys_of(paid) if not k.hollow),
        frontier="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) if corners else "",
        frontier_key="frontier: none is both cheaper and better"
        + ("; oracle selectors (†) stand aside" if left_out else ""),
        unlabelled=sum(p.label is None for p in points),
    )


def _steps(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase: until the next method is paid for, the last one is the best to be had."""
    out: list[tuple[float, float]] = []
    for x, y in places:
        if out:
            out.append((x, out[-1][1]))
        out.append((x, y))
    return [*out, (FRAME.right, out[-1][1])] if out else []


def _thin(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """The staircase as boxes that labels should rather not cover."""
    return [
        Box(min(a, c) - 1.5, min(b, d) - 1.5, max(a, c) + 1.5, max(b, d) + 1.5)
        for (a, b), (c, d) in pairwise(corners)
    ]


def _freer_side(line: Line, drawn: Sequence[tuple[Any, float, float, float, Any, Any]]) -> Line:
    """The line with its name at the left when marks and whiskers leave more room there."""
    taken = [Box(x - r, y - r, x + r, y + r) for _, x, y, r, _, _ in drawn]
    taken += [Box(w[2] - 3, w[1], w[2] + 3, w[0]) for *_, w in drawn if w]
    left = replace(line, at_left=True)
    covered = [sum(side.box.overlap(box) for box in taken) for side in (line, left)]
    return left if covered[1] < covered[0] else line


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
