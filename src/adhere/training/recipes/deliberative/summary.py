"""The numbers of a run that distills: how many rows came of how many prompts, and why no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from adhere.chat import Usage
from adhere.experiments.metrics import means
from adhere.experiments.stepwise.rows import FAILED
from adhere.records import SCHEMA_VERSION
from adhere.spec import looks_like_refusal
from adhere.training.recipes.clair.seats import not_apart
from adhere.training.recipes.deliberative.composing import NO_CATEGORY
from adhere.training.recipes.deliberative.inputs import KIND, DistillInputs
from adhere.training.recipes.deliberative.making import KEPT, REJECTED
from adhere.training.recipes.deliberative.reading import REASONS
from adhere.training.recipes.deliberative.rows import Line

Row = Mapping[str, Any]


def summarize(
    inputs: DistillInputs,
    rows: Sequence[Row],
    made: Sequence[Line],
    mix: Row | None,
    record: Mapping[str, Any],
    *,
    planned: int,
    spent: Mapping[str, Usage],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary of a run. `planned`: rows of the plan; `spent`: by model label."""
    ends = Counter(row["outcome"] for row in rows)
    tries = [tried for row in rows for tried in row["tries"]]
    # A draft that was kept, or that waits for its filter: also where the filter's call failed.
    drafts = sum(row["draft"] is not None for row in rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "spec": {
            "name": inputs.spec.name,
            "version": str(inputs.spec.version),
            "digest": inputs.spec.digest,
        },
        "planned": planned,
        "rows": ends[KEPT],
        "mixed": mix["taken"] if mix else 0,
        "mix": mix,
        "rejected": ends[REJECTED],
        "failed": ends[FAILED],
        "waiting": planned - sum(ends[end] for end in (KEPT, REJECTED, FAILED)),
        "yield": _yield(rows, inputs.plan.sampling.seed),
        "rejected_by_reason": _reasons(row for row in rows if row["outcome"] == REJECTED),
        "tries": len(tries) + drafts,
        "refused_tries_by_reason": _reasons(tries),
        "by_category": _by_category(inputs, rows, made),
        "composed": _composed(inputs, rows),
        "closed_by_method": sum(line["lineage"]["close"] == "method" for line in made),
        "refusals": sum(looks_like_refusal(line["answer"]) for line in made),
        "citing": sum(bool(line["lineage"]["cited"]) for line in made),
        "words": {
            "thought": _lengths(len(line["thought"].split()) for line in made),
            "answer": _lengths(len(line["answer"].split()) for line in made),
        },
        "tokens": _lengths(row["draft"]["tokens"] for row in rows if row["outcome"] == KEPT),
        "ratings": _in_order(Counter(line["rating"] for line in made if line["rating"])),
        "filters": list(inputs.filters),
        "not_apart": not_apart(record),
        "models": _models(record),
        "settings": {k: v for k, v in record["identity"].items() if k != "models"},
        "spent": {label: used.to_dict() for label, used in spent.items()},
        **facts,
    }


def _yield(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """The share of rows that were kept, of those at an end, with its 95% interval by prompt."""
    by_case: dict[str, list[float]] = {}
    for row in rows:
        if row["outcome"] in (KEPT, REJECTED):
            by_case.setdefault(row["case"], []).append(float(row["outcome"] == KEPT))
    [found] = means([by_case], seed=seed)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "of": sum(map(len, by_case.values())),
    }


def _reasons(items: Iterable[Row]) -> dict[str, int]:
    counts = Counter(item["reason"] for item in items)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _by_category(
    inputs: DistillInputs, rows: Sequence[Row], made: Sequence[Line]
) -> dict[str, dict[str, Any]]:
    """Per category of the prompts: rows planned, kept, rejected (and why), failed; citing rows."""
    out: dict[str, dict[str, Any]] = {}
    for prompt in inputs.prompts:
        named = out.setdefault(prompt.category, {"planned": 0})
        named["planned"] += inputs.plan.repeats
    for category, named in out.items():
        mine = [row for row in rows if inputs.by_id[row["case"]].category == category]
        lines = [line for line in made if line["category"] == category]
        named["rows"] = len(lines)
        named["rejected"] = sum(row["outcome"] == REJECTED for row in mine)
        named["failed"] = sum(row["outcome"] == FAILED for row in mine)
        named["refusals"] = sum(looks_like_refusal(line["answer"]) for line in lines)
        named["citing"] = sum(bool(line["lineage"]["cited"]) for line in lines)
        named["reasons"] = _reasons(row for row in mine if row["outcome"] == REJECTED)
    return out


def _composed(inputs: DistillInputs, rows: Sequence[Row]) -> dict[str, Any]:
    """For how many prompts which rules bear on them was not known, so that all stood in full."""
    notes = Counter(inputs.composed(prompt).note for prompt in inputs.prompts)
    unknown = {note: n for note, n in sorted(notes.items()) if note and note != NO_CATEGORY}
    return {"no_category": notes[NO_CATEGORY], "unknown": unknown}


def _lengths(values: Iterable[int]) -> dict[str, float | None]:
    found = list(values)
    if not found:
        return {"mean": None, "median": None, "most": None}
    return {"mean": fmean(found), "median": median(found), "most": max(found)}


def _in_order(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}


def _models(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = [{"role": "teacher", "name": n, **f} for n, f in record.get("models", {}).items()]
    if facts := record.get("judge"):
        models.append({"role": "judge", "name": facts["model"], **facts})
    return models
