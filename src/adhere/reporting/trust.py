"""How far the judge can be trusted: what it said where code knows better, and where people do.

Estimates come as `{value, low, high}`. The positive class is a violated rule (mark NO) throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.grid import Cell, Column, Grid, estimate, estimate_bar
from adhere.reporting.withheld import is_withheld, who_decided

_MEASURES = (
    ("agreement", "Agreement"),
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("auc", "AUC"),
    ("kappa", "Kappa"),
)


@dataclass(frozen=True)
class TrustView:
    """The section on the judge. `unknown`: it decided rules and nothing was compared with it."""

    withheld: str
    unknown: bool
    judges: Grid
    twins: Grid | None
    twins_of: str
    calibration: Grid | None
    calibration_of: str
    theorem: str
    corrected: Grid | None


def trust_view(summary: Mapping[str, Any], max_lines: int = 400) -> TrustView | None:
    """The section, or None when checks alone decided. `max_lines` caps each of its tables."""
    judges = f.objects(summary.get("judges"))
    trust = f.mapping(summary.get("judge_trust"))
    rules = f.objects(f.mapping(summary.get("spec")).get("rules"))
    decided = [r for r in rules if who_decided(summary, r) in ("judge", "mixed")]
    if not (judges or trust or decided):
        return None
    twins, calibration = f.mapping(trust.get("twins")), f.mapping(trust.get("calibration"))
    overall = f.mapping(calibration.get("overall"))
    of = ""
    if calibration:
        weighted = ", weighted by their share of the rows" if calibration.get("weighted") else ""
        of = (
            f"{f.count(calibration.get('n'))} labels given by people"
            f" ({f.one_line(calibration.get('labels') or 'no file named', 60)}){weighted}"
        )
        if f.number(calibration, "n_unscored"):
            of += f"; on {f.count(calibration['n_unscored'])} more the judge gave no mark"
        if f.number(calibration, "n_not_in_run"):
            of += f"; {f.count(calibration['n_not_in_run'])} more are of answers not in this run"
    return TrustView(
        withheld_warning(summary),
        bool(judges or decided) and not twins and not calibration,
        _judges(judges, summary, max_lines),
        _twins(twins, max_lines) if twins else None,
        f"{f.count(twins.get('n'))} marks in {f.count(twins.get('n_rows'))} rows" if twins else "",
        _calibration(overall, f.mapping(calibration.get("rules")), max_lines)
        if calibration
        else None,
        of,
        f.one_line(calibration.get("theorem"), 600),
        _corrected(f.objects(trust.get("corrected")), max_lines),
    )


def withheld_warning(summary: Mapping[str, Any]) -> str:
    """What stands above everything when the judge must not be believed; nothing otherwise."""
    if not is_withheld(summary):
        return ""
    trust = f.mapping(summary.get("judge_trust"))
    auc = f.number(f.mapping(f.mapping(trust.get("twins")).get("auc")), "value")
    why = f.one_line(trust.get("why"), 400) or (
        f"on rules that a check also decides its AUC is {f.score(auc)}, below 0.75"
        if auc is not None
        else "it disagrees with the checks"
    )
    return f"{why.rstrip('.')}."


def _judges(judges: list[Mapping[str, Any]], summary: Mapping[str, Any], max_lines: int) -> Grid:
    if not judges:  # a run that recorded no more than names
        rows = f.objects(summary.get("rows"))
        names = dict.fromkeys(str(r["judge"]) for r in rows if r.get("judge"))
        judges = [{"identity": name} for name in names]
    lines = []
    for judge in judges[:max_lines]:
        use = _usage(judge.get("usage"))
        lines.append(
            (
                Cell(
                    f.one_line(judge.get("identity") or "unnamed judge", 100),
                    notes=tuple(n for n in (f.one_line(judge.get("model"), 80),) if n),
                ),
                Cell(f.one_line(judge.get("mode"), 30) or f.DASH),
                Cell(f.count(judge.get("n_rows"))),
                Cell(_of(judge, "n_unscored", "n_rows")),
                Cell(f.count(judge.get("reasks"))),
                Cell(f.count(use.get("prompt_tokens"))),
                Cell(f.count(use.get("completion_tokens"))),
            )
        )
    return Grid(
        "Who judged",
        (
            Column("judge", "Judge", numeric=False),
            Column("mode", "Mode", numeric=False),
            Column("rows", "Rows judged"),
            Column("unscored", "Unscored"),
            Column("reasks", "Re-asks"),
            Column("prompt", "Tokens in"),
            Column("completion", "Tokens out"),
        ),
        tuple(lines),
        max(len(judges) - max_lines, 0),
    )


def _twins(twins: Mapping[str, Any], max_lines: int) -> Grid:
    rules = f.objects(twins.get("rules"))
    lines = [(Cell("all together"), Cell(f.count(twins.get("n"))), *_measures(twins))]
    lines += [
        (Cell(f.one_line(r.get("rule"), 60)), Cell(f.count(r.get("n"))), *_measures(r))
        for r in rules[:max_lines]
    ]
    columns = (Column("rule", "Rule", numeric=False), Column("n", "Marks"), *_columns())
    return Grid(
        "Twin rules: the judge against the checks", columns, tuple(lines), _more(rules, max_lines)
    )


def _calibration(overall: Mapping[str, Any], rules: Mapping[str, Any], max_lines: int) -> Grid:
    def line(name: str, found: Mapping[str, Any]) -> tuple[Cell, ...]:
        cells = [f.count(found.get(k)) for k in ("tp", "fn", "fp", "tn")]
        return (
            Cell(name),
            Cell(f.count(found.get("n"))),
            Cell(f.count(found.get("n_violated"))),
            Cell(" / ".join(cells) if set(cells) != {f.DASH} else f.DASH),
            *_measures(found),
        )

    named = [(f.one_line(k, 60), v) for k, v in rules.items() if isinstance(v, Mapping)]
    return Grid(
        "Calibration: the judge against people",
        (
            Column("rule", "Rule", numeric=False),
            Column("n", "Labels"),
            Column("violated", "Violated"),
            Column("table", "TP / FN / FP / TN"),
            *_columns(),
        ),
        (line("all together", overall), *(line(*n) for n in named[:max_lines])),
        _more(named, max_lines),
    )


def _corrected(found: list[Mapping[str, Any]], max_lines: int) -> Grid | None:
    """The rates of following as judged and as they would be without the judge's errors."""
    found = [r for r in found if r.get("subset", "all") == "all"]
    if not found:
        return None
    suites = len({r.get("suite") for r in found}) > 1
    models = len({r.get("model") for r in found}) > 1
    order = list(dict.fromkeys(str(r.get("rule")) for r in found))
    found.sort(key=lambda r: order.index(str(r.get("rule"))))
    ways = {f.one_line(r.get("method_name"), 60) for r in found}
    lines = []
    for row in found[:max_lines]:
        where = [
            f.one_line(row.get(k), 60) for k, on in (("suite", suites), ("model", models)) if on
        ]
        fixed = estimate(row)
        why_not = not f.is_number(row.get("value"))
        how = f.one_line(row.get("method_name"), 200) if len(ways) > 1 or why_not else ""
        other = str(row.get("calibrated_on") or row.get("rule")) != str(row.get("rule"))
        by = ("calibrated on all rules together",) if other else ()
        lines.append(
            (
                Cell(f.one_line(row.get("rule"), 60), notes=by),
                Cell(f.one_line(row.get("method") or "?", 60), notes=tuple(w for w in where if w)),
                Cell(f.count(row.get("n"))),
                Cell(f.score(row.get("raw"))),
                Cell(fixed.text, fixed.interval, (how,) if how else ()),
                Cell("", bar=estimate_bar(row, row.get("raw"))),
            )
        )
    return Grid(
        "Rates of following, as judged and corrected for the judge's errors",
        (
            Column("rule", "Rule", numeric=False),
            Column("method", "Method", numeric=False),
            Column("n", "Prompts"),
            Column("raw", "As judged"),
            Column("corrected", "Corrected"),
            Column("bar", "0 to 1", numeric=False),
        ),
        tuple(lines),
        _more(found, max_lines),
    )


def _columns() -> tuple[Column, ...]:
    return tuple(Column(key, title) for key, title in _MEASURES)


def _measures(found: Mapping[str, Any]) -> tuple[Cell, ...]:
    return tuple(estimate(found.get(key)) for key, _ in _MEASURES)


def _usage(usage: Any) -> Mapping[str, Any]:
    """One usage object; by role they are added up."""
    whole = f.mapping(usage)
    parts = [u for u in whole.values() if isinstance(u, Mapping)]
    if not parts:
        return whole
    keys = ("prompt_tokens", "completion_tokens")
    return {k: sum(f.number(u, k) or 0.0 for u in parts) for k in keys}


def _of(found: Mapping[str, Any], key: str, of: str) -> str:
    return f.part(found.get(key), found.get(of))


def _more(found: Any, limit: int) -> int:
    return max(len(found) - limit, 0)
