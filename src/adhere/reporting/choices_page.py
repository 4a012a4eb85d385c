"""What a choice run showed: a table for the terminal and for Markdown, and one page.

The page loads nothing from anywhere; texts from outside are escaped and cleaned on their way.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adhere.errors import BadInput, disk_error
from adhere.reporting import formats as f
from adhere.reporting.choices_words import (
    COUNTS,
    METRICS,
    OWN_WORDS,
    choices_headline,
    choices_notes,
    f_list,
    several_models,
)
from adhere.reporting.grid import Cell, Column, Grid, interval_bar
from adhere.reporting.inputs import _check_version
from adhere.reporting.notes import outcome_notes
from adhere.reporting.report import REPORT_NAME
from adhere.reporting.templating import asset, content_policy, environment

if TYPE_CHECKING:
    from rich.console import Group

SUMMARY = "summary.json"
_MOST = 400  # lines of one table
_PLACES = 26


def is_choices(summary: Mapping[str, Any]) -> bool:
    """Whether a summary is a choice run's."""
    return summary.get("kind") == "choices"


def read_choices(folder: Path) -> Mapping[str, Any] | None:
    """The summary of a choice run's folder; None where it is no such folder, or a broken one.

    Raises BadInput for one of another version, or of another shape.
    """
    try:
        found = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not is_choices(found):
        return None
    _check_version(folder / SUMMARY, None, found)
    if not isinstance(found.get("rows"), list):
        raise BadInput.at(folder / SUMMARY, None, "no list 'rows'", "the summary of a choice run")
    return found


# ---------------------------------------------------------------- grids


def choices_grids(summary: Mapping[str, Any], subset: str = "all") -> list[Grid]:
    """One table a suite: its methods over all cases, or over one category."""
    out = []
    rows = [r for r in f.objects(summary.get("rows")) if r.get("subset") == subset]
    for suite in dict.fromkeys(str(row.get("suite")) for row in rows):
        own = [row for row in rows if row.get("suite") == suite]
        metric = METRICS.get(str(own[0].get("metric")), "Accuracy")
        several = several_models(own)
        weighted = own[0].get("metric") not in OWN_WORDS
        versus = f.one_line(summary.get("baseline") or "the baseline", 24)
        columns = (
            Column("method", "Method", numeric=False),
            Column("scored", "Scored"),
            Column("rate", metric),
            Column("bar", "", numeric=False),
            Column("diff", f"vs {versus}"),
            *((Column("expected", "Under the weights"),) if weighted else ()),
            *(() if weighted else (Column("answered", "Without refusals"),)),
            *(() if weighted else (Column("refused", "Refused"),)),
            *((Column("picked", "Pick is right"),) if own[0].get("metric") == "mc2" else ()),
            Column("abstained", "Abstained" if weighted else "Empty"),
            *((Column("chance", "Chance"),) if weighted else ()),
            Column("calls", "Calls"),
            Column("tokens", "Tokens"),
        )
        lines = tuple(
            tuple(_cell(column.key, row, several, summary.get("baseline")) for column in columns)
            for row in own[:_MOST]
        )
        name = f.one_line(suite, 60) + ("" if subset == "all" else f", {f.one_line(subset, 60)}")
        cases = f.count(max(f.number(row, "n_cases") or 0 for row in own))
        out.append(Grid(f"{name}: {cases} questions", columns, lines, max(0, len(own) - _MOST)))
    return out


def _cell(key: str, row: Mapping[str, Any], several: bool, named: Any) -> Cell:
    """One cell of a line; `named`: the baseline."""
    primary = str(row.get("primary") or "accuracy")
    if key == "method":
        left = f.number(row, "n_right_left_out")
        about = (
            row.get("variant"),
            row.get("model") if several else "",
            "control: calls no model" if row.get("control") else "",
            f"the right choice is not compared in {f.count(left)}" if left else "",
        )
        return Cell(
            f.one_line(row.get("method") or "?", 60),
            notes=tuple(f.one_line(note, 90) for note in about if note),
        )
    if key == "scored":
        text = f"{f.count(row.get('n_scored'))}/{f.count(row.get('n'))}"
        more = tuple(
            f"{f.count(n)} {words}" for name, words in COUNTS.items() if (n := f.number(row, name))
        )
        return Cell(text, notes=(*outcome_notes(row), *more))
    if key in ("rate", "expected", "picked", "answered"):
        name = {"rate": primary, "picked": "accuracy"}.get(key, key)
        source = row.get("probability_from")
        whole = f.number(row, name) is not None
        note = {
            "probability": f"{'from' if whole else 'not the whole of'} {source}"
            if source
            else "gives no distribution",
            "answered": f"of {f.count(row.get('n_answered'))}",
        }.get(name)
        notes = () if note is None else (note,)
        return Cell(
            f.score(row.get(name)), f.interval(row.get(f"{name}_low"), row.get(f"{name}_high")),
            tuple(f.one_line(n, 60) for n in notes),
        )  # fmt: skip
    if key == "bar":
        return Cell("", bar=interval_bar(row, primary))
    if key == "diff":
        if not row.get("baseline"):
            return Cell("baseline" if row.get("method") == named else f.DASH)
        if row.get("unlike"):
            return Cell(f.DASH, notes=(f.one_line(row.get("unlike"), 60),))
        paired = f.number(row, "n_paired")
        fewer = paired is not None and paired != f.number(row, "n_cases")
        return Cell(
            f.difference(row.get("diff")),
            f.interval(row.get("diff_low"), row.get("diff_high"), signed=True),
            (f"{f.count(paired)} pairs",) if fewer else (),
        )
    if key == "refused":
        cut = f.number(row, "n_cut")
        return Cell(f.count(row.get("n_refused")), notes=(f"{f.count(cut)} cut",) if cut else ())
    if key == "abstained":
        return Cell(f.count(row.get("n_abstained")))
    if key == "chance":
        return Cell(f.score(row.get("chance")))
    if key == "calls":
        return Cell(f.mean_count(row.get("calls")))
    tokens = [
        f.number(row, name)
        for name in (
            "prompt_tokens", "completion_tokens", "probe_prompt_tokens", "probe_completion_tokens",
        )
    ]  # fmt: skip
    known = [t for t in tokens if t is not None]
    return Cell(f.mean_count(sum(known)) if known else f.DASH)


def place_grid(summary: Mapping[str, Any]) -> Grid | None:
    """Which places were picked, beside where the right answers stood; None without picks."""
    rows = [
        r
        for r in f.objects(summary.get("rows"))
        if r.get("subset") == "all" and isinstance(r.get("picks_by_place"), list)
        and r["picks_by_place"]
    ]  # fmt: skip
    if not rows:
        return None
    size = min(_PLACES, max(len(r["picks_by_place"]) for r in rows))
    several, lines = several_models(rows), []
    for row in rows[:_MOST]:
        names = (row.get("suite"), row.get("method"), row.get("model") if several else "")
        who = " · ".join(f.one_line(name, 40) for name in names if name)
        for name, key in (("picked", "picks_by_place"), ("right", "right_by_place")):
            shares = [*f_list(row.get(key)), *[None] * size][:size]
            cells = [Cell(f.share(share)) for share in shares]
            lines.append((Cell(f"{who}, {name}"), *cells))
    columns = (Column("who", "Percent of picks, and of right answers", numeric=False),)
    places = tuple(Column(f"place{i}", str(i + 1)) for i in range(size))
    return Grid("Share by place of the choice", (*columns, *places), tuple(lines))


# ---------------------------------------------------------------- terminal and Markdown


def choices_text(summary: Mapping[str, Any], subset: str = "all") -> Group:
    """For a terminal: one rich table a suite, then the notes. Texts are never read as markup."""
    from rich import box
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for grid in choices_grids(summary, subset):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        shown = [i for i, column in enumerate(grid.columns) if column.key != "bar"]
        for i in shown:
            column = grid.columns[i]
            table.add_column(
                Text(column.title), justify="right" if column.numeric else "left", overflow="fold"
            )
        for line in grid.rows:
            table.add_row(*(Text("\n".join(_lines_of(line[i]))) for i in shown))
        parts += [Text(grid.caption, style="bold"), table]
    if not parts:
        parts.append(Text(f"No rows in the subset {f.one_line(subset, 60)!r}."))
    parts += [Text(note, style="dim") for note in choices_notes(summary)]
    return Group(*parts)


def choices_markdown(summary: Mapping[str, Any], subset: str = "all") -> str:
    """For an issue or a README: one Markdown table a suite, then the notes as a list."""
    from adhere.reporting.table_texts import _escaped, _markdown_line

    lines: list[str] = []
    for grid in choices_grids(summary, subset):
        shown = [i for i, column in enumerate(grid.columns) if column.key != "bar"]
        columns = [grid.columns[i] for i in shown]
        lines += [f"**{_escaped(grid.caption)}**", ""]
        lines.append(_markdown_line([_escaped(column.title) for column in columns]))
        lines.append(_markdown_line(["---:" if c.numeric else "---" for c in columns]))
        for line in grid.rows:
            cells = [" ".join(_escaped(part) for part in _lines_of(line[i])) for i in shown]
            lines.append(_markdown_line(cells))
        lines.append("")
    if not lines:
        lines = [f"No rows in the subset `{f.one_line(subset, 60)}`.", ""]
    lines += [f"- {_escaped(note)}" for note in choices_notes(summary)]
    return "\n".join(lines) + "\n"


def _lines_of(cell: Cell) -> list[str]:
    return [part for part in (cell.text, cell.interval, *cell.notes) if part]


# ---------------------------------------------------------------- the page


def render_choices(summary: Mapping[str, Any]) -> str:
    """The page as text: equal bytes for equal input."""
    css, js = asset("report.css") + asset("benchmark.css"), asset("report.js")
    subsets = dict.fromkeys(str(r.get("subset")) for r in f.objects(summary.get("rows")))
    parts = [s for s in subsets if s != "all"]
    return (
        environment(20_000)
        .get_template("choices.html.jinja")
        .render(
            summary=summary,
            title=f.one_line(summary.get("name"), 80),
            headline=choices_headline(summary),
            grids=choices_grids(summary),
            categories=[grid for s in parts[:60] for grid in choices_grids(summary, s)],
            places=place_grid(summary),
            notes=choices_notes(summary),
            failures=f.objects(summary.get("failures"))[:_MOST],
            settings=list(f.mapping(summary.get("settings")).items())[:60],
            models=f.objects(summary.get("models"))[:60],
            css=css,
            js=js,
            csp=content_policy(css, js),
        )
    )


def write_choices_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write `report.html` into a run's folder, whole or not at all. Raises DiskFull."""
    target = Path(folder) / REPORT_NAME
    draft = target.with_name(f".{REPORT_NAME}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as out:
            out.write(render_choices(summary).encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise disk_error(error, target) from error
    return target


__all__ = [
    "choices_grids",
    "choices_headline",
    "choices_markdown",
    "choices_notes",
    "choices_text",
    "is_choices",
    "place_grid",
    "read_choices",
    "render_choices",
    "write_choices_report",
]
