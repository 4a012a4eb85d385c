"""Which rule each method follows: rules down, methods across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adhere.reporting import formats as f
from adhere.reporting.withheld import KINDS, who_decided

UNDECIDED = "not decided in this run"
STEPS = 10  # the color scale has 0 to STEPS


@dataclass(frozen=True)
class MapColumn:
    """A method of a model."""

    model: str
    method: str
    variant: str
    control: bool


@dataclass(frozen=True)
class MapCell:
    """The share followed among the answers the rule applies to, and what it was counted from."""

    text: str
    counts: str
    step: int | None


@dataclass(frozen=True)
class MapRow:
    """A rule with its cells; none, but why, when no answer has a mark for it."""

    id: str
    text: str
    check: str
    category: str
    applies: str
    cells: tuple[MapCell, ...] | None
    why: str = ""
    who: str = ""  # check, judge or mixed; nothing when nobody decided it

    @property
    def by(self) -> str:
        """Who decided it, in words."""
        return {
            "check": "decided by a check",
            "judge": "decided by a judge",
            "mixed": "decided by a check in some answers and by a judge in others",
        }.get(self.who, "decided by nobody")


@dataclass(frozen=True)
class RulesMap:
    """The map of one suite. `left_out_*` did not fit the page."""

    suite: str
    columns: tuple[MapColumn, ...]
    sections: tuple[tuple[str, tuple[MapRow, ...]], ...]
    left_out_rules: int = 0
    left_out_columns: int = 0
    left_out_suites: int = 0  # on the last map shown

    @property
    def undecided(self) -> tuple[str, ...]:
        """The rules that nobody decided."""
        return tuple(r.id for _, rows in self.sections for r in rows if r.why == UNDECIDED)

    @property
    def models(self) -> tuple[tuple[str, int], ...]:
        """Neighboring columns of one model: its name and how many."""
        out: list[tuple[str, int]] = []
        for column in self.columns:
            if out and out[-1][0] == column.model:
                out[-1] = (column.model, out[-1][1] + 1)
            else:
                out.append((column.model, 1))
        return tuple(out)


def rules_maps(
    summary: Mapping[str, Any],
    *,
    max_rules: int = 400,
    max_columns: int = 40,
    max_suites: int = 20,
) -> tuple[RulesMap, ...]:
    """One map a suite, in the order of the summary's rows; also for a suite without marks."""
    counted = [r for r in summary.get("rules") or () if isinstance(r, Mapping)]
    lines = [r for r in summary.get("rows") or () if r.get("subset", "all") == "all"]
    suites = list(dict.fromkeys(r.get("suite") for r in [*lines, *counted]))
    maps = [_one(summary, s, lines, counted, max_rules, max_columns) for s in suites[:max_suites]]
    if len(suites) > max_suites:
        maps[-1] = replace(maps[-1], left_out_suites=len(suites) - max_suites)
    return tuple(maps)


def _one(
    summary: Mapping[str, Any],
    suite: Any,
    lines: list[Mapping[str, Any]],
    counted: list[Mapping[str, Any]],
    max_rules: int,
    max_columns: int,
) -> RulesMap:
    lines = [r for r in lines if r.get("suite") == suite]
    variants: dict[tuple[str, str], list[str]] = {}
    for model, method, variant in dict.fromkeys(_column(r) for r in lines):
        variants.setdefault((model, method), []).append(variant)

    def column(row: Mapping[str, Any]) -> tuple[str, str, str]:
        """Counts that name no variant belong to the one that the table has of their method."""
        model, method, variant = _column(row)
        known = variants.get((model, method), [])
        return model, method, known[0] if "variant" not in row and len(known) == 1 else variant

    counted = [r for r in counted if r.get("suite") == suite]
    counts = {(column(r), r.get("rule")): r for r in counted}
    with_marks = dict.fromkeys(column(r) for r in counted)
    # The table's order: the same method stands at the same place in both, controls last.
    ranked = [c for r in lines if (c := _column(r)) in with_marks]
    controls = {_column(r) for r in lines if r.get("control")}
    order = list(dict.fromkeys([*ranked, *with_marks]))
    models = list(dict.fromkeys(c[0] for c in order))
    order.sort(key=lambda c: (c in controls or not c[0], models.index(c[0])))
    columns = [MapColumn(*c, control=c in controls or not c[0]) for c in order[:max_columns]]

    spec = summary.get("spec") or {}
    rules = [r for r in spec.get("rules") or () if isinstance(r, Mapping)]
    known = {r.get("id") for r in rules}
    strangers = dict.fromkeys(r.get("rule") for r in counted if r.get("rule") not in known)
    rules += [{"id": i, "kind": "", "text": "This rule is not in the spec."} for i in strangers]
    undecided = set(summary.get("undecided_rules") or ())

    def row(rule: Mapping[str, Any]) -> MapRow:
        ident = rule.get("id")
        seen = [counts.get((c, ident)) for c in order[:max_columns]]
        cells = tuple(_cell(s) for s in seen)
        why = UNDECIDED if ident in undecided else ""
        why = why or ("" if any(seen) else "no scored answer")
        return MapRow(
            f.one_line(ident, 80),
            str(rule.get("text") or ""),
            str(rule.get("check") or ""),
            f.one_line(rule.get("category"), 60),
            str(rule.get("applies") or ""),
            None if why else cells,
            why,
            "" if why else who_decided(summary, rule, suite),
        )

    shown = rules[:max_rules]
    kinds = dict.fromkeys([*KINDS, *(str(r.get("kind") or "") for r in shown)])
    sections = (
        (kind, tuple(row(r) for r in shown if str(r.get("kind") or "") == kind)) for kind in kinds
    )
    return RulesMap(
        f.one_line(suite, 60),
        tuple(columns),
        tuple((kind, rows) for kind, rows in sections if rows),
        len(rules) - len(shown),
        len(order) - len(columns),
    )


def _column(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return (
        f.one_line(row.get("model"), 60),
        f.one_line(row.get("method") or "?", 60),
        f.one_line(row.get("variant"), 60),
    )


def _cell(counts: Mapping[str, Any] | None) -> MapCell:
    yes, no, na = (f.number(counts or {}, k) or 0.0 for k in ("yes", "no", "na"))
    text = "/".join(f.count(v) for v in (yes, no, na))
    if yes + no <= 0:
        return MapCell(f.DASH, text if counts else "", None)
    share = yes / (yes + no)
    return MapCell(f.share(share), text, round(share * STEPS))
