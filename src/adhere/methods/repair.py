"""Repair: answer, look at the checks that fail, ask to change only that, keep the better text.

Not published; the cheapest steering there is for rules that code decides. It starts from the
vanilla answer (the same draw) and ends early when every check holds, so a prompt that needs
nothing costs one call. What it keeps is chosen by the checks that score: an oracle selector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from adhere.chat import Answer, Capability, Completion, Models, Role, assistant, user
from adhere.errors import ContextTooLong, Filtered, Truncated
from adhere.methods.base import (
    CallPlan,
    Calls,
    Emit,
    MethodConfig,
    Order,
    PlannedCall,
    Request,
    ignore,
    read_answer,
)
from adhere.methods.prompting import compose
from adhere.methods.selecting import Checked, by_checks, selecting_rules
from adhere.spec import Specification


class RepairConfig(MethodConfig):
    """Options of `repair`."""

    rounds: int = Field(2, ge=1, le=20, description="most attempts at mending")
    rules: tuple[str, ...] | None = Field(None, description="ids of the rules to look at; all")
    order: Order = "question_first"


class Repair:
    """Answer, then mend what the checks find."""

    name: ClassVar[str] = "repair"
    Config: ClassVar[type[RepairConfig]] = RepairConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT})
    }
    oracle = True

    def __init__(self, config: RepairConfig | None = None) -> None:
        """Take the options."""
        self.config = config or RepairConfig()

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        order, rounds = self.config.order, self.config.rounds
        fix = (order, "rules", "reasons", "repair/fix")
        return CallPlan(
            (PlannedCall("answer", (order,)), PlannedCall("repair", fix, 0, rounds, earlier=1)),
            f"an answer, and up to {rounds} repairs while a check fails",
        )

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        rules = selecting_rules(request, self.config.rules)
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        got = await calls.sample(asked, step="answer")
        best = _Candidate(got, *read_answer(got), by_checks(request, read_answer(got)[0], rules))
        scores = [best.checked.score]
        ended = ""
        for number in range(1, self.config.rounds + 1):
            if not best.checked.failures:
                break
            fix = request.prompts.render(
                "repair/fix",
                failures=[
                    {"text": " ".join(f.rule.text.split()), "reason": f.reason}
                    for f in best.checked.failures
                ],
            )
            try:
                got = await calls.sample(
                    [*asked, assistant(best.text), user(fix)],
                    step=f"repair {number}",
                    draw=number - 1,  # what was no better was dropped, so the same is asked again
                )
                text, thought = read_answer(got)
            except (Truncated, Filtered, ContextTooLong) as error:
                ended = error.kind  # what there is stays the answer
                break
            new = _Candidate(got, text, thought, by_checks(request, text, rules))
            scores.append(new.checked.score)
            # An empty text breaks few rules of form; it is never better than an answer.
            if text.strip() and new.checked.score > best.checked.score:
                best = new
        return calls.answer(
            best.text,
            thought=best.thought,
            finish_reason=best.completion.finish_reason,
            facts={
                "scores": scores,
                "rounds": len(scores) - 1,
                "ended_by": ended,
                "selector": "checks (oracle)",
            },
        )


class _Candidate:
    def __init__(self, completion: Completion, text: str, thought: str, checked: Checked) -> None:
        self.completion = completion
        self.text = text
        self.thought = thought
        self.checked = checked
