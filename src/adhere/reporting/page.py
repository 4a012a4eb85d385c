"""Puts the page together: what the template is given, how much of it, and under which policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from adhere.reporting import formats as f
from adhere.reporting.answers import AnswerLimits, CaseView, cut
from adhere.reporting.plots import Bar, Plot, adherence_plot, cost_plot, interval_bar
from adhere.reporting.rules_map import rules_maps
from adhere.reporting.tables import SUBSETS, Row, footnotes, summary_table
from adhere.reporting.teaching import Choice

MAX_BYTES = 2_000_000
_HERE = Path(__file__).parent / "templates"


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
    AnswerLimits(text=6_000),
    AnswerLimits(text=3_000, steps=12, marks=100),
    AnswerLimits(text=1_500, steps=12, marks=60),
    AnswerLimits(text=700, steps=8, marks=40),
    AnswerLimits(30, 700, 6, 40),
    AnswerLimits(12, 500, 4, 20),
)


Figures = list[tuple[str, list[Plot]]]


def figures(summary: Mapping[str, Any], limits: TableLimits) -> Figures:
    """The plots of each suite, over as many rows as the table shows."""
    rows = [row.source for row in summary_table(summary, limit=limits.lines).rows]
    out = []
    for index, suite in enumerate(
        list(dict.fromkeys(r.get("suite") for r in rows))[: limits.suites]
    ):
        own = [r for r in rows if r.get("suite") == suite]
        plots = adherence_plot(own, f"adherence-{index}"), cost_plot(own, f"cost-{index}")
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
    css, js = _asset("report.css"), _asset("report.js")
    tables = [summary_table(summary, s, limit=limits.lines) for s in SUBSETS]
    shown = [t for t in tables if t.rows or t.subset == "all"]
    main = [row.source for row in shown[0].rows]
    return (
        _environment(limits.any_text)
        .get_template("report.html.jinja")
        .render(
            summary=summary,
            spec=summary["spec"],
            settings=dict(list((summary.get("settings") or {}).items())[: limits.lines]),
            spent=summary.get("spent") or {},
            facts=_facts(summary, main),
            tables=shown,
            figures=drawn,
            maps=rules_maps(
                summary,
                max_rules=limits.rules,
                max_columns=limits.columns,
                max_suites=limits.suites,
            ),
            choice=choice,
            cases=cases,
            usage=_usage(main)[: limits.lines],
            usage_is_mean=_usage_is_mean(main),
            models=(summary.get("models") or [])[: limits.lines],
            config=cut(_as_yaml(run_config), limits.any_text),
            css=css,
            js=js,
            csp=_policy(css, js),
            footnotes=footnotes,
            bar=interval_bar,
            base_bar=_base_bar,
        )
    )


def _base_bar(rows: Iterable[Row]) -> Bar | None:
    """The bar of the row that its group is compared with."""
    return next((interval_bar(r.source) for r in rows if r.base), None)


def _facts(summary: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The line under the headline: what the numbers are of."""
    spec, settings = summary["spec"], summary.get("settings") or {}
    rules = spec.get("rules") or []
    kinds = [f"{sum(r.get('kind') == k for r in rules)} {k}" for k in ("safety", "behavioral")]
    models = [f.one_line(m.get("name"), 60) for m in summary.get("models") or ()]
    most: dict[Any, float] = {}
    for row in rows:
        n = f.number(row, "n_cases")
        if (n := f.number(row, "n") if n is None else n) is not None:
            most[row.get("suite")] = max(most.get(row.get("suite"), 0.0), n)
    judges = dict.fromkeys(f.one_line(r.get("judge"), 60) for r in rows if r.get("judge"))
    policy = settings.get("na_policy") or next((r.get("na_policy") for r in rows), None)
    words = {"count": "counts as unmet", "exclude": "left out"}
    prompts = f.count(sum(most.values())) if most else f.DASH
    if len(most) > 1:
        prompts += f" in {len(most)} suites"
    alpha = settings.get("alpha", rows[0].get("alpha") if rows else None)
    return [
        ("spec", f"{f.one_line(spec.get('name'), 80)}, version {f.one_line(spec.get('version'))}"),
        ("rules", ", ".join(kinds) if rules else f.DASH),
        ("model" if len(models) == 1 else "models", _some(models)),
        ("prompts", prompts),
        ("judged by", _some(list(judges)) if judges else "checks alone"),
        ("alpha", _plain(alpha)),
        ("NA", words.get(str(policy), _plain(policy))),
        ("temperature", _plain(settings.get("temperature"))),
        ("seed", _plain(settings.get("seed"))),
        ("date", f.date(summary.get("created"))),
    ]


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or f.DASH


def _plain(value: Any) -> str:
    """A setting as a person would write it."""
    if value is None or value in ("", [], (), {}):
        return f.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    return str(value)


def _usage(rows: list[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """One line a method and role, for the table of what an answer costs."""
    out = []
    for row in rows:
        roles = row.get("usage_by_role")
        if not row.get("control") and isinstance(roles, Mapping):
            out += [(row, f.one_line(k, 40), u) for k, u in roles.items() if isinstance(u, Mapping)]
    return out


def _usage_is_mean(rows: list[Mapping[str, Any]]) -> bool:
    """True when the roles of every row add up to its mean per answer: then they are means too."""
    sums: dict[int, float] = {}
    for row, _, use in _usage(rows):
        sums[id(row)] = sums.get(id(row), 0.0) + (f.number(use, "completion_tokens") or 0.0)
    means = {id(r): f.number(r, "completion_tokens") or 0.0 for r in rows}
    return all(abs(total - means[i]) <= 0.01 * means[i] + 0.5 for i, total in sums.items())


def _as_yaml(config: Mapping[str, Any]) -> str:
    try:
        return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    except yaml.YAMLError:
        return "The configuration could not be written here; see run.yaml."


# ---------------------------------------------------------------- template and policy


def _finalize(limit: int) -> Any:
    """What every printed value passes: texts are cleaned and never endless, null is a dash."""

    def final(value: Any) -> Any:
        if isinstance(value, Markup | jinja2.Undefined):
            return value
        if value is None:
            return f.DASH
        text = str(value)
        if len(text) > limit:
            text = f"{text[:limit]}… [{len(text) - limit:,} more characters]"
        return f.clean(text)

    return final


@cache
def _environment(limit: int) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize(limit),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["f"] = f
    environment.filters["plain"] = _plain
    environment.filters["discreet"] = f.without_credentials
    return environment


@cache
def _asset(name: str) -> Markup:
    """A file of ours that goes into the page as it is."""
    text = (_HERE / name).read_text(encoding="utf-8")
    if "</" in text:
        raise AssertionError(f"{name} must not hold '</': it would end its element early")
    return Markup(text)  # noqa: S704  (a file of this package, not a text from outside)


def _policy(css: str, js: str) -> str:
    """Nothing from anywhere, and of inline code only ours, by hash: equal input, equal bytes."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {source(css)}; script-src {source(js)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
