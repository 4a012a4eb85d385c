"""Two runs side by side: differences paired by prompt, per method and per rule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.chat import canonical_json
from adhere.errors import BadInput
from adhere.experiments.metrics import Estimate, paired_difference
from adhere.experiments.summary import Scorer
from adhere.records import SCHEMA_VERSION, read_run_record
from adhere.records.run_folder import RESULTS_FILE, SUMMARY_FILE
from adhere.spec import Rule, Specification

Arm = tuple[str, str, str]  # suite, model, method


@dataclass(frozen=True)
class Difference:
    """One arm in both runs; estimates are B minus A over the prompts that both have scored."""

    name: str
    n_paired: int
    safety: Estimate
    behavioral: Estimate
    sar: Estimate
    rules: Mapping[str, tuple[float, float, int]]  # id -> share of YES in A, in B, paired rows


@dataclass(frozen=True)
class Comparison:
    """All differences, and what is not the same about the two runs."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


class _Run:
    def __init__(self, path: Path) -> None:
        if read_run_record(path) is None:
            raise BadInput(
                f"{path}: found no run.yaml; expected a run's folder",
                hint="Give folders that `adhere eval` wrote.",
            )
        self.path = path
        self.summary = _read_json(path / SUMMARY_FILE)
        if self.summary.get("schema_version") != SCHEMA_VERSION:
            raise BadInput(f"{path / SUMMARY_FILE}: was written by another version of adhere")
        spec = self.summary["spec"]
        self.spec = Specification(
            spec["name"],
            tuple(
                Rule(r["id"], r["kind"], r["text"], r["check"], r["applies"]) for r in spec["rules"]
            ),
            spec["version"],
        )
        self.arms: dict[Arm, list[dict[str, Any]]] = {}
        for number, line in enumerate(_read(path / RESULTS_FILE).splitlines(), 1):
            try:
                row = json.loads(line)
                key = row["suite"], row["model"], row["method"]
            except (ValueError, KeyError, TypeError):
                raise BadInput(
                    f"{path / RESULTS_FILE}:{number}: found a broken row",
                    hint="`adhere eval` on this run makes the file anew from its journal.",
                ) from None
            self.arms.setdefault(key, []).append(row)


def compare_runs(a: Path, b: Path) -> Comparison:
    """Compare run B with run A. Raises BadInput when they cannot be compared honestly."""
    first, second = _Run(a), _Run(b)
    settings = first.summary["settings"], second.summary["settings"]
    if settings[0]["judge"] != settings[1]["judge"]:
        raise BadInput(
            f"{a} was judged by {settings[0]['judge']!r}, {b} by {settings[1]['judge']!r}",
            hint="Numbers of different judges cannot be compared; judge one of the runs again.",
        )
    notes = []
    if first.spec.rules != second.spec.rules:
        notes.append(
            "The specs differ; each run is scored by its own rules, and only rules that are the "
            "same in both are compared."
        )
    for name, run in (("A", first), ("B", second)):
        if not run.summary["finished"]:
            notes.append(f"{name} is not finished; prompts that it lacks are left out.")
    for key in ("alpha", "na_policy", "temperature", "top_p", "max_tokens", "seed", "orders"):
        if settings[0].get(key) != settings[1].get(key):
            notes.append(f"{key}: {settings[0].get(key)} in A, {settings[1].get(key)} in B")
    pairs = list(_pairs(first.arms, second.arms))
    if not pairs:
        raise BadInput(
            f"{a} and {b} have no method in common",
            hint=f"A has {_names(first.arms)}; B has {_names(second.arms)}.",
        )
    alpha, policy = settings[0]["alpha"], settings[0]["na_policy"]
    scorers = [Scorer(run.spec, alpha, policy, settings[0]["seed"]) for run in (first, second)]
    shared = [r.id for r in first.spec.rules if r in second.spec.rules]
    differences = []
    for name, all_left, all_right in pairs:
        left, right, other = _same_prompts(all_left, all_right)
        if other:
            notes.append(
                f"{name}: {other} prompts have the same id but another text; they are left out."
            )
        before, after = scorers[0].columns(left), scorers[1].columns(right)
        estimates = [
            paired_difference(new, old, seed=settings[0]["seed"])
            for old, new in zip(before, after, strict=True)
        ]
        differences.append(
            Difference(
                name,
                estimates[2][1],
                estimates[0][0],
                estimates[1][0],
                estimates[2][0],
                _rules(left, right, shared),
            )
        )
    return Comparison(tuple(differences), tuple(notes))


def _pairs(
    a: Mapping[Arm, Sequence[Any]], b: Mapping[Arm, Sequence[Any]]
) -> Iterable[tuple[str, Sequence[Any], Sequence[Any]]]:
    """Arms of the same name; where the runs have one model each, the models may differ."""
    one_model = len({arm[1] for arm in a}) == 1 and len({arm[1] for arm in b}) == 1
    for arm, rows in a.items():
        for other, others in b.items():
            if arm[0] == other[0] and arm[2] == other[2] and (one_model or arm[1] == other[1]):
                model = arm[1] if arm[1] == other[1] else f"{arm[1]} to {other[1]}"
                yield f"{arm[2]} on {model}", rows, others


def _same_prompts(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]], int]:
    """The rows of cases that were asked the same in both, and how many were not."""
    asked = [{r["case"]: canonical_json(r["messages"]) for r in rows} for rows in (a, b)]
    other = {c for c in asked[0].keys() & asked[1].keys() if asked[0][c] != asked[1][c]}
    kept = [[r for r in rows if r["case"] not in other] for rows in (a, b)]
    return kept[0], kept[1], len(other)


def _names(arms: Iterable[Arm]) -> str:
    return ", ".join(f"{method} on {model} ({suite})" for suite, model, method in arms)


def _rules(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], shared: Sequence[str]
) -> dict[str, tuple[float, float, int]]:
    """Share followed where the rule applied in both, paired by case and repeat."""
    left = {(r["case"], r["repeat"]): r["marks"] for r in a}
    right = {(r["case"], r["repeat"]): r["marks"] for r in b}
    out = {}
    for rule in shared:
        marks = [
            (left[k][rule] == "YES", right[k][rule] == "YES")
            for k in left.keys() & right.keys()
            if left[k].get(rule, "NA") != "NA" and right[k].get(rule, "NA") != "NA"
        ]
        if marks:
            n = len(marks)
            out[rule] = (sum(m[0] for m in marks) / n, sum(m[1] for m in marks) / n, n)
    return out


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read(path))
    except ValueError:
        raise BadInput(f"{path}: is damaged; expected a summary written by adhere") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: is damaged; expected a summary written by adhere")
    return data
