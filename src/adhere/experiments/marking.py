"""Judging rows: from an answered row to one with marks, or with the reason why it has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adhere.chat import Answer, Case, Models, Outcome, Unscored
from adhere.errors import AdhereError, Bug, DiskFull, Stopped
from adhere.experiments.answering import NO_MARKS, NOT_JUDGED, error_facts
from adhere.experiments.scorer import Scorer
from adhere.judging import Judge
from adhere.spec import Specification

JUDGE_ROLE = "judge"
_NO_ANSWER = (Outcome.FAILED, Outcome.TRUNCATED, Outcome.FILTERED)


async def mark_row(
    row: Mapping[str, Any],
    case: Case,
    judge: Judge,
    spec: Specification,
    scorer: Scorer,
    models: Models,
) -> dict[str, Any]:
    """The row with its verdict. Raises DiskFull, BadInput and Stopped only."""
    try:
        verdict = await judge.judge(case, Answer(row["text"]), spec, models)
    except (DiskFull, Stopped):
        raise
    except AdhereError as caught:
        verdict = Unscored(f"the judge failed: {caught.message}", caught)
    except Exception as caught:
        reason = f"the judge failed: {type(caught).__name__}: {caught}"
        verdict = Unscored(reason, Bug(reason))
    out = {**row, **NO_MARKS, "judged": True, "error": None}
    if verdict.usage.calls:
        out["judge_usage"] = verdict.usage.to_dict()
    out["judge_reasks"] = verdict.reasks
    out["judged_cut"] = len(row["text"]) > getattr(judge, "max_chars", len(row["text"]))
    if isinstance(verdict, Unscored):
        out.update(outcome=Outcome.UNSCORED.value, reason=verdict.reason)
        if isinstance(verdict.error, AdhereError):
            out["error"] = {**error_facts(verdict.error), "role": JUDGE_ROLE}
        return out
    out.update(outcome=Outcome.SCORED.value, reason="")
    out["marks"], out["deciders"], out["mark_reasons"] = {}, {}, {}
    for rule, (mark, decider, reason) in verdict.marks.items():
        out["marks"][rule] = mark
        out["deciders"][rule] = decider
        out["mark_reasons"][rule] = reason
    out["twins"] = {k: v.mark.value for k, v in verdict.twins.items()}
    out["safety"], out["behavioral"], out["score"] = scorer.row(out["marks"])
    return out


def same_answer(row: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether a row on record is about the very answer that is given, and as good."""
    facts = (
        "text",
        "messages",
        "label",
        "reference",
        "judged_prompt",
        "judge_note",
        "finish_reason",
    )
    had_none = row["outcome"] in _NO_ANSWER
    return had_none == (given["outcome"] in _NO_ANSWER) and all(
        row.get(fact) == given.get(fact) for fact in facts
    )


def waits_for_judge(row: Mapping[str, Any]) -> bool:
    """Whether a row has an answer that has yet to be judged, or judged again after a fault."""
    error = row.get("error") or {}
    if error.get("role") == JUDGE_ROLE:
        return bool(error["retry"])
    return not row.get("judged", True) and row["reason"] == NOT_JUDGED
