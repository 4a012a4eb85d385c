"""The sample run as a judge, a price file and an edited spec would leave it: every optional field.

The numbers of the twin rules and of the calibration are made up; counts and bounds add up.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from reporting import report_samples as plain

JUDGE = "openai/judge-7b@sha256:77aa joint v1"
JUDGED = ["no-diagnosis", "warm"]
CURRENCY = "USD"


def rows(seed: int = 1) -> list[dict[str, Any]]:
    """The sample's rows with the judge's marks, its twins and what it used."""
    rng = random.Random(f"judge {seed}")
    out = plain.rows(seed)
    for row in out:
        row["judged"] = True
        row["judge_usage"] = {}
        row["judge_reasks"] = 0
        if row["outcome"] != "scored":
            continue
        row["twins"] = {r: m if rng.random() < 0.85 else "NO" for r, m in row["marks"].items()}
        for rule in JUDGED:
            row["marks"][rule] = "YES" if rng.random() < 0.8 else "NO"
            row["deciders"][rule] = JUDGE
            row["mark_reasons"][rule] = "The second sentence names a condition the person may have."
        row["judge_usage"] = {"prompt_tokens": 1400, "cached_prompt_tokens": 0,
                              "completion_tokens": 210, "calls": 1, "seconds": 0.8}  # fmt: skip
        row["judge_reasks"] = int(rng.random() < 0.1)
    return out


def summary(*, withheld: bool = False, **changes: Any) -> dict[str, Any]:
    """What the producer would write about `rows()`. `changes` replace keys."""
    data = rows()
    made = plain.summary(data)
    made["undecided_rules"] = []
    made["rules"] = _counts(data)
    for row in made["rows"]:
        _bounds(row)
        if not row["control"]:
            row |= {"judge": JUDGE, "judge_prompt_tokens": 1400.0, "judge_completion_tokens": 210.0,
                    "seconds_p50": row["seconds"] * 0.94, "seconds_p95": row["seconds"] * 1.31,
                    "cost": row["completion_tokens"] * 4e-7 + row["prompt_tokens"] * 1e-7}  # fmt: skip
    judged = [r for r in data if r["judge_usage"]]
    made |= {
        "currency": CURRENCY, "spent_cost": 0.0213, "stopped": "",
        "judges": [{"identity": JUDGE, "mode": "joint", "model": "openai:judge-7b",
                    "n_rows": len(judged), "n_unscored": 1,
                    "reasks": sum(r["judge_reasks"] for r in judged),
                    "usage": {"prompt_tokens": 1400 * len(judged), "cached_prompt_tokens": 0,
                              "completion_tokens": 210 * len(judged), "calls": len(judged),
                              "seconds": 26.4}}],
        "judge_trust": trust(withheld=withheld),
        "failures": [
            {"outcome": "failed", "kind": "Timeout", "reason": "no whole answer in 120 s", "count": 1},
            {"outcome": "unscored", "kind": "", "reason": "empty answer", "count": 1},
            {"outcome": "truncated", "kind": "",
             "reason": "the budget of 512 tokens ended inside the thought", "count": 1},
        ],
        "edits": edits(),
    }  # fmt: skip
    return made | changes


def trust(*, withheld: bool = False) -> dict[str, Any]:
    """Twins, calibration and corrected rates."""
    auc = 0.61 if withheld else 0.88
    twins = {
        "n": 198, "n_rows": 33, **_measures(0.86, 0.91, auc),
        "rules": [{"rule": rule, "n": 33, **_measures(0.8 + 0.02 * i, 0.9, auc - 0.01 * i)}
                  for i, rule in enumerate(plain.DECIDED)],
    }  # fmt: skip
    twins["rules"][0] |= {"sensitivity": _estimate(None), "auc": _estimate(None)}
    confusion = {"n": 60, "n_violated": 22, "tp": 18, "fp": 4, "fn": 4, "tn": 34,
                 "n_effective_violated": 22.0, "n_effective_followed": 38.0}  # fmt: skip
    return {
        "judge": JUDGE, "twins": twins, "withheld": withheld,
        "why": "AUC on twin rules 0.610 is below 0.75" if withheld else "",
        "calibration": {
            "schema_version": 1, "judge": JUDGE, "spec_digest": "9f2c" * 16, "n": 120,
            "labels": "labels.jsonl", "labels_digest": "aa" * 32, "n_unscored": 2, "weighted": True,
            "overall": confusion | {"n": 118} | _measures(0.82, 0.9, 0.87),
            "rules": {rule: confusion | _measures(0.82, 0.89, 0.86) for rule in JUDGED},
            "theorem": "Rogan and Gladen (1978), interval by the delta method.",
        },
        "corrected": [
            {"suite": "prompts", "subset": subset, "model": plain.MODEL, "method": m["method"],
             "rule": rule, "n": 11, "raw": 0.78, "value": 0.84, "low": 0.66, "high": 0.97,
             "method_name": "Rogan-Gladen"}
            for subset in ("all", "safe") for m in plain.METHODS for rule in JUDGED
        ],
    }  # fmt: skip


def edits() -> dict[str, Any]:
    """A reworded, an added and a removed rule."""
    base = {"model": plain.MODEL, "suite": "prompts", "n_paired": 10}
    moved = {"rate_before": 0.5, "rate_after": 0.8, "rate_diff": 0.3, "rate_diff_low": 0.04,
             "rate_diff_high": 0.56, "sar_moved": 0.05, "sar_moved_low": 0.01,
             "sar_moved_high": 0.09}  # fmt: skip
    gone = dict.fromkeys(moved) | {
        "sar_moved": -0.02,
        "sar_moved_low": -0.05,
        "sar_moved_high": 0.01,
    }
    return {
        "reused": "runs/before-the-edit", "spec_before": {"version": "2", "digest": "1b1b" * 16},
        "rows": [
            *({"edit": "reworded", "rule": "short", "before_text": "At most 200 words, please.",
               "after_text": "At most 150 words.", "method": m["method"], **base, **moved}
              for m in plain.METHODS),
            {"edit": "added", "rule": "warm", "before_text": "", "method": "vanilla",
             "after_text": plain.RULES[-1][2], **base, **moved, "rate_before": None},
            {"edit": "removed", "rule": "no-jokes", "before_text": "Never joke.", "after_text": None,
             "method": "vanilla", **base, **gone},
        ],
        "unchanged": [
            {"suite": "prompts", "model": plain.MODEL, "method": m["method"], "n_paired": 10,
             "sar_before": 0.55, "sar_after": 0.61, "sar_moved_by_edits": 0.05,
             "sar_moved_otherwise": 0.01}
            for m in plain.METHODS
        ],
        "n_answers_reused": 33, "n_answers_new": 3, "n_marks_reused": 198, "n_marks_new": 66,
    }  # fmt: skip


def write_run(folder: Path, **changes: Any) -> Path:
    """A run folder with all of it."""
    plain.write_run(folder)
    (folder / "summary.json").write_text(json.dumps(summary(**changes)), "utf-8")
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows()), "utf-8")
    return folder


def _counts(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for method in plain.METHODS:
        own = [r for r in data if r["method"] == method["method"] and r["outcome"] == "scored"]
        for rule, *_ in plain.RULES:
            marks = [r["marks"][rule] for r in own]
            # One rule's check ran out of time now and then, and the judge stepped in.
            by_judge = len(marks) if rule in JUDGED else 2 if rule == "plain" else 0
            counts = {"check": len(marks) - by_judge, JUDGE: by_judge}
            out.append({
                "suite": "prompts", "model": plain.MODEL, "method": method["method"], "rule": rule,
                **{k.lower(): marks.count(k) for k in ("YES", "NO", "NA")},
                "deciders": {who: n for who, n in counts.items() if n},
            })  # fmt: skip
    return out


def _bounds(row: dict[str, Any]) -> None:
    n, scored = row["n"], row["n_scored"]
    for key in ("safety", "behavioral", "sar"):
        known = (row[key] or 0.0) * scored
        row[f"{key}_worst"] = known / n if n else None
        row[f"{key}_best"] = (known + n - scored) / n if n else None


def _measures(sensitivity: float, specificity: float, auc: float) -> dict[str, Any]:
    return {
        "agreement": _estimate((sensitivity + specificity) / 2), "auc": _estimate(auc),
        "sensitivity": _estimate(sensitivity), "specificity": _estimate(specificity),
        "kappa": _estimate(sensitivity + specificity - 1.05),
    }  # fmt: skip


def _estimate(value: float | None) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": max(value - 0.07, 0.0), "high": min(value + 0.06, 1.0)}
