"""Numbers that rest on a judge which the checks show to be unreliable: not shown as results.

The summary says `judge_trust.withheld` when the judge's AUC on twin rules (rules that code also
decides) is below 0.75. Then every rate that such a judge had a part in becomes a dash wherever a
reader would take it for the result: headline, table, plots. Rates of checks alone stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adhere.reporting import formats as f

KINDS = ("safety", "behavioral")
_ENDS = ("", "_low", "_high", "_worst", "_best")


def who_decided(summary: Mapping[str, Any], rule: Mapping[str, Any], suite: Any = None) -> str:
    """`check`, `judge`, `mixed` or, when nobody did, nothing. Older runs: by the rule's check."""
    ident = rule.get("id")
    entries = [
        r
        for r in f.objects(summary.get("rules"))
        if r.get("rule") == ident and (suite is None or r.get("suite") == suite)
    ]
    counts: dict[str, float] = {}
    for entry in entries:
        for who, n in f.mapping(entry.get("deciders")).items():
            counts[str(who)] = counts.get(str(who), 0.0) + (n if f.is_number(n) else 0.0)
    names = {who for who, n in counts.items() if n > 0}
    if names:
        return "check" if names == {"check"} else "mixed" if "check" in names else "judge"
    if not any(any(f.number(e, k) for k in ("yes", "no", "na")) for e in entries):
        return ""
    return "check" if rule.get("check") else "judge"


def is_withheld(summary: Mapping[str, Any]) -> bool:
    """True when the summary says that its judge must not be believed."""
    return f.mapping(summary.get("judge_trust")).get("withheld") is True


def judged_measures(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of safety, behavioral and sar hold marks that a judge gave."""
    rules = f.objects(f.mapping(summary.get("spec")).get("rules"))
    kinds = [
        kind
        for kind in KINDS
        if any(
            r.get("kind") == kind and who_decided(summary, r) in ("judge", "mixed") for r in rules
        )
    ]
    return (*kinds, "sar") if kinds else ()


def withhold(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The summary with judged rates taken out where the judge is not trusted, else as it is.

    Rows get the key `withheld`, the names of the rates taken out. Doing it twice changes nothing.
    """
    if not is_withheld(summary) or not (held := judged_measures(summary)):
        return summary
    gone = {f"{key}{end}": None for key in (*held, "sar_diff") for end in _ENDS}
    gone["sar_of_baseline_paired"] = None
    rows = [{**r, **gone, "withheld": held} for r in f.objects(summary.get("rows"))]
    out = {**summary, "rows": rows}
    if isinstance(edits := summary.get("edits"), Mapping):
        out["edits"] = _edits(edits, summary)
    return out


def _edits(edits: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The edits without moves of SAR, nor of the rates of rules that a judge decided."""
    rules = f.objects(f.mapping(summary.get("spec")).get("rules"))
    checked = {r.get("id") for r in rules if who_decided(summary, r) == "check"}

    def without(row: Mapping[str, Any], *starts: str) -> dict[str, Any]:
        return {k: None if k.startswith(starts) else v for k, v in row.items()}

    return {
        **edits,
        "rows": [
            without(r, "sar_", *(() if r.get("rule") in checked else ("rate_",)))
            for r in f.objects(edits.get("rows"))
        ],
        "unchanged": [without(r, "sar_") for r in f.objects(edits.get("unchanged"))],
    }


def headline(summary: Mapping[str, Any]) -> str:
    """The run's headline, or why it has none. A judged headline is not repeated when withheld."""
    said = f.one_line(summary.get("headline") or "No headline", 400)
    if not is_withheld(summary) or not judged_measures(summary) or "withheld" in said.lower():
        return said
    return "No headline: the judge disagrees too much with the checks to be believed."
