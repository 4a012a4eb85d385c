"""Judging answers that exist already: out of a file, or out of an earlier run.

The result is a run folder like any other, with the same table and report; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adhere.chat import Case, Outcome, messages_from
from adhere.errors import BadInput
from adhere.experiments.answering import NO_MARKS, NOT_JUDGED
from adhere.experiments.inputs import common_inputs
from adhere.experiments.pairing import Run as EarlierRun
from adhere.experiments.phases import Listener
from adhere.experiments.plan import JudgingPlan
from adhere.experiments.run import Run
from adhere.experiments.starts import RunResult, Silent
from adhere.records import SCHEMA_VERSION, read_run_record, row_key
from adhere.records.run_folder import Key
from adhere.spec import looks_like_refusal
from adhere.suites import Suite
from adhere.suites.responses_file import GivenAnswer, load_responses

_SCORING = ("alpha", "na_policy", "baseline")  # as in the earlier run, unless given
Given = dict[Key, dict[str, Any]]


async def judge_answers(plan: JudgingPlan, listener: Listener | None = None) -> RunResult:
    """Judge (or go on judging) the answers of a plan. Raises AdhereError."""
    if plan.run is not None:
        run = plan.run
        plan = _like(plan, run)
        suites, given = _of_run(run)
        models = (read_run_record(run) or {}).get("models", {})
        source = f"run {run}"
    else:
        assert plan.responses is not None
        suites, given = _of_file(plan.responses)
        models = {}
        source = f"responses {plan.responses}"
    inputs = common_inputs(plan, suites, [])
    return await Run(inputs, listener or Silent(), given, models, source).run()


def _like(plan: JudgingPlan, run: Path) -> JudgingPlan:
    """The plan with what the earlier run decided: its sampling, and its marks to look at first."""
    record = read_run_record(run)
    if record is None:
        raise BadInput(
            f"--run: {run} is no run folder",
            hint="Give a folder that `adhere eval` or `adhere judge` wrote.",
        )
    if run.resolve() == plan.out.resolve():
        raise BadInput(
            f"--out: {plan.out} is the run itself; its marks would be lost",
            hint="Give a new folder with --out.",
        )
    kept = {k: v for k, v in record.get("operational", {}).items() if k in _SCORING}
    fields = {
        **dict(plan),
        **{k: v for k, v in kept.items() if k not in plan.model_fields_set},
        "sampling": record["identity"]["sampling"],
        "reuse": run,
    }
    return JudgingPlan(**fields)


def _of_run(run: Path) -> tuple[list[Suite], Given]:
    earlier = EarlierRun(run)
    cases: dict[str, dict[str, Case]] = {}
    given: Given = {}
    for rows in earlier.arms.values():
        for row in rows:
            case = Case(
                row["case"],
                messages_from(row["messages"]),
                row["label"],
                row.get("reference"),
                row.get("judged_prompt"),
                row.get("judge_note"),
            )
            cases.setdefault(row["suite"], {}).setdefault(row["case"], case)
            given[row_key(row)] = _unjudged(row)
    if not given:
        raise BadInput(f"{run}: the run holds no answers yet")
    return [Suite(name, tuple(found.values())) for name, found in cases.items()], given


def _unjudged(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it was before it was judged; one without an answer stays as it is."""
    error = row["error"] or {}
    answered = row["outcome"] in (Outcome.SCORED, Outcome.UNSCORED) and row["text"].strip()
    if not answered:
        return dict(row)
    kept_error = None if error.get("role") == "judge" else row["error"]
    return {
        **row, **NO_MARKS, "judged": False, "outcome": Outcome.UNSCORED.value,
        "reason": NOT_JUDGED, "error": kept_error,
    }  # fmt: skip


def _of_file(path: Path) -> tuple[list[Suite], Given]:
    found = load_responses(path)
    rows = [given_row(found.suite.name, answer) for answer in found.answers]
    return [found.suite], {row_key(row): row for row in rows}


def given_row(suite: str, answer: GivenAnswer) -> dict[str, Any]:
    """The row of an answer that exists already, before it is judged."""
    case = answer.case
    empty = not answer.text.strip()
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite,
        "case": case.id,
        "label": case.label,
        "model": answer.model,
        "method": answer.method,
        "variant": "",
        "oracle": False,
        "repeat": answer.repeat,
        "messages": [m.to_dict() for m in case.messages],
        "prompt": case.prompt,
        "reference": case.reference,
        "judged_prompt": case.judged_prompt,
        "judge_note": case.judge_note,
        "text": answer.text,
        "thought": "",
        "steps": [],
        "outcome": Outcome.UNSCORED.value,
        "reason": "the answer is empty" if empty else NOT_JUDGED,
        "error": None,
        "finish_reason": "stop",
        "cut": False,
        "refused": looks_like_refusal(answer.text),
        "empty": empty,
        **NO_MARKS,
        "judged": empty,
        "usage": {},
        "paper_usage": {},
        "facts": {},
        "seconds": 0.0,
    }
