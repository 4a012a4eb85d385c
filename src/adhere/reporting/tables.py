"""The summary as a table: one plain object, written for a terminal, for Markdown or by the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adhere.reporting import formats as f
from adhere.reporting.notes import notes_for, outcome_notes

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

SUBSETS = ("all", "unsafe", "safe")


@dataclass(frozen=True)
class Column:
    """A column: its key, its heading and whether its cells are numbers."""

    key: str
    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell: its value, the interval around it, and what must not be overlooked below."""

    text: str
    interval: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table. `base`: the others of its model are compared with it."""

    cells: Mapping[str, Cell]
    group: str = ""
    control: bool = False
    base: bool = False
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def clear(self) -> bool:
        """True when the difference to the baseline is larger than its own uncertainty."""
        low, high = (f.number(self.source, f"sar_diff_{end}") for end in ("low", "high"))
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class Table:
    """A table with its footnotes; `left_out` rows did not fit where a limit was given."""

    subset: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    left_out: int = 0

    @property
    def groups(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """Rows by suite and model, in order of first appearance, controls of a suite last."""
        names = dict.fromkeys(row.group for row in self.rows)
        return tuple((n, tuple(r for r in self.rows if r.group == n)) for n in names)


def summary_table(
    summary: Mapping[str, Any], subset: str = "all", *, limit: int | None = None
) -> Table:
    """The table of one subset of a run's summary. `limit` caps the rows and says what it left out.

    Rows keep the summary's order, grouped by suite and model; a suite's control rows come last.
    """
    chosen = [r for r in summary.get("rows", ()) if r.get("subset", "all") == subset]
    kept = chosen if limit is None else chosen[:limit]
    suites = list(dict.fromkeys(r.get("suite") for r in kept))
    models = dict.fromkeys(r.get("model") for r in kept if not r.get("control"))
    several = len(models) > 1 or len(suites) > 1

    def rank(row: Mapping[str, Any]) -> tuple[int, bool, int]:
        control = bool(row.get("control"))
        place = 0 if control else list(models).index(row.get("model"))
        return suites.index(row.get("suite")), control, place

    kept = sorted(kept, key=rank)
    baselines = {r.get("baseline") for r in kept if r.get("baseline")}
    versus = f.one_line(next(iter(baselines)), 24) if len(baselines) == 1 else "baseline"
    columns = (
        Column("method", "Method", numeric=False),
        Column("scored", "Scored"),
        Column("safety", "Safety"),
        Column("behavioral", "Behavioral"),
        Column("sar", "SAR"),
        Column("diff", f"SAR vs {versus}"),
        Column("cut", "Cut %"),
        Column("empty", "Empty %"),
        Column("refused", "Refused %"),
        Column("tokens", "Tokens out"),
        Column("seconds", "Seconds"),
    )
    bases = {(r.get("suite"), r.get("model"), r.get("baseline")) for r in kept}
    rows = tuple(
        Row(
            _cells(r, base := _is_base(r, bases)),
            _group(r, len(suites) > 1) if several else "",
            bool(r.get("control")),
            base,
            r,
        )
        for r in kept
    )
    return Table(subset, columns, rows, tuple(notes_for(summary, kept)), len(chosen) - len(kept))


def _group(row: Mapping[str, Any], with_suite: bool) -> str:
    who = "controls" if row.get("control") else f.one_line(row.get("model") or "no model", 80)
    return f"{f.one_line(row.get('suite') or '?', 60)} · {who}" if with_suite else who


def _cells(row: Mapping[str, Any], base: bool) -> dict[str, Cell]:
    def rate(key: str) -> Cell:
        return Cell(
            f.score(row.get(key)), f.interval(row.get(f"{key}_low"), row.get(f"{key}_high"))
        )

    paired = f.number(row, "n_paired")
    fewer = paired is not None and paired != f.number(row, "n_scored")
    if base:
        diff = Cell("baseline")
    else:
        diff = Cell(
            f.difference(row.get("sar_diff")),
            f.interval(row.get("sar_diff_low"), row.get("sar_diff_high"), signed=True),
            (f"{f.count(paired)} pairs",) if fewer and row.get("sar_diff") is not None else (),
        )
    return {
        "method": Cell(
            f.one_line(row.get("method") or "?", 60) + (" †" if row.get("oracle") else ""),
            notes=(f.one_line(row["variant"], 60),) if row.get("variant") else (),
        ),
        "scored": Cell(
            f"{f.count(row.get('n_scored'))}/{f.count(row.get('n'))}", notes=outcome_notes(row)
        ),
        "safety": rate("safety"),
        "behavioral": rate("behavioral"),
        "sar": rate("sar"),
        "diff": diff,
        "cut": Cell(f.share(row.get("share_cut"))),
        "empty": Cell(f.share(row.get("share_empty"))),
        "refused": Cell(f.share(row.get("share_refused"))),
        "tokens": Cell(f.mean_count(row.get("completion_tokens"))),
        "seconds": Cell(f.seconds(row.get("seconds"))),
    }


def _is_base(row: Mapping[str, Any], bases: set[tuple[Any, Any, Any]]) -> bool:
    """True when other rows of the same suite and model name this one as their baseline."""
    if row.get("control") or row.get("sar_diff") is not None:
        return False
    names = (row.get("method"), f.method_label(row, dagger=False))
    return any((row.get("suite"), row.get("model"), name) in bases for name in names)


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


def footnotes(table: Table) -> tuple[str, ...]:
    """The notes below the table, with one on rows that were left out when some were."""
    if not table.left_out:
        return table.notes
    shown = len(table.rows)
    line = f"Showing {shown:,} of {shown + table.left_out:,} rows; all are in summary.json."
    return (line, *table.notes)


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
