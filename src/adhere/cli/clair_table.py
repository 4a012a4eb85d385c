"""What `adhere data clair` prints at its end: what came of the prompts, and how contrastive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adhere.cli.console import wide_console
from adhere.experiments.starts import RunResult
from adhere.training.recipes.clair.refusing import REASONS

if TYPE_CHECKING:
    from adhere.training.recipes.clair.expecting import ExpectedCalls

_MEASURES = (
    ("jaccard", "token Jaccard", "1 = the same words; higher is the smaller edit"),
    ("levenshtein", "Levenshtein", "characters; lower is the smaller edit"),
    ("normalized", "... over the longer text", "0 to 1"),
)


def show_pairs(result: RunResult) -> None:
    """Print the tables of a run's summary, and where its files are."""
    out, summary = wide_console(), result.summary
    if result.did_nothing:
        out.print(f"{result.folder}: already finished; nothing was run.", highlight=False)
    out.print()
    out.print(_headline(summary), highlight=False, soft_wrap=True)
    if summary["pairs"]:
        out.print(_contrast(summary))
    out.print(_rules(summary))
    if summary["dropped_by_reason"] or summary["refused_tries_by_reason"]:
        out.print(_reasons(summary))
    out.print(_spent(summary))
    for note in _notes(summary):
        out.print(note, highlight=False, markup=False, soft_wrap=True)
    _where(out, result)


def _headline(summary: Mapping[str, Any]) -> str:
    parts = [
        f"{summary['pairs']} pairs of {summary['planned']} prompts and repeats",
        f"{summary['clean']} violated nothing",
        f"{summary['dropped']} dropped",
    ]
    parts += [f"{summary[k]} {k}" for k in ("failed", "waiting") if summary[k]]
    return escape("; ".join(parts) + ".")


def _contrast(summary: Mapping[str, Any]) -> Table:
    table = _table("How contrastive the pairs are", ("measure", "mean", "95% interval", "median"))
    table.add_column("", overflow="fold")
    for key, name, about in _MEASURES:
        found = summary["contrast"][key]
        digits = 1 if key == "levenshtein" else 3
        table.add_row(
            name, _number(found["mean"], digits),
            f"{_number(found['low'], digits)} to {_number(found['high'], digits)}",
            _number(found["median"], digits), about,
        )  # fmt: skip
    needed = summary["edit_needed"]
    if needed["n"]:
        about = f"of the edit, without which a rule is violated; at most (n = {needed['n']})"
        table.add_row("needed share", _number(needed["mean"], 3), "", "", about)
    return table


def _rules(summary: Mapping[str, Any]) -> Table:
    heads = ("rule", "answers\nmarked", "violating", "pairs that\nmend it", "leave it", "break it")
    table = _table("Rules: the policy's first answers, and the pairs", heads)
    for rule, found in summary["rules"].items():
        if rule in summary["undecided"]:
            table.add_row(escape(rule), "nobody decides it", *[""] * 4)
            continue
        fields = ("drafts", "drafts_violating", "mended", "still_violated", "newly_violated")
        table.add_row(escape(rule), *(str(found[field]) for field in fields))
    return table


def _reasons(summary: Mapping[str, Any]) -> Table:
    table = _table("Why there is no pair", ("reason", "rows", "tries\nrefused"))
    table.add_column("", overflow="fold")
    rows, tries = summary["dropped_by_reason"], summary["refused_tries_by_reason"]
    for reason, about in REASONS.items():
        if reason in rows or reason in tries:
            table.add_row(reason, str(rows.get(reason, 0)), str(tries.get(reason, 0)), about)
    return table


def _spent(summary: Mapping[str, Any]) -> Table:
    heads = ("model", "calls", "prompt\ntokens", "completion\ntokens", "seconds\nin calls")
    table = _table("Spent", heads)
    for label, used in summary["spent"].items():
        fields = ("calls", "prompt_tokens", "completion_tokens")
        numbers = [f"{used[field]:,}" for field in fields]
        table.add_row(escape(label), *numbers, f"{used['seconds']:,.0f}")
    return table


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = [f"note: {words}" for words in summary["not_apart"]]
    if summary["undecided"]:
        named = ", ".join(summary["undecided"])
        notes.append(f"note: neither a check nor a judge decides these rules: {named}")
    if (trust := summary["trust"]) and trust["withheld"]:
        notes.append(f"note: {trust['why']}")
    if summary["refusals"]["chosen"]:
        found = summary["refusals"]
        notes.append(
            f"note: {found['chosen']} chosen answers read as refusals "
            f"({found['rejected']} of the rejected)"
        )
    return notes


def _where(out: Console, result: RunResult) -> None:
    out.print(f"Pairs: {result.folder / 'pairs.jsonl'}", highlight=False, soft_wrap=True)
    if result.summary["pairs"]:
        train = f"adhere train --recipe clair --pairs {result.folder / 'pairs.jsonl'} --model ..."
        out.print(f"Train on them: {train}", highlight=False, soft_wrap=True, markup=False)


def expected_table(expected: Sequence[ExpectedCalls], rows: int) -> Table:
    """What a run would take."""
    table = _table(f"What {rows} rows would take", ("role", "model", "calls from", "to"))
    table.add_column("for", overflow="fold")
    for line in expected:
        table.add_row(line.role, escape(line.model), f"{line.low:,}", f"{line.high:,}", line.why)
    return table


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
