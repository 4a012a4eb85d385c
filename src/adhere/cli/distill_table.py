"""What `adhere data distill` prints at its end: the yield by category and by reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from adhere.cli.console import wide_console
from adhere.experiments.starts import RunResult

if TYPE_CHECKING:
    from adhere.reporting.grid import Grid


def show_rows(result: RunResult) -> None:
    """Print the tables of a run's summary, and where its files are."""
    from adhere.training.recipes.deliberative.page import grids, headline, notes

    out, summary = wide_console(), result.summary
    if result.did_nothing:
        out.print(f"{result.folder}: already finished; nothing was run.", highlight=False)
    out.print()
    out.print(headline(summary), highlight=False, markup=False, soft_wrap=True)
    for grid in grids(summary):
        if grid.rows:
            out.print(to_table(grid))
    for note in notes(summary):
        out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    rows = result.folder / "rows.jsonl"
    out.print(f"Rows: {rows}", highlight=False, markup=False, soft_wrap=True)
    report = result.folder / "report.html"
    out.print(f"Report: {report}", highlight=False, markup=False, soft_wrap=True)
    if summary["rows"]:
        train = f"adhere train --recipe deliberative --rows {rows} --model weights:NAME --out ..."
        out.print(f"Train on them: {train}", highlight=False, markup=False, soft_wrap=True)


def to_table(grid: Grid) -> Table:
    """A grid as a table of the terminal."""
    table = Table(title=grid.caption, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in grid.columns:
        numeric = column.numeric
        table.add_column(column.title, justify="right" if numeric else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(escape(cell.text) for cell in row))
    return table
