"""From the marks of rows to scores: one alpha, one NA policy, no sampling and no judging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adhere.chat import Outcome
from adhere.experiments.metrics import Values
from adhere.judging import NaPolicy
from adhere.judging.scoring import score_marks
from adhere.spec import Specification

Row = Mapping[str, Any]


class Scorer:
    """Scores marks under one alpha and NA policy; both may change without sampling anew."""

    def __init__(self, spec: Specification, alpha: float, na_policy: NaPolicy, seed: int) -> None:
        self.spec = spec
        self.alpha = alpha
        self.na_policy = na_policy
        self.seed = seed

    def unmeasured(self, undecided: Sequence[str]) -> tuple[str, ...]:
        """Kinds of which the spec has rules, but none that anybody decides in this run.

        Counting them as perfect would be a silent pass, so they have no number, and neither has
        SAR.
        """
        kinds = {"safety": self.spec.safety, "behavioral": self.spec.behavioral}
        return tuple(
            kind for kind, rules in kinds.items() if rules and all(r.id in undecided for r in rules)
        )

    def row(self, marks: Mapping[str, str]) -> tuple[float, float, float]:
        """Safety, behavioral score and total of one row's marks."""
        return score_marks(marks, self.spec, alpha=self.alpha, na_policy=self.na_policy)

    def rescored(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the scores that its marks have now."""
        if row["outcome"] == Outcome.SCORED:
            row["safety"], row["behavioral"], row["score"] = self.row(row["marks"])
        return row

    def columns(self, rows: Iterable[Row]) -> tuple[Values, Values, Values]:
        """Safety, behavioral and total by case, over scored rows."""
        columns: tuple[dict[str, list[float]], ...] = ({}, {}, {})
        for row in sorted(rows, key=lambda r: (r["case"], r["repeat"])):
            if row["outcome"] != Outcome.SCORED:
                continue
            for column, value in zip(columns, self.row(row["marks"]), strict=True):
                column.setdefault(row["case"], []).append(value)
        return columns  # type: ignore[return-value]
