"""The numbers of a run for pairs: how many came of how many prompts, how contrastive they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from adhere.chat import Usage
from adhere.experiments.stepwise.rows import FAILED, WAITING
from adhere.experiments.trust import judge_trust
from adhere.records import SCHEMA_VERSION
from adhere.spec import looks_like_refusal
from adhere.training.contrast import summary as contrast_summary
from adhere.training.recipes.clair.inputs import KIND, ClairInputs
from adhere.training.recipes.clair.making import CLEAN, DROPPED, PAIR
from adhere.training.recipes.clair.refusing import REASONS, violated
from adhere.training.recipes.clair.rows import Pair
from adhere.training.recipes.clair.seats import not_apart

Row = Mapping[str, Any]

_UNUSABLE = ("draft_", "too_few")  # how the reasons of rows begin that had nothing to mend


def summarize(
    inputs: ClairInputs,
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    record: Mapping[str, Any],
    *,
    planned: int,
    spent: Mapping[str, Usage],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary of a run. `planned`: rows of the plan; `spent`: by model label."""
    outcomes = Counter(row["outcome"] for row in rows)
    dropped = Counter(row["reason"] for row in rows if row["outcome"] == DROPPED)
    refused = Counter(tried["reason"] for row in rows for tried in row["tries"])
    unusable = sum(n for reason, n in dropped.items() if reason.startswith(_UNUSABLE))
    usable = outcomes[PAIR] + outcomes[DROPPED] - unusable
    plan = inputs.plan
    contrasts = contrast_summary((pair.contrast for pair in pairs), seed=plan.sampling.seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "set": plan.set,
        "spec": {
            "name": inputs.spec.name,
            "version": str(inputs.spec.version),
            "digest": inputs.spec.digest,
        },
        "planned": planned,
        "pairs": outcomes[PAIR],
        "clean": outcomes[CLEAN],
        "dropped": outcomes[DROPPED],
        "failed": outcomes[FAILED],
        "unscored": sum(map(_undecided, rows)),  # of those dropped
        "waiting": planned - sum(outcomes[o] for o in (PAIR, CLEAN, DROPPED, FAILED)),
        # Of the rows that gave something to mend, or to compare: usable answers, not all clean.
        "yield": _share(outcomes[PAIR], usable),
        "yield_of": usable,
        "dropped_by_reason": _in_order(dropped),
        "tries": sum(refused.values()) + _accepted(rows),
        "refused_tries_by_reason": _in_order(refused),
        "contrast": contrasts.as_json(),
        "edit_needed": _needed(pairs),
        "rules": _rules(inputs, rows, pairs),
        "undecided": list(inputs.common.judge.undecided(inputs.spec)),
        "refusals": {
            "chosen": sum(looks_like_refusal(p.row.chosen) for p in pairs),
            "rejected": sum(looks_like_refusal(p.row.rejected) for p in pairs),
        },
        "trust": _trust(inputs, rows, record),
        "not_apart": not_apart(record),
        "models": _models(record),
        "settings": {k: v for k, v in record["identity"].items() if k != "models"},
        "spent": {label: used.to_dict() for label, used in spent.items()},
        **facts,
    }


def _undecided(row: Row) -> bool:
    """Whether a row was dropped because a text of it could not be judged whole."""
    if row["outcome"] != DROPPED:
        return False
    lost = row["reason"] == "too_few" and any("unscored" in text for text in row["texts"])
    return lost or row["reason"] in ("draft_unscored", "unscored")


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _in_order(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts[reason] for reason in REASONS if counts.get(reason)}


def _accepted(rows: Sequence[Row]) -> int:
    """Tries whose revision was taken, also where the pair was there already (`duplicate`)."""
    ends = (PAIR, DROPPED)
    return sum(row["revision"] is not None and row["outcome"] in ends for row in rows)


def _needed(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The mean share of the edits that mended rules needed, over the pairs where checks can say."""
    found = (pair.row.extras["edit"]["needed"] for pair in pairs)
    shares = [share for share in found if share is not None]
    return {"mean": sum(shares) / len(shares) if shares else None, "n": len(shares)}


def _rules(
    inputs: ClairInputs, rows: Sequence[Row], pairs: Sequence[Pair]
) -> dict[str, dict[str, int]]:
    """Per rule: how many first answers were marked and violate it, and what pairs do about it."""
    drafts = [row["texts"][0] for row in rows if row["texts"]]
    first = [draft["marks"] for draft in drafts if "marks" in draft]
    out = {}
    for rule in inputs.spec.rules:
        marked = [marks for marks in first if rule.id in marks]
        before = [rule.id in violated(pair.before) for pair in pairs]
        after = [rule.id in violated(pair.after) for pair in pairs]
        both = list(zip(before, after, strict=True))
        out[rule.id] = {
            "drafts": len(marked),
            "drafts_violating": sum(rule.id in violated(marks) for marks in marked),
            "mended": sum(b and not a for b, a in both),
            "still_violated": sum(b and a for b, a in both),
            "newly_violated": sum(a and not b for b, a in both),
        }
    return out


def _trust(
    inputs: ClairInputs, rows: Sequence[Row], record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """How far the judge agrees with the checks on the answers that it marked; None without one."""
    judge = record.get("judge")
    if not judge:
        return None
    marked = [
        {"suite": row["suite"], "case": row["case"], "model": "", "method": "", **text}
        for row in rows
        for text in (*row["texts"], *([row["revision"]] if row["revision"] else []))
        if "marks" in text
    ]
    seed = inputs.plan.sampling.seed
    found = judge_trust(marked, judge["identity"], None, inputs.spec, seed=seed)
    return {k: found[k] for k in ("judge", "twins", "withheld", "why")} if found else None


def _models(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = [{"role": "policy", "name": n, **f} for n, f in record.get("models", {}).items()]
    for role in ("reviser", "judge"):
        if facts := record.get(role):
            models.append({"role": role, "name": facts["model"], **facts})
    return models


__all__ = ["WAITING", "summarize"]
