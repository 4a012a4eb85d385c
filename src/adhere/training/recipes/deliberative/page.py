"""A run that distills, in words: one headline, notes, and tables for the terminal and the page.

No prompt and no answer is shown: those may be such as nobody wants on a screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from adhere import __version__
from adhere.reporting import formats as f
from adhere.reporting.grid import Cell, Column, Grid
from adhere.reporting.templating import asset, content_policy, environment
from adhere.training.recipes.deliberative.reading import REASONS

_MOST_TEXT = 4_000
_MOST_LINES = 200

Summary = Mapping[str, Any]


_FOOTNOTES = (
    "The yield is the share of rows kept among those that came to an end, with its 95% interval "
    "over prompts. Rows whose call failed are in neither.",
    "Citing: a run of four words of a rule stands in the thought; a thought that tells a rule in "
    "other words is not found.",
    "Texts are in rows.jsonl and rejected.jsonl; this page shows none.",
)


def render(summary: Summary) -> str:
    """The page as text: equal bytes for equal input. It loads nothing and runs no script."""
    css = asset("report.css")
    return (
        environment(_MOST_TEXT)
        .get_template("plain.html.jinja")
        .render(
            brand="distillation",
            title=f.one_line(summary["name"], 80),
            headline=headline(summary),
            facts=_facts(summary),
            notes=notes(summary),
            charts=[],
            grids=[grid for grid in grids(summary) if grid.rows],
            footnotes=_FOOTNOTES,
            version=__version__,
            css=Markup(css),  # noqa: S704  (a file of this package)
            csp=content_policy(css),
        )
    )


def headline(summary: Summary) -> str:
    """What came of it in one sentence."""
    parts = [
        f"{f.count(summary['rows'])} rows of {f.count(summary['planned'])} prompts and samples",
        f"{f.count(summary['rejected'])} rejected",
    ]
    parts += [f"{f.count(summary[k])} {k}" for k in ("failed", "waiting", "mixed") if summary[k]]
    return "; ".join(parts).replace(" mixed", " mixed in") + "."


def notes(summary: Summary) -> list[str]:
    """What the reader must not overlook."""
    out = list(summary["not_apart"])
    ended, why = summary["rows"] + summary["rejected"], summary["rejected_by_reason"]
    unclosed = why.get("not_closed", 0) + why.get("no_thought", 0)
    if unclosed and 2 * unclosed >= ended:
        of = "" if unclosed == ended else f" in {f.count(unclosed)} of {f.count(ended)} rows"
        out.append(
            f"The teacher closed no thought{of}. Give it more room (--max-tokens), ask for two "
            "parts (--form parts), or let the thought be closed for it (--form forced)."
        )
    if undecided := why.get("unscored", 0):
        out.append(
            f"{f.count(undecided)} of {f.count(ended)} rows could not be decided and are not kept: "
            "what the filter said or met stands in rejected.jsonl. Where it is a judge, ask one "
            "that keeps to the format."
        )
    if ended and not summary["rows"] and unclosed < ended:
        out.append(
            "No row is left to train on; the reasons stand in the tables and in rejected.jsonl."
        )
    out += _of_the_mix(summary["mix"])
    if summary["filters"] == []:
        out.append("Nothing was filtered but the format (--filter none).")
    if "checks" in summary["filters"]:
        out.append(
            "The rows were chosen by the checks that will score the student: say so where its "
            "numbers stand, and hold some rules or categories out."
        )
    if n := summary["composed"]["no_category"]:
        name = "prompt names" if n == 1 else "prompts name"
        out.append(f"{f.count(n)} {name} no category: the teacher saw all rules in full.")
    for note, n in list(summary["composed"]["unknown"].items())[:20]:
        out.append(f"{f.count(n)} prompt{'' if n == 1 else 's'}: {f.one_line(note)}.")
    if summary["stopped"]:
        out.append(f"Not at its end: {f.one_line(summary['stopped'], 400)}")
    return out


def _of_the_mix(mix: Summary | None) -> list[str]:
    """What the reader must not overlook of the rows that were mixed in."""
    out = []
    if mix and mix["taken"] < mix["asked"]:
        out.append(
            f"The mix holds {f.count(mix['taken'])} of the {f.count(mix['asked'])} rows that a "
            f"share of {mix['share']:g} asks for."
        )
    if mix and (n := mix["same_prompts"]):
        has = "row that was mixed in has" if n == 1 else "rows that were mixed in have"
        out.append(
            f"{f.count(n)} {has} the very prompt of a distilled row, and may teach another answer."
        )
    return out


def grids(summary: Summary) -> list[Grid]:
    """The tables: by category, by reason, and what was spent."""
    return [_categories(summary), _reasons(summary), _spent(summary)]


def _categories(summary: Summary) -> Grid:
    columns = (
        Column("category", "category", numeric=False),
        *(Column(key, key) for key in ("planned", "rows", "rejected", "failed")),
        Column("refusals", "read as refusals"),
        Column("citing", "citing a rule"),
        Column("reasons", "why not", numeric=False),
    )
    found = list(summary["by_category"].items())
    lines = []
    for name, line in found[:_MOST_LINES]:
        why = ", ".join(f"{reason} {f.count(n)}" for reason, n in line["reasons"].items())
        numbers = ("planned", "rows", "rejected", "failed", "refusals", "citing")
        cells = [Cell(f.count(line[key])) for key in numbers]
        lines.append((Cell(f.one_line(name) or "none"), *cells, Cell(why)))
    return Grid("Yield by category", columns, tuple(lines), max(0, len(found) - _MOST_LINES))


def _reasons(summary: Summary) -> Grid:
    columns = (
        Column("reason", "reason", numeric=False),
        Column("rows", "rows"),
        Column("tries", "tries refused"),
        Column("about", "", numeric=False),
    )
    rows, tries = summary["rejected_by_reason"], summary["refused_tries_by_reason"]
    lines = tuple(
        (
            Cell(reason),
            Cell(f.count(rows.get(reason, 0))),
            Cell(f.count(tries.get(reason, 0))),
            Cell(about),
        )
        for reason, about in REASONS.items()
        if reason in rows or reason in tries
    )
    return Grid("Why there is no row", columns, lines)


def _spent(summary: Summary) -> Grid:
    columns = (
        Column("model", "model", numeric=False),
        Column("calls", "calls"),
        Column("prompt_tokens", "prompt tokens"),
        Column("completion_tokens", "completion tokens"),
        Column("seconds", "seconds in calls"),
    )
    lines = tuple(
        (Cell(f.one_line(label)), *(Cell(f.count(used[c.key])) for c in columns[1:]))
        for label, used in summary["spent"].items()
    )
    return Grid("Spent", columns, lines)


def _facts(summary: Summary) -> list[tuple[str, str]]:
    found, words = summary["yield"], summary["words"]
    spread = f"{f.share(found['value'])}% ({f.share(found['low'])} to {f.share(found['high'])})"
    facts = [
        ("yield", f"{spread} of {f.count(found['of'])}" if found["of"] else f.DASH),
        ("filters", ", ".join(summary["filters"]) or "none"),
        ("words of a thought", f.mean_count(words["thought"]["mean"])),
        ("words of an answer", f.mean_count(words["answer"]["mean"])),
        ("citing a rule", f"{f.count(summary['citing'])} of {f.count(summary['rows'])}"),
        ("read as refusals", f"{f.count(summary['refusals'])} of {f.count(summary['rows'])}"),
    ]
    if n := summary["closed_by_method"]:
        facts.append(("thoughts closed for it", f.count(n)))
    return facts
