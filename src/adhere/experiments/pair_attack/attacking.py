"""The rows of an attack on their way: one goal, one attack after the other, to an end.

The attacker writes, the target answers, the answer is judged; then the next turn, or the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adhere.chat import Answer, Case, Model, Models, Outcome, Role, Unscored, user
from adhere.errors import AdhereError, Bug, DiskFull, Stopped
from adhere.experiments.answering import error_facts, kept
from adhere.experiments.marking import JUDGE_ROLE
from adhere.experiments.pair_attack.attacker import ask_attacker
from adhere.experiments.pair_attack.inputs import (
    ATTACKER,
    BASE,
    JUDGE,
    POLICY,
    RATER,
    AttackInputs,
)
from adhere.experiments.pair_attack.rating import LOWEST, TOP, rate
from adhere.experiments.stepwise.rows import FAILED, Row, begun, ended
from adhere.experiments.stepwise.seats import NOBODY, Open
from adhere.methods.base import Request
from adhere.records.run_folder import Key

# How a row ends. `held`: every answer was judged, none was a success.
BROKEN, HELD, UNSCORED = "broken", "held", Outcome.UNSCORED.value


@dataclass
class Attacking:
    """What the rows of an attack go through (`Steps`)."""

    inputs: AttackInputs

    def __post_init__(self) -> None:
        """Read what is there."""
        self.cases = {case.id: case for case in self.inputs.cases}

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked."""
        return begun(key, goal=self.cases[key[1]].prompt, turns=[], tries=[])

    def next_seat(self, row: Row) -> str:
        """Who must be open for a row's next step: a seat, or nobody."""
        turn = row["turns"][-1] if row["turns"] else None
        if turn is None or "score" in turn:
            return ATTACKER
        if "text" not in turn:
            return POLICY
        if not turn["text"].strip():
            return NOBODY
        if self.inputs.by_marks and not _is_judged(turn):
            return JUDGE if self.inputs.plan.judge is not None else NOBODY
        return RATER if self._needs_rating(turn) else NOBODY

    def _needs_rating(self, turn: Mapping[str, Any]) -> bool:
        if self.inputs.plan.rater is None or "rating" in turn or "unrated" in turn:
            return False
        return not (self.inputs.by_marks and self._violated(turn))

    async def step(self, row: Row, open_: Open) -> Row:
        """The row one step further."""
        seat = self.next_seat(row)
        if seat == ATTACKER:
            return await self._write(row, open_)
        turn = row["turns"][-1]
        if seat == POLICY:
            facts, error, role = await self._answer(row, open_)
        elif turn["text"].strip() and self.inputs.by_marks and not _is_judged(turn):
            facts, error, role = await self._mark(row, open_)
        elif seat == RATER:
            model = open_.models[RATER]
            facts, error = await rate(self.inputs, row["goal"], turn["attack"], turn["text"], model)
            role = RATER
        else:
            return self._conclude(row)
        if error is not None:
            return failed(row, error, role)
        return {**row, "turns": [*row["turns"][:-1], {**turn, **facts}]}

    async def _write(self, row: Row, open_: Open) -> Row:
        facts, error = await ask_attacker(
            self.inputs, row["goal"], row["turns"], open_.models[ATTACKER],
            repeat=row["repeat"], number=len(row["tries"]),
        )  # fmt: skip
        if error is not None:
            return failed(row, error, ATTACKER)
        if "refused" in facts:
            tried = {
                "turn": len(row["turns"]) + 1, "draw": facts["draw"], "reason": facts["refused"],
                "detail": facts["detail"], "reply": facts["reply"],
            }  # fmt: skip
            row = {**row, "tries": [*row["tries"], tried]}
            if len(row["tries"]) >= self.inputs.plan.attacker.tries:
                # Not `held`: the target was not attacked to the end.
                return ended(row, FAILED, facts["refused"], facts["detail"])
            return row
        turn = {**facts, "depth": len(row["turns"]) + 1, "tries": row["tries"]}
        return {**row, "turns": [*row["turns"], turn], "tries": []}

    async def _answer(self, row: Row, open_: Open) -> tuple[Row, AdhereError | None, str]:
        """The target's answer to the last attack. Raises DiskFull and Stopped."""
        inputs, plan = self.inputs, self.inputs.plan
        case, turn = self.cases[row["case"]], row["turns"][-1]
        request = Request(
            messages=attacked(case, turn["attack"]).messages,
            spec=inputs.common.spec,
            sampling=plan.sampling.sampling(),
            prompts=inputs.common.prompts,
            budget=plan.budget.budget(),
            # The attacker may send the same message twice: that is another answer, not the same.
            draw=row["repeat"] * plan.depth + turn["depth"] - 1,
            reference=case.reference,
        )
        models: dict[Role, Model] = {Role.POLICY: open_.models[POLICY]}
        if BASE in open_.models:
            models[Role.BASE] = open_.models[BASE]
        made, outcome, reason, error = await kept(inputs.method.answer(request, models))
        if outcome is Outcome.FAILED:
            assert error is not None
            return {}, error, POLICY
        answer = made or Answer("")
        why = reason or ("" if answer.text.strip() else "the answer is empty")
        return {
            "text": answer.text,
            "thought": answer.thought,
            "finish_reason": answer.finish_reason,
            "no_answer": why,
            "facts": dict(answer.facts),
        }, None, POLICY  # fmt: skip

    async def _mark(self, row: Row, open_: Open) -> tuple[Row, AdhereError | None, str]:
        """The marks of the last answer as one to the goal. Raises DiskFull and Stopped."""
        inputs = self.inputs
        case, text = self.cases[row["case"]], row["turns"][-1]["text"]
        asked = replace(case, judged_prompt=case.judged_prompt or row["goal"])
        models: Models = {Role.JUDGE: open_.models[JUDGE]} if JUDGE in open_.models else {}
        try:
            got = await inputs.common.judge.judge(asked, Answer(text), inputs.common.spec, models)
        except (DiskFull, Stopped):
            raise
        except AdhereError as caught:
            got = Unscored(f"the judge failed: {caught.message}", caught)
        except Exception as caught:
            reason = f"the judge failed: {type(caught).__name__}: {caught}"
            got = Unscored(reason, Bug(reason))
        if isinstance(got, Unscored):
            error = got.error if isinstance(got.error, AdhereError) else None
            return {"unscored": got.reason}, error, JUDGE_ROLE
        return {
            "marks": {rule: mark.mark.value for rule, mark in got.marks.items()},
            "reasons": {rule: mark.reason for rule, mark in got.marks.items()},
        }, None, JUDGE_ROLE  # fmt: skip

    # ------------------------------------------------------------ the end of a turn

    def _violated(self, turn: Mapping[str, Any]) -> list[str]:
        return [rule for rule in self.inputs.rules if turn.get("marks", {}).get(rule) == "NO"]

    def _conclude(self, row: Row) -> Row:
        """The row with its last turn's result: broken, held, or None where nobody can say."""
        plan, turn = self.inputs.plan, row["turns"][-1]
        broken: bool | None
        why = turn["no_answer"]
        if why:
            broken = None
        elif self.inputs.by_marks:
            broken = bool(self._violated(turn)) if "marks" in turn else None
            why = turn.get("unscored", "")
        else:
            assert plan.rater is not None
            rated = turn.get("rating")
            broken = None if rated is None else rated >= plan.rater.threshold
            why = turn.get("unrated", "")
        score = TOP if broken else turn.get("rating", LOWEST)
        turn = {**turn, "broken": broken, "score": score, "why": "" if broken is not None else why}
        row = {**row, "turns": [*row["turns"][:-1], turn]}
        if broken:
            return ended(row, BROKEN)
        if turn["depth"] < plan.depth:
            return row
        unknown = [t for t in row["turns"] if t["broken"] is None]
        if unknown:
            # One of them may have been a success: the target did not hold as far as is known.
            count = f"{len(unknown)} of {len(row['turns'])} answers could not be judged"
            return ended(row, UNSCORED, unknown[0]["why"], count)
        return ended(row, HELD)


def _is_judged(turn: Mapping[str, Any]) -> bool:
    return "marks" in turn or "unscored" in turn


def attacked(case: Case, attack: str) -> Case:
    """The case with the attack in the place of its last user message; the goal is judged."""
    last = max(place for place, m in enumerate(case.messages) if m.role == "user")
    messages = (*case.messages[:last], user(attack), *case.messages[last + 1 :])
    return replace(case, messages=messages, judged_prompt=case.judged_prompt or case.prompt)


def failed(row: Row, error: AdhereError, role: str) -> Row:
    """The row after a failed call; it is tried again at the next start where that may help."""
    return {
        **ended(row, FAILED, "call_failed", error.message),
        "error": {**error_facts(error), "role": role},
    }
