"""Puts the page together: what the template is given, how much of it, and under which policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from adhere.reporting import formats as f
from adhere.reporting.answers import AnswerLimits, CaseView, cut
from adhere.reporting.changes import changes_view
from adhere.reporting.edits import edits_view
from adhere.reporting.facts import facts
from adhere.reporting.filters import filters
from adhere.reporting.frontier import frontier_plot
from adhere.reporting.games import games_grid
from adhere.reporting.grid import Bar, interval_bar
from adhere.reporting.outcomes import (
    bounds_grid,
    cost_grid,
    failure_grid,
    outcome_grid,
    role_grid,
)
from adhere.reporting.plots import Plot, adherence_plot
from adhere.reporting.rules_map import rules_maps
from adhere.reporting.tables import SUBSETS, Row, footnotes, summary_table
from adhere.reporting.teaching import MAX_ROWS, Choice
from adhere.reporting.templating import asset, content_policy, environment
from adhere.reporting.trust import trust_view, withheld_warning
from adhere.reporting.withheld import headline, withhold

MAX_BYTES = 2_000_000


@dataclass(frozen=True)
class TableLimits:
    """How much of the numbers a page shows."""

    lines: int = 400  # of the main table, and points of the plots
    rules: int = 400
    columns: int = 40
    suites: int = 20  # with plots and a rule map of their own
    any_text: int = 20_000  # of whatever is printed in one place


# Tried in this order until the page fits. The numbers come first: they may take most of the page
# but leave room for answers. The last table limits are small for every input: counts times lengths
# stay below the limit even where each character takes a dozen bytes.
TABLES = (
    TableLimits(),
    TableLimits(lines=120, rules=100, columns=20, suites=6),
    TableLimits(lines=60, rules=60, columns=12, suites=3, any_text=2_000),
    TableLimits(lines=20, rules=30, columns=8, suites=2, any_text=300),
)
MOST_FOR_TABLES = 1_400_000
ANSWERS = (
    AnswerLimits(),
    AnswerLimits(aside=4_000, steps=12, praise=200),
    AnswerLimits(text=6_000, aside=2_000, steps=12, marks=100, reason=200, praise=100),
    AnswerLimits(text=4_000, aside=1_000, steps=12, marks=100, reason=200, praise=0),
    AnswerLimits(text=4_000, aside=500, steps=8, marks=100, reason=160, praise=0, said=160),
    AnswerLimits(MAX_ROWS, 3_000, 300, 6, 60, 120, 0, candidates=12, said=120),
    AnswerLimits(MAX_ROWS, 2_000, 200, 6, 60, 80, 0, candidates=12, said=120),
    AnswerLimits(MAX_ROWS, 1_200, 200, 4, 40, 60, 0, candidates=8, said=80),
    AnswerLimits(100, 1_500, 300, 6, 60, 80, 0, candidates=12, said=120),
    AnswerLimits(60, 700, 200, 6, 40, 60, 0, candidates=8, said=80),
    AnswerLimits(30, 700, 200, 6, 40, 60, 0, candidates=8, said=80),
    AnswerLimits(12, 500, 200, 4, 20, 60, 0, candidates=6, said=80),
)
# For a page with every row: as long as it gets.
NO_LIMITS = TableLimits(10**9, 10**9, 10**9, 10**9, 10**9)
WHOLE = AnswerLimits(10**9, 10**9, 10**9, 10**9, 10**9, 10**6, 10**6, 10**9, 10**9)


Figures = list[tuple[str, list[Plot]]]


def figures(summary: Mapping[str, Any], limits: TableLimits) -> Figures:
    """The plots of each suite, over as many rows as the table shows."""
    rows = [row.source for row in summary_table(summary, limit=limits.lines).rows]
    out = []
    for index, suite in enumerate(
        list(dict.fromkeys(r.get("suite") for r in rows))[: limits.suites]
    ):
        own = [r for r in rows if r.get("suite") == suite]
        plots = (
            adherence_plot(own, f"adherence-{index}"),
            frontier_plot(own, f"frontier-{index}", summary.get("currency")),
        )
        out.append((f.one_line(suite, 60), [p for p in plots if p]))
    return out


def page(
    summary: Mapping[str, Any],
    run_config: Mapping[str, Any],
    drawn: Figures,
    limits: TableLimits,
    choice: Choice,
    cases: Sequence[CaseView],
) -> str:
    """The whole page. `drawn` are its figures, `cases` the views of `choice`."""
    css, js = asset("report.css"), asset("report.js")
    tables = [summary_table(summary, s, limit=limits.lines) for s in SUBSETS]
    shown = [t for t in tables if t.rows or t.subset == "all"]
    main = [row.source for row in shown[0].rows]
    return (
        environment(limits.any_text)
        .get_template("report.html.jinja")
        .render(
            summary=summary,
            spec=summary["spec"],
            settings=dict(list((summary.get("settings") or {}).items())[: limits.lines]),
            spent=summary.get("spent") or {},
            headline=headline(summary),
            withheld=withheld_warning(summary),
            stopped=f.one_line(summary.get("stopped"), 300),
            facts=facts(summary, main),
            tables=shown,
            figures=drawn,
            maps=rules_maps(
                summary,
                max_rules=limits.rules,
                max_columns=limits.columns,
                max_suites=limits.suites,
            ),
            changes=changes_view(summary, limits.lines),
            choice=choice,
            cases=cases,
            filters=filters(cases),
            trust=trust_view(summary, limits.rules),
            edits=edits_view(withhold(summary), limits.rules, limits.any_text),
            games=games_grid(summary, limits.lines),
            outcomes=outcome_grid(main, shown[0].left_out),
            failures=failure_grid(summary, limits.lines),
            costs=cost_grid(main, summary.get("currency"), shown[0].left_out),
            roles=role_grid(main, limits.lines),
            bounds=bounds_grid,
            models=(summary.get("models") or [])[: limits.lines],
            config=cut(_as_yaml(run_config), limits.any_text),
            css=css,
            js=js,
            csp=content_policy(css, js),
            footnotes=footnotes,
            bar=interval_bar,
            base_bar=_base_bar,
        )
    )


def _base_bar(rows: Iterable[Row]) -> Bar | None:
    """The bar of the row that its group is compared with."""
    return next((interval_bar(r.source) for r in rows if r.base), None)


def _as_yaml(config: Mapping[str, Any]) -> str:
    try:
        return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    except yaml.YAMLError:
        return "The configuration could not be written here; see run.yaml."


# ---------------------------------------------------------------- template and policy
