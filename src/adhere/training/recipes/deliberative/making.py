"""The rows of a run on their way from a prompt to a row to train on, or to the reason why not.

The teacher is asked and read, then the filters decide; what is refused is tried again, as a later
draw, while there are tries left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adhere.chat import Models, Role
from adhere.errors import AdhereError, ContextTooLong, Filtered
from adhere.experiments.answering import error_facts, kept
from adhere.experiments.marking import JUDGE_ROLE
from adhere.experiments.stepwise.rows import FAILED, Row, begun, ended
from adhere.experiments.stepwise.seats import NOBODY, Open
from adhere.records.run_folder import Key
from adhere.training.recipes.deliberative.deciding import Decision, decide_by_checks
from adhere.training.recipes.deliberative.inputs import JUDGE, TEACHER, DistillInputs
from adhere.training.recipes.deliberative.plan import ASKING
from adhere.training.recipes.deliberative.reading import Taught
from adhere.training.recipes.deliberative.teaching import teach

KEPT, REJECTED = "kept", "rejected"  # how a row ends

_TRIED = ("draw", "reply", "finish_reason", "tokens", "thought", "answer", "close", "ratings")


@dataclass
class Making:
    """What the rows of a run go through (`Steps`)."""

    inputs: DistillInputs

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked. `draft` is what the filters still have to decide on."""
        return begun(key, draft=None, passed=[], tries=[])

    def next_seat(self, row: Row) -> str:
        """Who must be open for a row's next step: a seat, or nobody."""
        if row["draft"] is None:
            return TEACHER
        return JUDGE if self._next_filter(row) in ASKING else NOBODY

    def _next_filter(self, row: Row) -> str | None:
        return next((name for name in self.inputs.filters if name not in row["passed"]), None)

    async def step(self, row: Row, open_: Open) -> Row:
        """The row one step further."""
        prompt = self.inputs.by_id[row["case"]]
        if row["draft"] is None:
            facts, error = await teach(
                self.inputs, prompt, open_.models[TEACHER],
                repeat=row["repeat"], number=len(row["tries"]),
            )  # fmt: skip
            if error is not None:
                return _failed(row, error)
            if "refused" in facts:
                return self._refused(row, facts, facts["refused"], facts["detail"])
            return {**row, "draft": facts}
        name = self._next_filter(row)
        if name is None:
            return ended(row, KEPT)
        taught = Taught(row["draft"]["thought"], row["draft"]["answer"])
        if name in ASKING:
            models: Models = {Role.JUDGE: open_.models[JUDGE]}
            decider = self.inputs.decider
            assert decider is not None
            deciding = decider.decide(prompt, self.inputs.composed(prompt), taught, models)
        else:
            # In a thread: a check may take a while, and other rows wait for models meanwhile.
            composed = self.inputs.composed(prompt)
            shown = (*composed.full, *composed.brief)
            deciding = asyncio.to_thread(decide_by_checks, shown, prompt.case, taught)
        decision, _, reason, error = await kept(deciding)
        if decision is None:
            decision = Decision("unscored", reason, error=error)
        return self._decided(row, name, decision)

    def _decided(self, row: Row, name: str, decision: Decision) -> Row:
        # What a judge withholds, or what does not fit it, says something about this row alone.
        if decision.error is not None and not isinstance(decision.error, Filtered | ContextTooLong):
            return _failed(row, decision.error, JUDGE_ROLE)
        draft = {**row["draft"], **(decision.facts or {})}
        if decision.reason:
            return self._refused(row, draft, decision.reason, decision.detail)
        return {**row, "draft": draft, "passed": [*row["passed"], name]}

    def _refused(self, row: Row, facts: Mapping[str, Any], reason: str, detail: str) -> Row:
        """The row after a try that was no use: to be tried again, or rejected for this reason."""
        told = {k: facts[k] for k in _TRIED if k in facts}
        tries = [*row["tries"], {**told, "reason": reason, "detail": detail}]
        row = {**row, "draft": None, "passed": [], "tries": tries}
        if len(tries) >= self.inputs.plan.tries:
            return ended(row, REJECTED, reason, detail)
        return row


def _failed(row: Row, error: AdhereError, role: str = "") -> Row:
    facts = error_facts(error)
    return {
        **ended(row, FAILED, detail=error.message),
        "error": {**facts, "role": role} if role else facts,
    }
