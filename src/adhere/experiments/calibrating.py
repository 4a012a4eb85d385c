"""How far a judge agrees with people: from human labels to `calibration.json`.

The judge's marks come from a run that holds the labeled answers, or the judge is asked about them
here, in a run folder of its own (resumable, with a report). Without a judge model the checks are
calibrated: code can be wrong about what a rule means, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.chat import Case, Mark, Outcome, digest
from adhere.errors import BadInput
from adhere.experiments.finishing import CALIBRATION_FILE
from adhere.experiments.given import given_row
from adhere.experiments.inputs import common_inputs
from adhere.experiments.pairing import Run as FinishedRun
from adhere.experiments.phases import Listener
from adhere.experiments.plan import JudgingPlan
from adhere.experiments.run import Run
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.trust import judge_trust, rule_digest
from adhere.judging.calibration import Calibration, Labeled, calibrate
from adhere.judging.correction import LANG_REICZIGEL
from adhere.records import SCHEMA_VERSION, RunFolder
from adhere.records.run_folder import SUMMARY_FILE, write_atomic
from adhere.spec import load_spec
from adhere.suites import Suite
from adhere.suites.labels_file import answer_id, read_labels
from adhere.suites.responses_file import GivenAnswer

SUITE = "labels"


@dataclass(frozen=True)
class Calibrated:
    """A calibration, where it was written, and what could not be used."""

    path: Path
    data: Mapping[str, Any]
    overall: Calibration
    rules: Mapping[str, Calibration]
    notes: tuple[str, ...]


async def judge_labels(plan: JudgingPlan, listener: Listener | None = None) -> RunResult:
    """Ask the plan's judge about the labeled answers (`plan.responses` is the labels file)."""
    assert plan.responses is not None
    labels = read_labels(plan.responses)
    assert plan.spec is not None  # a judging plan has one
    spec = load_spec(plan.spec)
    for label in labels:
        if label.rule not in spec.by_id:
            raise BadInput(
                f"{plan.responses}: found a label of the rule {label.rule!r}; expected one of "
                f"{', '.join(spec.by_id)}",
                hint=f"Labels name rules by their ids in {plan.spec}.",
            )
    cases: dict[str, Case] = {}
    answers: dict[str, GivenAnswer] = {}
    for label in labels:
        case_id = digest([m.to_dict() for m in label.messages])[:16]
        case = cases.setdefault(case_id, Case(case_id, label.messages))
        answer = answer_id(label.messages, label.response)
        if answer not in answers:
            repeat = sum(a.case.id == case_id for a in answers.values())
            answers[answer] = GivenAnswer(case, label.response, "labeled", "labeled", repeat)
    suite = Suite(SUITE, tuple(cases.values()))
    inputs = common_inputs(plan, [suite], [])
    rows = [given_row(SUITE, answer) for answer in answers.values()]
    given = {(SUITE, r["case"], r["model"], r["method"], r["repeat"]): r for r in rows}
    source = f"labels {plan.responses}"
    return await Run(inputs, listener or Silent(), given, source=source).run()


def calibrate_run(labels_file: Path, run: Path) -> Calibrated:
    """Compare the marks in a run with human labels; write calibration.json and mend the report.

    Raises BadInput when the run holds none of the labeled answers.
    """
    labels = read_labels(labels_file)
    finished = FinishedRun(run)
    judge = finished.summary["settings"]["judge"]
    by_model = judge != "checks"
    rows = [row for arm in finished.arms.values() for row in arm]
    said = _said(rows, by_model)
    pairs: dict[str, list[Labeled]] = {}
    unscored = missing = 0
    for label in labels:
        answer = answer_id(label.messages, label.response)
        marks = said.get(answer)
        if marks is None:
            missing += 1
        elif label.rule not in marks:
            unscored += 1
        else:
            pair = Labeled(
                truth=label.mark is Mark.NO,
                said=marks[label.rule] == Mark.NO,
                weight=label.weight,
                stratum=label.stratum,
                group=answer,
            )
            pairs.setdefault(label.rule, []).append(pair)
    if by_model and not any(marks for marks in said.values()):
        raise BadInput(f"{run}: its judge has marked nothing yet")
    if not pairs:
        raise BadInput(
            f"{labels_file}: none of its {len(labels)} labels is of an answer and rule that "
            f"{judge} marked in {run}",
            hint="Label the run with `adhere label`, or let a judge mark the labeled answers: "
            "`adhere calibrate judge --labels F --spec S --judge M`.",
        )
    every = [pair for found in pairs.values() for pair in found]
    overall = calibrate(every)
    rules = {rule: calibrate(found) for rule, found in pairs.items()}
    data = {
        "schema_version": SCHEMA_VERSION,
        "judge": judge,
        "spec_digest": finished.summary["spec"]["digest"],
        "rule_digests": {r.id: rule_digest(r) for r in finished.spec.rules if r.id in rules},
        "labels": labels_file.name,
        "labels_digest": hashlib.sha256(labels_file.read_bytes()).hexdigest(),
        "n": len(every),
        "n_unscored": unscored,
        "n_not_in_run": missing,
        "weighted": len({pair.weight for pair in every}) > 1,
        "overall": overall.to_dict(),
        "rules": {rule: found.to_dict() for rule, found in rules.items()},
        "theorem": LANG_REICZIGEL,
    }
    path = run / CALIBRATION_FILE
    _write(run, path, data, rows, finished)
    notes = []
    if unscored:
        notes.append(f"{unscored} labels are of answers that the judge left unscored.")
    if missing:
        notes.append(f"{missing} labels are of answers that this run does not hold.")
    return Calibrated(path, data, overall, rules, tuple(notes))


def _said(rows: Sequence[Mapping[str, Any]], by_model: bool) -> dict[str, dict[str, str]]:
    """Marks by answer and rule: the judge's, also on twin rules; of the checks without a judge."""
    from adhere.chat import messages_from

    out: dict[str, dict[str, str]] = {}
    for row in rows:
        marks: dict[str, str] = {}
        if row["outcome"] == Outcome.SCORED:
            marks = {
                rule: mark
                for rule, mark in row["marks"].items()
                if (row["deciders"].get(rule) != "check") == by_model
            }
            marks.update(row.get("twins") or {})
        out[answer_id(messages_from(row["messages"]), row["text"])] = marks
    return out


def _write(
    run: Path,
    path: Path,
    data: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    finished: FinishedRun,
) -> None:
    """The calibration, and the run's summary and report with it."""
    from adhere.reporting import write_report

    with RunFolder(run):
        write_atomic(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
        file = run / SUMMARY_FILE
        summary = json.loads(file.read_text(encoding="utf-8"))
        seed = summary["settings"].get("seed", 0)
        trust = judge_trust(rows, data["judge"], data, finished.spec, seed=seed)
        summary["judge_trust"] = trust
        write_atomic(file, json.dumps(summary, indent=1, allow_nan=False) + "\n")
        write_report(run)
