"""The table written for a terminal, by rich, or as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from adhere.reporting import formats as f
from adhere.reporting.grid import Cell
from adhere.reporting.tables import Row, Table, footnotes

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

# ---------------------------------------------------------------- terminal

# Column, heading and width; with one space between columns they add up to 100.
_TERMINAL = (
    ("method", "method", 18),
    ("scored", "scored", 11),
    ("safety", "safety", 6),
    ("behavioral", "behav.", 6),
    ("sar", "SAR", 14),
    ("diff", "", 16),
    ("shares", "cut/empty/\nrefused %", 10),
    ("tokens", "tokens", 6),
    ("seconds", "sec.", 5),
)
# What fits into 80: the cost stands in the report.
_NARROW = {"method": 14, "scored": 7, "shares": 10, "tokens": 0, "seconds": 0}


def to_rich(table: Table, width: int = 100) -> Group:
    """For a terminal of `width` columns: one rich table a group, then the footnotes.

    Below 100 columns the table takes 80 and leaves tokens and seconds to the report.

    Intervals and outcomes stand on lines of their own under the value, which is what fits.
    Texts are never read as rich markup.
    """
    from rich.console import Group, RenderableType
    from rich.text import Text

    parts: list[RenderableType] = []
    if not table.rows:
        parts.append(Text(f"No rows in the subset {table.subset!r}."))
    for index, (name, rows) in enumerate(table.groups):
        if name:
            parts.append(Text(("\n" if index else "") + name, style="bold"))
        parts.append(_rich_group(table, rows, narrow=width < 100))
    parts += [Text(note, style="dim") for note in footnotes(table)]
    return Group(*parts)


def _rich_group(table: Table, rows: Iterable[Row], *, narrow: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    out = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    diff_title = next(c.title for c in table.columns if c.key == "diff").removeprefix("SAR ")
    shown = [
        (key, title, _NARROW.get(key, width) if narrow else width)
        for key, title, width in _TERMINAL
    ]
    shown = [column for column in shown if column[2]]
    for key, title, width in shown:
        out.add_column(
            Text(title or diff_title),
            justify="left" if key == "method" else "right",
            width=width,
            overflow="fold",
        )
    rows = list(rows)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        shares = [row.cells[k].text for k in ("cut", "empty", "refused")]
        joined = "/".join(shares) if set(shares) != {f.DASH} else f.DASH
        cells = {**row.cells, "shares": Cell(joined)}
        out.add_row(
            *(_rich_cell(cells[key], key) for key, _, _ in shown),
            style="dim" if row.control else None,
            end_section=bool(following and following.control and not row.control),
        )
    return out


def _rich_cell(cell: Cell, key: str) -> Text:
    from rich.text import Text

    text = Text(cell.text, style="bold" if key == "sar" else "")
    # The terminal has no room for the intervals of safety and behavioral; the page has.
    if cell.interval and key in ("sar", "diff"):
        text.append(f"\n{cell.interval}", style="not bold dim")
    for note in cell.notes:
        text.append(f"\n{note}", style="yellow" if key == "scored" else "dim")
    return text


# ---------------------------------------------------------------- Markdown


def to_markdown(table: Table) -> str:
    """For an issue, a README or a notebook: one Markdown table, then the footnotes as a list."""
    grouped = any(row.group for row in table.rows)
    titles = (["Group"] if grouped else []) + [_escaped(c.title) for c in table.columns]
    aligns = (["---"] if grouped else []) + ["---:" if c.numeric else "---" for c in table.columns]
    lines = [_markdown_line(titles), _markdown_line(aligns)]
    for row in table.rows:
        cells = [_markdown_cell(row.cells[c.key]) for c in table.columns]
        lines.append(_markdown_line(([_escaped(row.group)] if grouped else []) + cells))
    if not table.rows:
        lines = [f"No rows in the subset `{table.subset}`."]
    notes = [f"- {_escaped(note)}" for note in footnotes(table)]
    return "\n".join([*lines, "", *notes] if notes else lines) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = _escaped(cell.text) + (f" {cell.interval}" if cell.interval else "")
    return f"{text} ({_escaped(', '.join(cell.notes))})" if cell.notes else text


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# A name may hold anything, but must stay a name: no cell border, no tag, no link, no emphasis.
_MARKDOWN = str.maketrans(
    {**{c: f"\\{c}" for c in "\\|`*_[]"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"}
)


def _escaped(text: str) -> str:
    return text.translate(_MARKDOWN)
