"""`Judge`: what turns a response into a verdict; and the judge that runs the rules' own checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from adhere.chat import Answer, Capability, Case, Models, Role, RuleMark, Unscored, Verdict
from adhere.spec import Rule, Specification
from adhere.spec.checks import decide


class Judge(Protocol):
    """Decides every rule it can on one response."""

    @property
    def requires(self) -> Mapping[Role, frozenset[Capability]]:
        """Which models it asks, and what they must be able to do."""

    @property
    def settings(self) -> Any:
        """What of its configuration decides marks: part of a run's identity."""

    def identity(self, models: Models) -> str:
        """Who judges, weights included: equal identities judge alike. Stands beside each mark."""

    def undecided(self, spec: Specification) -> tuple[str, ...]:
        """Ids of rules this judge cannot decide at all; they are named in every table."""

    async def judge(
        self, case: Case, answer: Answer, spec: Specification, models: Models
    ) -> Verdict | Unscored:
        """The verdict, or why there is none. Never a verdict by default."""


class CheckJudge:
    """Decides by the rules' own checks: exact, free, the same every time."""

    requires: Mapping[Role, frozenset[Capability]] = {}
    settings = "checks"

    def identity(self, models: Models) -> str:
        """See `Judge.identity`."""
        return "checks"

    def undecided(self, spec: Specification) -> tuple[str, ...]:
        """Rules that have no check."""
        return tuple(rule.id for rule in spec.rules if rule.check is None)

    async def judge(
        self, case: Case, answer: Answer, spec: Specification, models: Models
    ) -> Verdict | Unscored:
        """See `Judge.judge`. A check that runs out of its time limit leaves the row unscored."""
        return check_verdict(spec.rules, answer.text, case.judged_prompt or case.prompt)


def check_verdict(rules: tuple[Rule, ...], text: str, prompt: str) -> Verdict | Unscored:
    """Marks of all rules that have a check."""
    marks: dict[str, RuleMark] = {}
    for rule in rules:
        if rule.check is None:
            continue
        got = decide(rule, text, prompt)
        if isinstance(got, Unscored):
            return Unscored(f"rule {rule.id}: {got.reason}")
        marks[rule.id] = got
    return Verdict(marks)
