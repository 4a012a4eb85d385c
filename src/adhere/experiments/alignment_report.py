"""The alignment gap to read elsewhere: a page, Markdown, and plain data.

Model names and notes come from runs, so they are escaped for where they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from adhere import __version__
from adhere.experiments.alignment_gap import TEACHER, AlignmentGap, AlignmentLine
from adhere.experiments.gate_report import cell, markdown_table
from adhere.experiments.metrics import Estimate
from adhere.records import SCHEMA_VERSION
from adhere.reporting import formats as f
from adhere.reporting.grid import Cell, Column, Grid, estimate_bar
from adhere.reporting.templating import asset, content_policy, environment

_MOST_TEXT = 4_000
_PICTURE = "picture"  # Markdown has none
_COLUMNS = (
    Column("role", "", numeric=False),
    Column("arm", "arm", numeric=False),
    Column("scored", "scored"),
    Column("safety", "safety"),
    Column("behavioral", "behavioral"),
    Column("sar", "SAR"),
    Column(_PICTURE, "SAR from 0 to 1", numeric=False),
    Column("refused", "refused"),
    Column("gap", "gap to the teacher"),
)
_FOOTNOTES = (
    "The gap is the teacher's SAR less the arm's, case by case on those that both have scored. "
    "Intervals are 95%; scored: rows with a verdict of all rows; refused: of those answered.",
    "All rows are scored by the teacher's alpha and NA policy.",
)


def to_facts(found: Sequence[AlignmentGap]) -> dict[str, Any]:
    """All numbers as plain data, for a file."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "alignment_gap",
        "suites": [
            {
                "suite": one.suite,
                "lines": [_facts(line) for line in one.lines],
                "notes": list(one.notes),
            }
            for one in found
        ],
    }


def _facts(line: AlignmentLine) -> dict[str, Any]:
    return {
        "role": line.role, "model": line.model, "method": line.method,
        "rows": line.rows, "scored": line.scored,
        "safety": _told(line.safety), "behavioral": _told(line.behavioral),
        "sar": _told(line.sar), "refused": _told(line.refused),
        "gap": {**_told(line.gap), "n": line.n_paired},
        "closed": line.closed.as_json() if line.closed is not None else None,
    }  # fmt: skip


def _told(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def to_markdown(found: Sequence[AlignmentGap]) -> str:
    """A table for each suite, then what was closed, then notes."""
    out: list[str] = []
    for one in found:
        out += [f"### {cell(one.suite)}", ""]
        out += markdown_table(
            [column.title for column in _COLUMNS if column.key != _PICTURE],
            "llrrrrrr",
            (
                [
                    " ".join(filter(None, (c.text, c.interval, *c.notes)))
                    for column, c in zip(_COLUMNS, row, strict=True)
                    if column.key != _PICTURE
                ]
                for row in grid(one).rows
            ),
        )
        out += [f"- {cell(text, 400)}" for text in (*closed(one), *one.notes)]
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def to_page(found: Sequence[AlignmentGap], names: Sequence[str]) -> str:
    """The page as text: equal bytes for equal input. It loads nothing and runs no script.

    `names`: of the runs of base, student and teacher.
    """
    css = asset("report.css")
    told = [
        f"{f.one_line(one.suite, 80)}: {text}" if len(found) > 1 else text
        for one in found
        for text in closed(one)
    ]
    return (
        environment(_MOST_TEXT)
        .get_template("plain.html.jinja")
        .render(
            brand="alignment gap",
            title=f.one_line(names[1], 80),
            headline=f"{told[0][0].upper()}{told[0][1:]}"
            if told
            else "No share of the gap can be said.",
            facts=[
                (role, f.one_line(name, 120))
                for role, name in zip(("base", "student", "teacher"), names, strict=True)
            ],
            notes=[*told[1:], *dict.fromkeys(note for one in found for note in one.notes)],
            charts=[],
            grids=[grid(one) for one in found],
            footnotes=_FOOTNOTES,
            version=__version__,
            css=Markup(css),  # noqa: S704  (a file of this package)
            csp=content_policy(css),
        )
    )


def closed(found: AlignmentGap) -> list[str]:
    """What each arm of the student closed of the gap, in words."""
    return [
        f"{line.role}, {line.method} on {f.one_line(line.model, 80)}: {line.closed}"
        for line in found.lines
        if line.closed is not None
    ]


def grid(found: AlignmentGap) -> Grid:
    """Teacher, student and base in one table."""
    rows = tuple(
        (
            Cell(line.role),
            Cell(f"{f.one_line(line.method, 60)} on {f.one_line(line.model, 80)}"),
            Cell(f"{f.count(line.scored)} of {f.count(line.rows)}"),
            _share(line.safety),
            _share(line.behavioral),
            _share(line.sar),
            Cell("", bar=estimate_bar(_told(line.sar))),
            _share(line.refused),
            Cell(f.DASH) if line.role == TEACHER else _gap(line),
        )
        for line in found.lines
    )
    return Grid(f.one_line(found.suite, 80), _COLUMNS, rows)


def _share(estimate: Estimate) -> Cell:
    return Cell(f.score(estimate.value), f.interval(estimate.low, estimate.high))


def _gap(line: AlignmentLine) -> Cell:
    if line.gap.value is None:
        return Cell(f.DASH)
    span = f.interval(line.gap.low, line.gap.high, signed=True)
    cases = f"{f.count(line.n_paired)} case{'' if line.n_paired == 1 else 's'}"
    return Cell(f.difference(line.gap.value), span, notes=(cases,))
