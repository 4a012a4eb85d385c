"""The one sentence on top of a report: true, with its interval, or saying that there is no gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def headline(
    table: Sequence[Mapping[str, Any]], baseline: str, unmeasured: Sequence[str] = ()
) -> str:
    """One sentence that is true: what the best method does against the baseline, if anything."""
    if unmeasured:
        return (
            f"SAR is not measured: nobody decides any {' or '.join(unmeasured)} rule in this run "
            "(no check, no judge)."
        )
    arms = [r for r in table if r["subset"] == "all" and not r["control"] and r["sar"] is not None]
    if not arms:
        return "No answer could be scored."
    rivals = [r for r in arms if r["sar_diff"] is not None]
    if not rivals:
        best = max(arms, key=lambda r: r["sar"])
        return (
            f"{_name(best, arms)} follows the spec with SAR {best['sar']:.2f} "
            f"[{best['sar_low']:.2f}, {best['sar_high']:.2f}] "
            f"over {best['n_cases_scored']} prompts."
        )
    best = max(rivals, key=lambda r: r["sar_diff"])
    before = best["sar_of_baseline_paired"]
    by = f"{best['sar_diff']:+.2f} [{best['sar_diff_low']:+.2f}, {best['sar_diff_high']:+.2f}]"
    figures = (
        f"SAR {before:.2f} to {before + best['sar_diff']:.2f} "
        f"({by}, {best['n_paired']} paired prompts"
    )
    figures += f", the largest of {len(rivals)} differences)" if len(rivals) > 1 else ")"
    name = _name(best, arms)
    if best["sar_diff_low"] > 0:
        sentence = f"{name} moves {figures}{_cost(best, arms)}."
        if best["oracle"]:
            sentence += " It selects by the checks that score: this is what checks in the loop buy."
        return sentence
    if best["sar_diff_high"] < 0:
        return f"No method beats {baseline}; the nearest, {name}, moves {figures}."
    return f"No clear gain over {baseline}: {name} moves {figures}, and the interval holds zero."


def _name(row: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> str:
    name = str(row["method"])
    if row["variant"]:
        name += f" ({row['variant']})"
    if len({r["model"] for r in arms}) > 1:
        name += f" on {row['model']}"
    if len({r["suite"] for r in arms}) > 1:
        name += f" in {row['suite']}"
    return name


def _cost(best: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> str:
    same = ("suite", "model")
    base = next(
        (r for r in arms if r["method"] == best["baseline"] and all(r[k] == best[k] for k in same)),
        None,
    )
    if base is None or not best["completion_tokens"] or not base["completion_tokens"]:
        return ""
    return f" at {best['completion_tokens'] / base['completion_tokens']:.1f} times the tokens"
