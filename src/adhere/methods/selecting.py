"""Scoring a text by the rules' own checks: what `repair` goes by, and a selector of candidates.

The same checks score the answer in the end, so this is an *oracle* selector, and every table
says so. `rules` limits it to some rules; the others are then an honest held-out measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from adhere.chat import Mark, Unscored
from adhere.errors import BadInput
from adhere.judging import check_verdict, score
from adhere.methods.base import Request
from adhere.spec import Rule


class Failure(NamedTuple):
    """A rule that a text violates, and what the check found."""

    rule: Rule
    reason: str


class Checked(NamedTuple):
    """How a text stands under the checks: its score (0 to 1) and the rules it violates."""

    score: float
    failures: tuple[Failure, ...]


def selecting_rules(request: Request, only: Sequence[str] | None) -> tuple[Rule, ...]:
    """The rules to select by. Raises BadInput for an unknown id or when none has a check."""
    rules = request.spec.rules
    if only is not None:
        if unknown := sorted(set(only) - set(request.spec.by_id)):
            raise BadInput(
                f"rules: the spec has no rule {unknown[0]!r}",
                hint="Its rules are: " + ", ".join(request.spec.by_id),
            )
        rules = tuple(rule for rule in rules if rule.id in only)
    rules = tuple(rule for rule in rules if rule.check is not None)
    if not rules:
        raise BadInput(
            "this method selects by checks, and no rule it may use has one",
            hint="Add a `check:` line to some rules; `docs/checks.md` lists what can be checked.",
        )
    return rules


def by_checks(request: Request, text: str, rules: tuple[Rule, ...]) -> Checked:
    """Score one text. A check that times out counts as violated: it must not win by hanging."""
    verdict = check_verdict(rules, text, request.question)
    if isinstance(verdict, Unscored):
        return Checked(-1.0, ())
    failed = tuple(
        Failure(request.spec.by_id[rule_id], given.reason)
        for rule_id, given in verdict.marks.items()
        if given.mark is Mark.NO
    )
    # NA is left out here: a rule that does not apply is no reason to prefer a candidate.
    return Checked(score(verdict, request.spec, na_policy="exclude").total, failed)
