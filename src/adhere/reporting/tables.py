"""The summary as a table: one plain object, for the terminal, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.grid import Cell, Column
from adhere.reporting.notes import notes_for, outcome_notes
from adhere.reporting.withheld import withhold

SUBSETS = ("all", "unsafe", "safe")


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
    Numbers of a judge that cannot be trusted are withheld.
    """
    summary = withhold(summary)
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
    held = row.get("withheld") or ()

    def rate(key: str) -> Cell:
        if key in held:
            return Cell(f.DASH, notes=("withheld",))
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


def footnotes(table: Table) -> tuple[str, ...]:
    """The notes below the table, with one on rows that were left out when some were."""
    if not table.left_out:
        return table.notes
    shown = len(table.rows)
    line = f"Showing {shown:,} of {shown + table.left_out:,} rows; all are in summary.json."
    return (line, *table.notes)
