"""What a run of rounds leaves to read: a line a round, one summary, the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adhere.chat import Usage
from adhere.experiments.stepwise.seats import weights_of
from adhere.records import SCHEMA_VERSION, RunFolder
from adhere.records.run_folder import SUMMARY_FILE, dump_json, write_atomic
from adhere.training.recipes.iteralign.ledger import HELD, Ledger
from adhere.training.recipes.iteralign.pool import Pool
from adhere.training.recipes.iteralign.rounds_plan import IteratePlan
from adhere.training.recipes.iteralign.steps import REDTEAM, summaries

ROUNDS_FILE = "rounds.jsonl"
REPORT_FILE = "report.html"


def write_story(
    plan: IteratePlan,
    folder: RunFolder,
    ledger: Ledger,
    records: Sequence[Mapping[str, Any]],
    *,
    ended: str,
    stopped: str,
    model: str,
    pool: Pool,
    held_out: Pool | None,
) -> dict[str, Any]:
    """Write rounds.jsonl, summary.json and report.html; return the summary."""
    from adhere.training.recipes.iteralign.page import render

    record = folder.read_record()
    assert record is not None
    phases = summaries(plan.out)
    entries = list(ledger.entries.values())
    summary = {
        "schema_version": SCHEMA_VERSION,
        "kind": "iterate",
        "name": plan.out.name,
        "created": record["created"],
        "mode": plan.mode,
        "model": model,
        "first_model": plan.policy.model,
        "ended": "" if stopped else ended,
        "stopped": _told(stopped),
        "rounds": [dict(one) for one in records],
        "first_look": folder.get_fact("look 0000"),
        "rules": [
            {
                "id": e.id, "rule": e.text, "kind": e.kind, "round": e.round, "status": e.status,
                "covers": list(e.covers), "flags": list(e.flags), "by": e.by,
                "same_as": e.same_as,
            }
            for e in entries
        ],
        "held": sum(entry.status == HELD for entry in entries),
        "edits": ledger.edits,
        "pool": {"prompts": len(pool.cases), "sources": list(pool.sources),
                 "notes": list(pool.notes), "harmful": pool.harmful},
        "held_out": len(held_out.cases) if held_out else 0,
        "calls": calls_by_phase(phases),
        "spent_cost": sum(summary["spent_cost"] or 0.0 for _, _, summary in phases) or None,
        "currency": next((s["currency"] for _, _, s in phases if s["currency"]), None),
        "answers": sum(_counted(one, "bad", "good", "unscored", "failed") for one in records),
        "undecided": sum(_counted(one, "unscored", "failed") for one in records),
        "not_apart": not_apart(phases),
        "spent": {label: used.to_dict() for label, used in spent(phases).items()},
        "models": models(phases),
        "settings": {k: v for k, v in record["identity"].items() if k != "models"},
    }  # fmt: skip
    text = "".join(dump_json(one) + "\n" for one in records)
    write_atomic(plan.out / ROUNDS_FILE, text)
    whole = json.dumps(summary, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_atomic(plan.out / SUMMARY_FILE, whole)
    write_atomic(plan.out / REPORT_FILE, render(summary))
    return summary


def _counted(one: Mapping[str, Any], *ends: str) -> int:
    """How many of a round's answers ended so: to the pool's prompts and to the oracle's."""
    attacked = (one.get("attacks") or {}).get("found")
    return sum(int(found[end]) for found in (one["found"], attacked) if found for end in ends)


def _told(stopped: str) -> str:
    """Why a run stopped, without what a server said: it may repeat a prompt."""
    return stopped.splitlines()[0].split(": ")[0][:200] if stopped else ""


def not_apart(phases: Phased) -> list[str]:
    """Which models are one and the same, in words."""
    roles: dict[str, set[tuple[str, ...]]] = {}
    for _, _, summary in phases:
        for one in summary["models"]:
            identity = one.get("model_identity") or one["identity"]
            roles.setdefault(one["role"], set()).add(weights_of(identity, adapter=True))
    pairs = (
        ("oracle", "judge", "the oracle is the judge: it writes rules for what it called bad"),
        ("judge", "policy", "the judge is the policy: it judges its own answers"),
        ("oracle", "policy", "the oracle is the policy: it writes the rules that it lacks itself"),
    )
    return [told for a, b, told in pairs if roles.get(a, set()) & roles.get(b, set())]


Phased = Sequence[tuple[int, str, Mapping[str, Any]]]


def calls_by_phase(phases: Phased) -> dict[str, dict[str, int]]:
    """Calls of each model by phase, over all rounds; round 0 is the first look."""
    out: dict[str, dict[str, int]] = {}
    for _, phase, summary in phases:
        own = out.setdefault(phase, {})
        for label, used in summary["spent"].items():
            own[label] = own.get(label, 0) + used["calls"]
    return out


def spent(phases: Phased) -> dict[str, Usage]:
    """What each model spent, over all phases."""
    out: dict[str, Usage] = {}
    for _, _, summary in phases:
        for label, used in summary["spent"].items():
            out[label] = out.get(label, Usage()) + Usage.from_dict(used)
    return out


def models(phases: Phased) -> list[dict[str, Any]]:
    """The models by role, as the first phase that asked them has them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, phase, summary in phases:
        for one in summary["models"]:
            if one["role"] != "policy" or phase == REDTEAM or number == 0:
                found.setdefault((one["role"], one["identity"]), one)
    return list(found.values())
