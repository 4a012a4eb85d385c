"""What an edited spec changed: which edit moved which number, and what moved otherwise."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.grid import Bar, Cell, Column, Grid, varying, who

_MOST_WORDS = 200  # compared word by word; comparing takes far longer than linear time


@dataclass(frozen=True)
class EditView:
    """One edit: the rule's text as pieces (kept, removed, added) and the numbers it moved."""

    edit: str
    rule: str
    pieces: tuple[tuple[str, str], ...]
    moved: Grid


@dataclass(frozen=True)
class EditsView:
    """The section. `rest` is what moved for other reasons than the edits."""

    before: str
    counts: tuple[tuple[str, str], ...]
    edits: tuple[EditView, ...]
    rest: Grid | None
    left_out: int


def edits_view(summary: Mapping[str, Any], max_lines: int, max_text: int) -> EditsView | None:
    """The section, or None when the run did not start from an older one."""
    if not isinstance(summary.get("edits"), Mapping):
        return None
    edits = f.mapping(summary["edits"])
    rows = f.objects(edits.get("rows"))
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows[:max_lines]:
        groups.setdefault((str(row.get("edit")), str(row.get("rule"))), []).append(row)
    spec = f.mapping(edits.get("spec_before"))
    before = f.one_line(edits.get("reused") or "an older run", 80)
    if spec.get("version") is not None:
        before += f" (spec version {f.one_line(spec.get('version'), 40)})"
    names = (("answers", "n_answers"), ("marks", "n_marks"))
    return EditsView(
        before,
        tuple(
            (f"{word} {how}", f.count(edits.get(f"{key}_{how}")))
            for word, key in names
            for how in ("reused", "new")
        ),
        tuple(_edit(own, max_text) for own in groups.values()),
        _rest(f.objects(edits.get("unchanged")), max_lines),
        max(len(rows) - max_lines, 0),
    )


def pieces(before: str, after: str, limit: int = 4000) -> tuple[tuple[str, str], ...]:
    """Two texts as one: pieces that were kept (`same`), removed (`del`) or added (`ins`)."""
    # Cutting keeps the page small; what is cut is never passed off as unchanged.
    cut = len(before) > limit or len(after) > limit
    old, new = (re.findall(r"\s+|\w+|[^\w\s]+", t[:limit]) for t in (before, after))
    if len(old) > _MOST_WORDS or len(new) > _MOST_WORDS:
        out = [("del", before[:limit]), ("ins", after[:limit])]
    else:
        out = []
        matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag == "equal":
                out.append(("same", "".join(old[a:b])))
            else:
                out += [("del", "".join(old[a:b])), ("ins", "".join(new[c:d]))]
    shown = [(kind, text) for kind, text in out if text]
    return tuple([*shown, ("same", " … [cut; whole in summary.json]")] if cut else shown)


def _edit(rows: Sequence[Mapping[str, Any]], max_text: int) -> EditView:
    first = rows[0]
    edit = f.one_line(first.get("edit") or "changed", 40)
    rule = f.one_line(first.get("rule") or "?", 80)
    named = varying(rows)
    return EditView(
        edit,
        rule,
        pieces(
            str(first.get("before_text") or ""),
            str(first.get("after_text") or ""),
            min(max_text, 4000),
        ),
        Grid(
            f"What it moved: {edit} {rule}",
            (
                Column("method", "Method", numeric=False),
                Column("n", "Pairs"),
                Column("rate", "Rate of following"),
                Column("diff", "Rate moved"),
                Column("sar", "SAR moved"),
                Column("bar", "0 to 1", numeric=False),
            ),
            tuple(_moved(r, named) for r in rows),
        ),
    )


def _moved(row: Mapping[str, Any], named: Sequence[str]) -> tuple[Cell, ...]:
    before, after = f.number(row, "rate_before"), f.number(row, "rate_after")
    bar = None
    if after is not None:
        was = None if before is None else round(100 * min(max(before, 0.0), 1.0), 1)
        bar = Bar(round(100 * min(max(after, 0.0), 1.0), 1), None, None, was=was)
    return (
        who(row, named),
        Cell(f.count(row.get("n_paired"))),
        Cell(_from_to(before, after)),
        _change(row, "rate_diff"),
        _change(row, "sar_moved"),
        Cell("", bar=bar),
    )


def _rest(rows: Sequence[Mapping[str, Any]], max_lines: int) -> Grid | None:
    if not rows:
        return None
    named = varying(rows)
    lines = tuple(
        (
            who(row, named),
            Cell(f.count(row.get("n_paired"))),
            Cell(_from_to(row.get("sar_before"), row.get("sar_after"))),
            _change(row, "sar_diff"),
            Cell(f.difference(row.get("sar_moved_by_edits"))),
            Cell(f.difference(row.get("sar_moved_otherwise"))),
        )
        for row in rows[:max_lines]
    )
    columns = (
        Column("method", "Method", numeric=False),
        Column("n", "Pairs"),
        Column("sar", "SAR"),
        Column("moved", "Moved in all"),
        Column("by", "Moved by the edits"),
        Column("rest", "Moved otherwise"),
    )
    return Grid("SAR before and after", columns, lines, max(len(rows) - max_lines, 0))


def _from_to(before: Any, after: Any) -> str:
    if not (f.is_number(before) or f.is_number(after)):
        return f.DASH
    return f"{f.score(before)} → {f.score(after)}"


def _change(row: Mapping[str, Any], key: str) -> Cell:
    ends = (row.get(f"{key}_low"), row.get(f"{key}_high"))
    return Cell(f.difference(row.get(key)), f.interval(*ends, signed=True))
