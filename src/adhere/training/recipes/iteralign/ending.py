"""What a round may come to, and when there is no further one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adhere.training.recipes.iteralign.rounds_plan import IteratePlan

TRAINED, CLEAN, UNDECIDED, NO_RULES = "trained", "clean", "undecided", "no_rules"
NO_PAIRS, NOT_TRAINED, ROLLED_BACK = "no_pairs", "not_trained", "rolled_back"

Record = Mapping[str, Any]


def why_ended(
    plan: IteratePlan, records: Sequence[Record], first_look: Record | None, batches: int
) -> str:
    """Why there is no further round, in words; empty while there is one.

    `records`: the rounds at their end; `first_look`: the first model on the held-out prompts.
    """
    if records and records[-1]["state"] == NOT_TRAINED:
        return f"the training of round {records[-1]['round']} did not come to its end"
    if [r["state"] for r in records[-2:]] == [ROLLED_BACK] * 2:
        return "two models in a row stopped talking sense"
    if plan.rounds is not None and len(records) >= plan.rounds:
        return f"{plan.rounds} rounds were asked for"
    if plan.patience is not None and (why := _impatient(plan.patience, records, first_look)):
        return why
    return "the pool is used up" if len(records) >= batches else ""


def _impatient(patience: int, records: Sequence[Record], first_look: Record | None) -> str:
    latest = records[-patience:]
    if len(latest) == patience and all(r["state"] == CLEAN for r in latest):
        return f"no failure was found in {patience} rounds"
    looks = [r["look"]["bad_rate"]["value"] for r in records if r.get("look")]
    rates = [value for value in looks if value is not None]
    first = first_look["bad_rate"]["value"] if first_look else None
    if first is None or len(rates) < patience:
        return ""
    before = min([first, *rates[:-patience]])
    if before > 0 and min(rates[-patience:]) >= before:
        return f"{patience} models in a row were no better on the held-out prompts"
    return ""
