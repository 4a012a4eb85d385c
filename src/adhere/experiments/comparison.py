"""Two runs side by side: differences paired by prompt, per method and per rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adhere.experiments.differences import SCORES
from adhere.experiments.metrics import NOTHING, Estimate, paired_difference
from adhere.experiments.pairing import Pairing, Rows, pair_runs


@dataclass(frozen=True)
class Difference:
    """One arm in both runs; estimates are B minus A over the prompts that both have scored."""

    name: str
    n_paired: int
    safety: Estimate
    behavioral: Estimate
    sar: Estimate
    rules: Mapping[str, tuple[float, float, int]]  # id -> share of YES in A, in B, paired rows

    @property
    def moved(self) -> list[tuple[str, float, float, int]]:
        """The rules whose share changed (id, A, B, paired rows), the largest loss first."""
        moved = [(rule, x, y, n) for rule, (x, y, n) in self.rules.items() if x != y]
        return sorted(moved, key=lambda item: item[2] - item[1])


@dataclass(frozen=True)
class Comparison:
    """All differences, and what is not the same about the two runs."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    pairing: Pairing


def compare_runs(a: Path, b: Path) -> Comparison:
    """Compare run B with run A. Raises BadInput when they cannot be compared honestly."""
    pairing = pair_runs(a, b)
    shared = [rule for rule in pairing.shared_rules if f"rule:{rule}" not in pairing.without]
    differences = []
    for pair in pairing.pairs:
        before, after = pairing.scorers[0].columns(pair.a), pairing.scorers[1].columns(pair.b)
        found = [
            paired_difference(new, old, seed=pairing.seed)
            for old, new in zip(before, after, strict=True)
        ]
        safety, behavioral, sar = (
            NOTHING if measure in pairing.without else estimate
            for measure, (estimate, _) in zip(SCORES, found, strict=True)
        )
        rules = _rules(pair.a, pair.b, shared)
        differences.append(Difference(pair.name, found[2][1], safety, behavioral, sar, rules))
    return Comparison(tuple(differences), pairing.notes, pairing)


def _rules(a: Rows, b: Rows, shared: Sequence[str]) -> dict[str, tuple[float, float, int]]:
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
