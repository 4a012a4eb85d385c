"""How far a run's judge can be trusted: twin rules, a calibration by people, corrected rates.

Below an AUC of `LEAST_AUC` on the twin rules the judged numbers are withheld from the headline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adhere.chat import Mark, digest
from adhere.errors import BadInput
from adhere.judging.calibration import Calibration, Labeled, calibrate
from adhere.judging.correction import corrected_rate
from adhere.records import SCHEMA_VERSION
from adhere.spec import Rule, Specification

LEAST_AUC = 0.75
SELF_JUDGED = "the judge is a model that also answers: it flatters itself"
_RESAMPLES = 300

Row = Mapping[str, Any]


def read_calibration(path: Path) -> dict[str, Any]:
    """What `adhere calibrate judge` wrote. Raises BadInput."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: found no calibration ({error}); expected a file that "
            "`adhere calibrate judge` wrote"
        ) from None
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise BadInput(f"{path}: found no calibration of schema version {SCHEMA_VERSION}")
    try:
        for item in (data["overall"], *data["rules"].values()):
            Calibration.from_dict(item)
        str(data["judge"])
        dict(data["rule_digests"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: the calibration lacks the field {error}") from None
    return data


def check_calibration(calibration: Mapping[str, Any] | None, judge: str) -> None:
    """Refuse the calibration of another judge, before anything is asked. Raises BadInput."""
    if calibration is not None and calibration["judge"] != judge:
        raise BadInput(
            f"the calibration is of the judge {calibration['judge']!r}; this run's is {judge!r}",
            hint="Calibrate this judge: `adhere calibrate judge --labels F --run RUN`.",
        )


def self_judged(record: Mapping[str, Any]) -> bool:
    """Whether a run's judge has the name and weights of a model that answers in it."""

    def weights(identity: str) -> tuple[str, ...]:
        parts = identity.split(" ")
        return tuple(p for p in parts if p == parts[0] or p.startswith("weights="))

    judge = (record.get("judge") or {}).get("model_identity")
    answering = [facts["identity"] for facts in record.get("models", {}).values()]
    return judge is not None and weights(judge) in [weights(who) for who in answering]


def rule_digest(rule: Rule) -> str:
    """What a rule's own calibration holds for: an edited rule is another one."""
    return digest([rule.kind, rule.text])[:16]


def judge_trust(
    rows: Sequence[Row],
    judge: str,
    calibration: Mapping[str, Any] | None,
    spec: Specification,
    *,
    seed: int,
) -> dict[str, Any] | None:
    """What stands beside a judge's numbers; None when checks alone judged.

    Raises BadInput when the calibration is of another judge.
    """
    check_calibration(calibration, judge)
    if not any(who != "check" for row in rows for who in row["deciders"].values()) and not any(
        row.get("twins") for row in rows
    ):
        return None
    twins = _twins(rows, seed)
    auc = twins["auc"]["value"] if twins else None
    withheld = auc is not None and auc < LEAST_AUC
    why = (
        f"On rules that code decides, this judge's AUC is {auc:.2f}, below {LEAST_AUC}: what it "
        "says of the other rules is no measurement."
        if withheld
        else ""
    )
    return {
        "judge": judge,
        "twins": twins,
        "calibration": dict(calibration) if calibration else None,
        "corrected": _corrected(rows, calibration, spec) if calibration else [],
        "withheld": withheld,
        "why": why,
    }


def _twins(rows: Sequence[Row], seed: int) -> dict[str, Any] | None:
    """Agreement of the judge with the checks, where both marked; clustered by case."""
    by_rule: dict[str, list[Labeled]] = {}
    asked = 0
    for row in rows:
        twins = row.get("twins") or {}
        asked += bool(twins)
        for rule, said in twins.items():
            if rule in row["marks"]:
                label = Labeled(
                    truth=row["marks"][rule] == Mark.NO,
                    said=said == Mark.NO,
                    group=f"{row['suite']} {row['case']}",
                )
                by_rule.setdefault(rule, []).append(label)
    if not by_rule:
        return None
    every = [label for labels in by_rule.values() for label in labels]
    whole = calibrate(every, seed=seed, resamples=_RESAMPLES).to_dict()
    rules = []
    for rule, labels in by_rule.items():
        found = calibrate(labels, seed=seed, resamples=_RESAMPLES).to_dict()
        measures = {
            k: found[k] for k in ("agreement", "sensitivity", "specificity", "auc", "kappa")
        }
        rules.append(
            {"rule": rule, "n": len(labels), "n_violated": found["n_violated"], **measures}
        )
    return {**whole, "n_rows": asked, "rules": rules}


def _corrected(
    rows: Sequence[Row], calibration: Mapping[str, Any], spec: Specification
) -> list[dict[str, Any]]:
    """Rates of following, corrected for how the judge errs, per rule that it decided."""
    same = {r.id for r in spec.rules if calibration["rule_digests"].get(r.id) == rule_digest(r)}
    said: dict[tuple[str, str, str, str], list[bool]] = {}
    cases: dict[tuple[str, str, str, str], set[str]] = {}
    for row in rows:
        for rule, mark in row["marks"].items():
            if row["deciders"].get(rule) not in (None, "check"):
                key = (row["suite"], row["model"], row["method"], rule)
                said.setdefault(key, []).append(mark == Mark.NO)
                cases.setdefault(key, set()).add(row["case"])
    out = []
    for (suite, model, method, rule), marks in said.items():
        of_rule = calibration["rules"].get(rule) if rule in same else None
        known = Calibration.from_dict(of_rule or calibration["overall"])
        n = len(cases[suite, model, method, rule])  # repeats of a case are no further evidence
        violated = sum(marks) / len(marks)
        got = corrected_rate(violated * n, n, known)
        follows = [None if x is None else 1 - x for x in (got.value, got.high, got.low)]
        out.append(
            {
                "suite": suite,
                "subset": "all",
                "model": model,
                "method": method,
                "rule": rule,
                "n": n,
                "raw": 1 - violated,
                "value": follows[0],
                "low": follows[1],
                "high": follows[2],
                "method_name": got.method_name if not got.reason else got.reason,
                "calibrated_on": rule if of_rule else "all rules together",
            }
        )
    return out
