"""The table of a benchmark of several parts, each with a run folder and a spec of its own.

Every part's lines are those of its own summary. Lines over all parts (`part` null) are pooled
from the rows: every case weighs the same, intervals keep each part's share (`stratified.py`),
differences to the baseline are paired by case. What a part withholds or did not measure has no
number over all parts either, and parts that are missing or not finished are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adhere import __version__
from adhere.chat import Outcome
from adhere.experiments.benchmark_parts import (
    MEASURES,
    SUBSETS,
    Arm,
    Part,
    Told,
    columns,
    read_part,
)
from adhere.experiments.benchmark_words import benchmark_headline, benchmark_notes
from adhere.experiments.metrics import LEVEL, NOTHING, Estimate
from adhere.experiments.stratified import Stratum, pooled, stratum
from adhere.experiments.table import spread
from adhere.records import SCHEMA_VERSION

_SAME = ("alpha", "na_policy", "judge")  # without these numbers cannot be pooled

Chosen = Mapping[str, Mapping[Arm, list[Told]]]  # part, arm -> its rows of one subset


def benchmark_table(parts: Mapping[str, Path], *, name: str, seed: int = 0) -> dict[str, Any]:
    """The table over all parts. `parts` are all that belong to the benchmark, run or not.

    Raises BadInput when a part's files are damaged.
    """
    read = {part: read_part(part, path) for part, path in parts.items()}
    found = [part for part in read.values() if part is not None]
    settings, differing = _settings(found)
    held = tuple(m for m in MEASURES if any(m in part.held for part in found))
    unmeasured = tuple(m for m in MEASURES if any(m in part.unmeasured for part in found))
    baseline = str(settings.get("baseline") or "")
    apart = [key for key in _SAME if key in differing]
    early = any(part.summary.get("until_ci") for part in found)
    table: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "adhere_version": __version__,
        "name": name,
        "created": max((str(p.summary.get("created") or "") for p in found), default=""),
        "seed": seed,
        "confidence": LEVEL,
        "baseline": baseline,
        "settings": settings,
        "differing": differing,
        "not_pooled": ", ".join(apart),
        "stopped_early": early,
        "models": _models(found),
        "parts": [_part_facts(part, where, read[part]) for part, where in parts.items()],
        "incomplete": [
            {"part": part, "why": why} for part in parts if (why := _incomplete(read[part]))
        ],
        "withheld": {
            "measures": list(held),
            "parts": [part.name for part in found if part.held],
            "why": next(
                (str(p.summary["judge_trust"].get("why") or "") for p in found if p.held), ""
            ),
        },
        "unmeasured": list(unmeasured),
        "rows": [
            *_pooled_lines(
                found,
                baseline,
                seed,
                early=early,
                gone=MEASURES if apart else (*held, *unmeasured),
                held=held,
            ),
            *(line for part in found for line in part.lines()),
        ],
    }
    return {**table, "headline": benchmark_headline(table), "notes": benchmark_notes(table)}


# ---------------------------------------------------------------- what the parts are


def _settings(found: Sequence[Part]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings that all parts share, and by name those that differ, with each part's value."""
    every = {part.name: part.summary.get("settings") or {} for part in found}
    same, differing = {}, {}
    for key in dict.fromkeys(key for settings in every.values() for key in settings):
        values = {part: settings.get(key) for part, settings in every.items()}
        if all(value == next(iter(values.values())) for value in values.values()):
            same[key] = next(iter(values.values()))
        else:
            differing[key] = values
    return same, differing


def _models(found: Sequence[Part]) -> list[dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for part in found:
        for model in part.summary.get("models") or ():
            models.setdefault(str(model.get("name")), dict(model))
    return list(models.values())


def _part_facts(name: str, where: Path, part: Part | None) -> dict[str, Any]:
    if part is None:
        return {"name": name, "folder": where.name, "found": False}
    spec = part.summary["spec"]
    rules = spec.get("rules") or ()
    labels: dict[str, set[str]] = {}
    for rows in part.arms.values():
        for row in rows:
            labels.setdefault(row.label, set()).add(row.case)
    twins = (part.summary.get("judge_trust") or {}).get("twins") or {}
    return {
        "name": name,
        "folder": where.name,
        "found": True,
        "finished": part.finished,
        "spec": spec.get("name"),
        "digest": spec.get("digest"),
        "n_safety": sum(rule.get("kind") == "safety" for rule in rules),
        "n_behavioral": sum(rule.get("kind") == "behavioral" for rule in rules),
        "n_cases": len(set().union(*labels.values())) if labels else 0,
        "n_unsafe": len(labels.get("unsafe", ())),
        "n_safe": len(labels.get("safe", ())),
        "withheld": list(part.held),
        "unmeasured": list(part.unmeasured),
        "judge_auc": (twins.get("auc") or {}).get("value"),
        "spent": part.summary.get("spent"),
        "spent_cost": part.summary.get("spent_cost"),
        "currency": part.summary.get("currency"),
    }


def _incomplete(part: Part | None) -> str:
    """Why a part is not whole; empty when it is."""
    if part is None:
        return "not run yet"
    if part.finished:
        return ""
    stopped = "" if part.is_behind else part.summary.get("stopped")
    return f"not finished ({stopped})" if stopped else "not finished"


# ---------------------------------------------------------------- lines over all parts


def _pooled_lines(
    found: Sequence[Part],
    baseline: str,
    seed: int,
    *,
    early: bool,
    gone: Sequence[str],
    held: Sequence[str],
) -> list[dict[str, Any]]:
    arms = list(dict.fromkeys(arm for part in found for arm in part.arms))
    labels = {row.label for part in found for rows in part.arms.values() for row in rows}
    lines = []
    for subset in [s for s in SUBSETS if s == "all" or s in labels]:
        chosen = {
            part.name: {
                arm: [r for r in rows if subset in ("all", r.label)]
                for arm, rows in part.arms.items()
            }
            for part in found
        }
        numbers = _numbers(chosen, arms, baseline, seed)
        for arm in arms:
            line = _counts(subset, arm, {p: rows[arm] for p, rows in chosen.items() if arm in rows})
            line.update(numbers[arm])
            lines.append(line)
        lines += _control_lines(found, subset)
    for line in lines:
        line["withheld"] = list(held) or None
        for measure in (*gone, *(("sar_diff",) if "sar" in gone else ())):
            line.update(spread(measure, NOTHING))
            line.update({f"{measure}_{end}": None for end in ("worst", "best")})
        if "sar" in gone:
            line["sar_of_baseline_paired"] = None
        if early:  # a bootstrap does not know that the run chose when to stop
            for measure in (*MEASURES, "sar_diff"):
                line.update({f"{measure}_low": None, f"{measure}_high": None})
    return lines


def _control_lines(found: Sequence[Part], subset: str) -> list[dict[str, Any]]:
    """Controls over all parts, without intervals: each part's mean, weighted by its rows."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for part in found:
        for row in part.summary["rows"]:
            if row.get("control") and row.get("subset") == subset and row.get("n_scored"):
                by_name.setdefault(str(row["method"]), []).append(row)
    lines = []
    for name, rows in by_name.items():
        line = _counts(subset, ("", name), {})
        for key in ("n", "n_scored", "n_unscored", "n_failed"):
            line[key] = sum(row.get(key) or 0 for row in rows)
        nothing = {**spread("sar_diff", NOTHING), "sar_of_baseline_paired": None}
        for key in (*MEASURES, "share_empty", "share_refused", "share_cut"):
            line[key] = None
            if all(row.get(key) is not None for row in rows):
                line[key] = sum(row[key] * row["n_scored"] for row in rows) / line["n_scored"]
            if key in MEASURES:
                nothing.update({f"{key}_low": None, f"{key}_high": None})
        line.update(nothing, control=True, n_parts=len(rows), baseline="", n_paired=None)
        lines.append({**line, "n_cases_scored": line["n_scored"]})
    return lines


def _numbers(
    chosen: Chosen, arms: Sequence[Arm], baseline: str, seed: int
) -> dict[Arm, dict[str, Any]]:
    """Rates and differences of every arm. A part at a time, so that picks are drawn once."""
    rates: dict[Arm, list[list[Stratum]]] = {arm: [[], [], []] for arm in arms}
    moves: dict[Arm, list[Stratum]] = {arm: [] for arm in arms}
    before: dict[Arm, float] = dict.fromkeys(arms, 0.0)
    for part, by_arm in chosen.items():
        values = {arm: columns(rows) for arm, rows in by_arm.items()}
        cases = {row.case for rows in by_arm.values() for row in rows}
        for arm, measures in values.items():
            for place, column in enumerate(measures):
                rates[arm][place].append(stratum(part, column, cases, seed=seed))
            base = values.get((arm[0], baseline))
            if base is None or arm[1] == baseline:
                continue
            ours, theirs = ({c: sum(v) / len(v) for c, v in x[2].items()} for x in (measures, base))
            shared = sorted(ours.keys() & theirs.keys())
            difference = {case: [ours[case] - theirs[case]] for case in shared}
            moves[arm].append(stratum(part, difference, cases, seed=seed))
            before[arm] += sum(theirs[case] for case in shared)
    out: dict[Arm, dict[str, Any]] = {}
    for arm in arms:
        line: dict[str, Any] = {}
        for name, strata in zip(MEASURES, rates[arm], strict=True):
            line.update(spread(name, pooled(strata)))
        paired = sum(found.count for found in moves[arm])
        move: Estimate = pooled(moves[arm], (-1.0, 1.0))
        line.update(spread("sar_diff", move))
        line["baseline"] = baseline if moves[arm] else ""
        line["n_paired"] = paired
        line["sar_of_baseline_paired"] = before[arm] / paired if paired else None
        line["n_cases_scored"] = sum(found.count for found in rates[arm][2])
        out[arm] = line
    return out


def _counts(subset: str, arm: Arm, by_part: Mapping[str, list[Told]]) -> dict[str, Any]:
    """Everything of a line that needs no resampling, under the names of summary.json."""
    rows = [row for found in by_part.values() for row in found]
    outcomes = [row.outcome for row in rows]
    answered = [r for r in rows if r.outcome in (Outcome.SCORED, Outcome.UNSCORED)]
    asides = (Outcome.UNSCORED, Outcome.TRUNCATED, Outcome.FILTERED)
    true, paper = (
        _mean_usage([getattr(row, field) for row in rows]) for field in ("true_usage",
                                                                         "paper_usage")
    )  # fmt: skip
    return {
        "part": None,
        "subset": subset,
        "model": arm[0],
        "method": arm[1],
        "variant": _variant(rows),
        "variants": {part: name for part, found in by_part.items() if (name := _variant(found))},
        "control": False,
        "oracle": any(row.oracle for row in rows),
        "n_parts": sum(bool(found) for found in by_part.values()),
        "n": len(rows),
        "n_cases": sum(len({row.case for row in found}) for found in by_part.values()),
        "n_scored": outcomes.count(Outcome.SCORED),
        "n_unscored": sum(outcomes.count(outcome) for outcome in asides),
        "n_failed": outcomes.count(Outcome.FAILED),
        "n_truncated": outcomes.count(Outcome.TRUNCATED),
        "n_filtered": outcomes.count(Outcome.FILTERED),
        **_bounds(by_part),
        **{f"share_{flag}": _share(answered, flag) for flag in ("empty", "refused", "cut")},
        "prompt_tokens": true[0],
        "completion_tokens": true[1],
        "paper_prompt_tokens": paper[0],
        "paper_completion_tokens": paper[1],
    }


def _mean_usage(found: Sequence[tuple[float, float] | None]) -> tuple[float | None, float | None]:
    used = [pair for pair in found if pair is not None]
    if not used:
        return None, None
    prompt, completion = (round(sum(v) / len(used), 3) for v in zip(*used, strict=True))
    return prompt, completion


def _share(rows: Sequence[Told], flag: str) -> float | None:
    return sum(getattr(row, flag) for row in rows) / len(rows) if rows else None


def _variant(rows: Sequence[Told]) -> str:
    """Which form of the method ran, and how often the model did not do its part of it."""
    names = "; ".join(dict.fromkeys(row.variant for row in rows if row.variant))
    unclosed = sum(row.unclosed for row in rows)
    if not unclosed:
        return names
    return f"{names + '; ' if names else ''}{unclosed} of {len(rows)} thoughts never closed"


def _bounds(by_part: Mapping[str, list[Told]]) -> dict[str, float | None]:
    """Each rate if every row without a verdict counted 0 (`_worst`), and if it counted 1."""
    out: dict[str, float | None] = {}
    for end, missing in (("worst", 0.0), ("best", 1.0)):
        cases: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for part, rows in by_part.items():
            for row in rows:
                cases.setdefault((part, row.case), []).append(row.scores or (missing,) * 3)
        for place, name in enumerate(MEASURES):
            means = [sum(v[place] for v in found) / len(found) for found in cases.values()]
            out[f"{name}_{end}"] = sum(means) / len(means) if means else None
    return out
