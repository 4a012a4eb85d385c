"""A benchmark's table for the terminal, as CSV and as LaTeX: percent with two decimals."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adhere.reporting import formats as f
from adhere.reporting.notes import outcome_notes

if TYPE_CHECKING:
    from rich.table import Table

Line = Mapping[str, Any]

ALL_PARTS = "All scenarios"
_ENDS = ("", "_low", "_high")
_RATES = tuple(
    f"{measure}{end}" for measure in ("safety", "behavioral", "sar", "sar_diff") for end in _ENDS
)
_COUNTS = ("n", "n_scored", "n_unscored", "n_truncated", "n_filtered", "n_failed", "n_paired")
_TOKENS = (
    "paper_prompt_tokens", "paper_completion_tokens", "prompt_tokens", "completion_tokens",
)  # fmt: skip


def percent(value: Any) -> str:
    """A rate in percent with two decimals: 0.62916 is `62.92`."""
    return f"{100 * value:.2f}" if f.is_number(value) else f.DASH


def points(value: Any) -> str:
    """A difference of two rates in percent points, signed."""
    if not f.is_number(value):
        return f.DASH
    text = f"{abs(100 * value):.2f}"
    return text if float(text) == 0 else ("+" if value > 0 else f.MINUS) + text


def span(row: Line, key: str) -> str:
    """The interval of a rate or of the difference, in percent; nothing when an end is missing."""
    low, high = f.number(row, f"{key}_low"), f.number(row, f"{key}_high")
    if low is None or high is None:
        return ""
    form = points if key == "sar_diff" else percent
    return f"[{form(low)}, {form(high)}]"


def lines_of(table: Mapping[str, Any], part: str | None, subset: str = "all") -> list[Line]:
    """The table's lines of one part, or over all parts; controls come last."""
    found = [
        row
        for row in f.objects(table.get("rows"))
        if row.get("part") == part and row.get("subset", "all") == subset
    ]
    return sorted(found, key=lambda row: bool(row.get("control")))


def several_models(table: Mapping[str, Any]) -> bool:
    """True when a line has to name its model."""
    rows = f.objects(table.get("rows"))
    return len({row.get("model") for row in rows if not row.get("control")}) > 1


def is_base(table: Mapping[str, Any], row: Line) -> bool:
    """True for the method that the others are compared with."""
    return not row.get("control") and bool(row.get("method")) and (
        row.get("method") == table.get("baseline")
    )  # fmt: skip


def part_names(table: Mapping[str, Any]) -> list[str]:
    """The parts that have numbers, in order."""
    return [str(p.get("name")) for p in f.objects(table.get("parts")) if p.get("found")]


# ---------------------------------------------------------------- terminal


def benchmark_text_table(table: Mapping[str, Any]) -> Table:
    """For the terminal: a section over all scenarios, then one a scenario.

    Texts are never read as rich markup.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    baseline = f.one_line(table.get("baseline") or "baseline", 16)
    name = f.one_line(table.get("name") or "benchmark", 60)
    out = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False,
                title=Text(name), title_justify="left", caption_justify="left",
                caption=Text(_caption(table)))  # fmt: skip
    for title, width in (("", 18), ("scored", 11), ("safety", 7), ("behav.", 7), ("SAR", 16),
                         (f"vs {baseline}", 17), ("unsafe\nSAR", 7), ("safe\nSAR", 7),
                         ("tokens", 7)):  # fmt: skip
        out.add_column(
            Text(title), justify="left" if not title else "right", width=width, overflow="fold"
        )
    for part in (None, *part_names(table)):
        out.add_row(Text(ALL_PARTS if part is None else f.one_line(part, 60), style="bold"))
        rows = lines_of(table, part)
        for row in rows:
            cells = (_text_who(table, row), *_text_cells(table, part, row))
            style = "dim" if row.get("control") else ""
            out.add_row(*(Text(c) for c in cells), style=style, end_section=row is rows[-1])
    return out


def _text_who(table: Mapping[str, Any], row: Line) -> str:
    name = "  " + f.one_line(row.get("method") or "?", 60) + (" †" if row.get("oracle") else "")
    for key in ("variant", *(("model",) if several_models(table) else ())):
        if row.get(key):
            name += f"\n  {f.one_line(row[key], 60)}"
    return name


def _text_cells(table: Mapping[str, Any], part: str | None, row: Line) -> list[str]:
    held = row.get("withheld") or ()

    def rate(key: str) -> str:
        return "held" if key in held else percent(row.get(key))

    halves = []
    for subset in ("unsafe", "safe"):
        same = [r for r in lines_of(table, part, subset) if _same_arm(r, row)]
        halves.append(percent(same[0].get("sar")) if same else f.DASH)
    scored = f"{f.count(row.get('n_scored'))}/{f.count(row.get('n'))}"
    notes = "\n".join(outcome_notes(row))
    moved = "baseline" if is_base(table, row) else points(row.get("sar_diff"))
    return [
        f"{scored}\n{notes}" if notes else scored,
        rate("safety"),
        rate("behavioral"),
        f"{rate('sar')}\n{span(row, 'sar')}".rstrip(),
        f"{moved}\n{span(row, 'sar_diff')}".rstrip(),
        *halves,
        f.mean_count(row.get("completion_tokens")),
    ]


def _same_arm(a: Line, b: Line) -> bool:
    return all(a.get(key) == b.get(key) for key in ("model", "method", "control"))


def _caption(table: Mapping[str, Any]) -> str:
    lines = []
    if missing := incomplete_sentence(table):
        lines.append(missing)
    return "\n".join([*lines, *(f.one_line(note, 400) for note in table.get("notes") or ())])


def incomplete_sentence(table: Mapping[str, Any]) -> str:
    """Which scenarios are missing or not finished; nothing when all are whole."""
    found = f.objects(table.get("incomplete"))
    if not found:
        return ""
    which = ", ".join(
        f"{f.one_line(p.get('part'), 60)} ({f.one_line(p.get('why'), 120)})" for p in found
    )
    return f"Incomplete: {which}."


# ---------------------------------------------------------------- CSV


def benchmark_csv(table: Mapping[str, Any]) -> str:
    """Every line of the table as CSV: rates in percent with two decimals, counts, tokens.

    `part` is empty over all scenarios. A rate without a number is empty; `withheld` names those
    that a judge which is not to be believed had a part in.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    texts = ("part", "subset", "model", "method", "variant")
    writer.writerow([*texts, "oracle", "control", *_COUNTS, *_RATES, *_TOKENS, "withheld"])
    parts = [None, *part_names(table)]
    for row in sorted(f.objects(table.get("rows")), key=lambda r: parts.index(r.get("part"))):
        writer.writerow(
            [
                *(_csv_text(row.get(key)) for key in texts),
                *(str(bool(row.get(key))).lower() for key in ("oracle", "control")),
                *("" if row.get(key) is None else f"{row[key]:.0f}" for key in _COUNTS),
                *("" if (v := f.number(row, key)) is None else f"{100 * v:.2f}" for key in _RATES),
                *("" if (v := f.number(row, key)) is None else f"{v:.1f}" for key in _TOKENS),
                " ".join(row.get("withheld") or ()),
            ]
        )
    return out.getvalue()


def _csv_text(value: Any) -> str:
    """A name in a cell; one that a spreadsheet would run as a formula gets an apostrophe."""
    text = f.one_line(value, 200)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


# ---------------------------------------------------------------- LaTeX


def benchmark_latex(table: Mapping[str, Any]) -> str:
    """Two tables for a paper (booktabs): over all scenarios by subset, then SAR by scenario.

    Cells are safety / behavioral / SAR in percent; the highest SAR of a column is bold. Notes
    and what is incomplete stand as comments above.
    """
    comments = [incomplete_sentence(table), *(table.get("notes") or ())]
    head = [f"% {f.one_line(line, 600)}" for line in comments if line]
    tables = [*_latex_subsets(table), "", *_latex_parts(table)] if lines_of(table, None) else []
    return "\n".join([*head, *tables]) + "\n"


def _latex_subsets(table: Mapping[str, Any]) -> list[str]:
    subsets = [s for s in ("all", "unsafe", "safe") if lines_of(table, None, s)]
    names = {"all": "Full", "unsafe": "Unsafe", "safe": "Safe"}
    heads = [f"\\multicolumn{{3}}{{c}}{{{names[s]}}}" for s in subsets]
    best = {s: _best(lines_of(table, None, s)) for s in subsets}
    body = []
    for row in lines_of(table, None):
        cells = [_latex_who(table, row)]
        for subset in subsets:
            same = next((r for r in lines_of(table, None, subset) if _same_arm(r, row)), {})
            sar = _latex_percent(same.get("sar"))
            if same and same.get("sar") == best[subset] and not same.get("control"):
                sar = f"\\textbf{{{sar}}}"
            rates = [_latex_percent(same.get(key)) for key in ("safety", "behavioral")]
            cells += [*rates, sar]
        tokens = row.get("paper_completion_tokens")
        cells.append(f"{tokens:.0f}" if f.is_number(tokens) else "--")
        body.append(" & ".join(cells) + r" \\")
    return [
        f"\\begin{{tabular}}{{l{'rrr' * len(subsets)}r}}",
        r"\toprule",
        f"Method & {' & '.join(heads)} & Tokens \\\\",
        f" & {' & '.join(['Safety & Behav. & SAR'] * len(subsets))} & \\\\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _latex_parts(table: Mapping[str, Any]) -> list[str]:
    parts = part_names(table)
    columns: Sequence[str | None] = [*parts, None]
    best = {part: _best(lines_of(table, part)) for part in columns}
    body = []
    for row in lines_of(table, None):
        cells = [_latex_who(table, row)]
        for part in columns:
            same = next((r for r in lines_of(table, part) if _same_arm(r, row)), {})
            text = _latex_percent(same.get("sar"))
            bold = bool(same) and same.get("sar") == best[part] and not same.get("control")
            cells.append(f"\\textbf{{{text}}}" if bold else text)
        body.append(" & ".join(cells) + r" \\")
    return [
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        f"SAR & {' & '.join(_latex(p) for p in parts)} & All \\\\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _best(rows: Sequence[Line]) -> float | None:
    found = [n for r in rows if not r.get("control") and (n := f.number(r, "sar")) is not None]
    return max(found, default=None) if len(found) > 1 else None


def _latex_who(table: Mapping[str, Any], row: Line) -> str:
    text = f.one_line(row.get("method") or "?", 60)
    if row.get("variant"):
        text += f" ({f.one_line(row['variant'], 60)})"
    if several_models(table) and row.get("model"):
        text += f", {f.one_line(row['model'], 60)}"
    return _latex(text) + (r"$^\dagger$" if row.get("oracle") else "")


def _latex_percent(value: Any) -> str:
    return f"{100 * value:.2f}" if f.is_number(value) else "--"


_LATEX = str.maketrans(
    {**{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}"}
)  # fmt: skip


def _latex(text: Any) -> str:
    return f.one_line(text, 200).translate(_LATEX)
