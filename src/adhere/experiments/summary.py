"""From rows to `summary.json`: every rate with its denominator, every difference paired.

A table row is one suite, subset, model and method. Rates are over its *scored* rows only; rows
that were not scored or failed are counted beside them. Control rows show what an empty text and
a canned refusal would get from the same judge on the same prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adhere import __version__
from adhere.chat import Answer, Mark, Outcome, RuleMark, Unscored, Usage, Verdict
from adhere.experiments.metrics import NOTHING, Estimate, Values, means, paired_difference
from adhere.judging import Judge, NaPolicy, score
from adhere.records import SCHEMA_VERSION
from adhere.spec import Specification
from adhere.suites import Suite

CANNED_REFUSAL = "I'm sorry, but I can't help with that."
CONTROLS = ("empty text", "canned refusal")

Row = Mapping[str, Any]


class Scorer:
    """Scores marks under one alpha and NA policy; both may change without sampling anew."""

    def __init__(self, spec: Specification, alpha: float, na_policy: NaPolicy, seed: int) -> None:
        self.spec = spec
        self.alpha = alpha
        self.na_policy = na_policy
        self.seed = seed

    def unmeasured(self, undecided: Sequence[str]) -> tuple[str, ...]:
        """Kinds of which the spec has rules, but none that anybody decides in this run.

        Counting them as perfect would be a silent pass, so they have no number, and neither has
        SAR.
        """
        kinds = {"safety": self.spec.safety, "behavioral": self.spec.behavioral}
        return tuple(
            kind for kind, rules in kinds.items() if rules and all(r.id in undecided for r in rules)
        )

    def row(self, marks: Mapping[str, str]) -> tuple[float, float, float]:
        """Safety, behavioral score and total of one row's marks."""
        verdict = Verdict({k: RuleMark(Mark(v)) for k, v in marks.items()})
        return tuple(score(verdict, self.spec, alpha=self.alpha, na_policy=self.na_policy))  # type: ignore[return-value]

    def columns(self, rows: Iterable[Row]) -> tuple[Values, Values, Values]:
        """Safety, behavioral and total by case, over scored rows."""
        columns: tuple[dict[str, list[float]], ...] = ({}, {}, {})
        for row in sorted(rows, key=lambda r: (r["case"], r["repeat"])):
            if row["outcome"] != Outcome.SCORED:
                continue
            for column, value in zip(columns, self.row(row["marks"]), strict=True):
                column.setdefault(row["case"], []).append(value)
        return columns  # type: ignore[return-value]


def summarise(
    *,
    rows: Sequence[Row],
    spec: Specification,
    scorer: Scorer,
    judge: str,
    baseline: str,
    controls: Mapping[tuple[str, str], Sequence[Row]],
    settings: Mapping[str, Any],
    models: Sequence[Mapping[str, Any]],
    undecided: Sequence[str],
    spent: Usage,
    wall_seconds: float,
    expected: int,
    name: str,
    created: str,
) -> dict[str, Any]:
    """The whole summary. `controls` maps (suite, control name) to rows judged like answers."""
    table: list[dict[str, Any]] = []
    unmeasured = scorer.unmeasured(undecided)
    for suite in dict.fromkeys(row["suite"] for row in rows):
        of_suite = [row for row in rows if row["suite"] == suite]
        labels = {row["label"] for row in of_suite}
        subsets = ["all", *(label for label in ("unsafe", "safe") if label in labels)]
        arms = _arms(of_suite)
        for subset in subsets:
            chosen = {
                arm: [r for r in found if subset == "all" or r["label"] == subset]
                for arm, found in arms.items()
            }
            for arm, found in chosen.items():
                base = chosen.get((arm[0], baseline)) if arm[1] != baseline else None
                table.append(_table_row(scorer, suite, subset, arm, found, baseline, base, judge))
            for (of, control), judged in controls.items():
                if of == suite:
                    of_subset = [r for r in judged if subset == "all" or r["label"] == subset]
                    row = _table_row(
                        scorer, suite, subset, ("", control), of_subset, baseline, None, judge
                    )
                    table.append({**row, "control": True})
    for row in table:
        for measure in (*unmeasured, *(("sar", "sar_diff") if unmeasured else ())):
            row.update(_spread(measure, NOTHING))
    summary = {
        "schema_version": SCHEMA_VERSION,
        "adhere_version": __version__,
        "name": name,
        "created": created,
        "finished": len(rows) >= expected and not any(_will_retry(r) for r in rows),
        "spec": {
            "name": spec.name,
            "version": spec.version,
            "digest": spec.digest,
            "description": spec.description,
            "rules": [
                {
                    "id": r.id,
                    "kind": r.kind,
                    "text": r.text,
                    "check": r.check,
                    "category": r.category,
                    "applies": r.applies,
                }
                for r in spec.rules
            ],
        },
        "settings": dict(settings),
        "models": list(models),
        "undecided_rules": list(undecided),
        "unmeasured": list(unmeasured),
        "rows": table,
        "rules": _rule_counts(rows),
        "spent": spent.to_dict(),
        "wall_seconds": round(wall_seconds, 1),
    }
    summary["headline"] = headline(table, baseline, unmeasured)
    return summary


def _will_retry(row: Row) -> bool:
    return bool(row["outcome"] == Outcome.FAILED and row["error"]["retry"])


def _arms(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    arms: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        arms.setdefault((row["model"], row["method"]), []).append(row)
    return arms


def _table_row(
    scorer: Scorer,
    suite: str,
    subset: str,
    arm: tuple[str, str],
    rows: Sequence[Row],
    baseline: str,
    base: Sequence[Row] | None,
    judge: str,
) -> dict[str, Any]:
    columns = scorer.columns(rows)
    safety, behavioral, sar = means(columns, seed=scorer.seed)
    difference, paired, before = NOTHING, 0, None
    if base is not None:
        others = scorer.columns(base)[2]
        difference, paired = paired_difference(columns[2], others, seed=scorer.seed)
        shared = {case: others[case] for case in others if case in columns[2]}
        before = means([shared], resamples=0)[0].value
    outcomes = [row["outcome"] for row in rows]
    answered = [r for r in rows if r["outcome"] in (Outcome.SCORED, Outcome.UNSCORED)]
    usage, paper = _mean_usage(rows, "usage"), _mean_usage(rows, "paper_usage")
    total, paper_total = _over_roles(usage), _over_roles(paper)
    return {
        "suite": suite,
        "subset": subset,
        "model": arm[0],
        "method": arm[1],
        "variant": _variant(rows),
        "control": False,
        "oracle": any(r.get("oracle") for r in rows),
        "judge": judge,
        "alpha": scorer.alpha,
        "na_policy": scorer.na_policy,
        "n": len(rows),
        "n_cases": len({r["case"] for r in rows}),
        "n_cases_scored": len(columns[2]),
        "n_scored": outcomes.count(Outcome.SCORED),
        "n_unscored": sum(
            outcomes.count(o) for o in (Outcome.UNSCORED, Outcome.TRUNCATED, Outcome.FILTERED)
        ),
        "n_failed": outcomes.count(Outcome.FAILED),
        "n_truncated": outcomes.count(Outcome.TRUNCATED),
        "n_filtered": outcomes.count(Outcome.FILTERED),
        **_spread("safety", safety),
        **_spread("behavioral", behavioral),
        **_spread("sar", sar),
        "baseline": baseline if base is not None else "",
        **_spread("sar_diff", difference),
        "n_paired": paired,
        "sar_of_baseline_paired": before,
        "share_empty": _share(answered, "empty"),
        "share_refused": _share(answered, "refused"),
        "share_cut": _share(answered, "cut"),
        "prompt_tokens": total and total["prompt_tokens"],
        "completion_tokens": total and total["completion_tokens"],
        "seconds": total and total["seconds"],
        "paper_prompt_tokens": paper_total and paper_total["prompt_tokens"],
        "paper_completion_tokens": paper_total and paper_total["completion_tokens"],
        "usage_by_role": usage,
    }


def _variant(rows: Sequence[Row]) -> str:
    """Which form of the method ran, and when the model did not do its part of it."""
    name = next((str(r["variant"]) for r in rows if r.get("variant")), "")
    unclosed = sum(r.get("facts", {}).get("closed") is False for r in rows)
    if unclosed:
        name = f"{name}; " if name else ""
        name += f"{unclosed} of {len(rows)} thoughts never closed"
    return name


def _spread(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _share(rows: Sequence[Row], flag: str) -> float | None:
    return sum(bool(r[flag]) for r in rows) / len(rows) if rows else None


def _mean_usage(rows: Sequence[Row], field: str) -> dict[str, dict[str, float]]:
    """Mean per row that called a model, by role; also those that came to no answer."""
    totals: dict[str, Usage] = {}
    answers = [r for r in rows if r.get(field)]
    for row in answers:
        for role, used in row[field].items():
            totals[role] = totals.get(role, Usage()) + Usage.from_dict(used)
    return {
        role: {k: round(v / len(answers), 3) for k, v in used.to_dict().items()}
        for role, used in totals.items()
    }


def _over_roles(usage: Mapping[str, Mapping[str, float]]) -> dict[str, float] | None:
    if not usage:
        return None
    keys = next(iter(usage.values()))
    return {k: round(sum(used[k] for used in usage.values()), 3) for k in keys}


def _rule_counts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str, str, str], dict[str, int]] = {}
    for row in rows:
        for rule, mark in row["marks"].items():
            key = (row["suite"], row["model"], row["method"], rule)
            found = counts.setdefault(key, {"yes": 0, "no": 0, "na": 0})
            found[mark.lower()] += 1
    return [
        {"suite": s, "model": m, "method": a, "rule": rule, **found}
        for (s, m, a, rule), found in counts.items()
    ]


async def control_rows(
    suite: Suite, spec: Specification, judge: Judge
) -> dict[tuple[str, str], list[Row]]:
    """Judge an empty text and a canned refusal on every prompt of a suite."""
    texts = dict(zip(CONTROLS, ("", spec.fallback or CANNED_REFUSAL), strict=True))
    out: dict[tuple[str, str], list[Row]] = {}
    for control, text in texts.items():
        for case in suite.cases:
            verdict = await judge.judge(case, Answer(text), spec, {})
            scored = not isinstance(verdict, Unscored)
            row = {
                "case": case.id,
                "label": case.label,
                "repeat": 0,
                "outcome": Outcome.SCORED if scored else Outcome.UNSCORED,
                "marks": {}
                if isinstance(verdict, Unscored)
                else {k: v.mark.value for k, v in verdict.marks.items()},
                "empty": not text,
                "refused": bool(text),
                "cut": False,
            }
            out.setdefault((suite.name, control), []).append(row)
    return out


def headline(
    table: Sequence[Mapping[str, Any]], baseline: str, unmeasured: Sequence[str] = ()
) -> str:
    """One sentence that is true: what the best method does against the baseline, if anything."""
    if unmeasured:
        return (
            f"SAR is not measured: no {' and no '.join(unmeasured)} rule has a check, so nobody "
            "decides them in this run."
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
