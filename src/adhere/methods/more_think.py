"""MoreThink: when the model wants to end its thought, let it think again; c calls in all.

Source: arXiv 2509.14760, section 4 and the official code (c = 3). The prefill is `<think>`; each
call but the last stops where the model closes its thought, and a blank line and a word ("Wait, ")
are put there instead; the last call runs to the end. Unlike in the official code, c = 1 works. It
needs a server that takes a prefill, and is refused where there is none.

`close` and `think_tokens` are as in `align3`: for models that do not close a thought, the method
closes it after the last round and asks for the answer in one more call.

**Equal tokens.** With `Request.spend` this is the control that thinks as long as another method:
as many rounds as fit, whatever `rounds` says (at most 64), until what is left of `spend` is the
reserve for the answer; then the method closes the thought. The reserve is a third of `spend`, or
`max_tokens` if that is less: a guess at the answer's length. The answer itself has the request's
full limit, for a control whose answers are cut short would lose for that alone; so what is used
ends within one answer of `spend`. It stands in the facts as `spent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from pydantic import Field, field_validator

from adhere.chat import Answer, Capability, Message, Models, Role
from adhere.errors import BadInput
from adhere.methods.base import (
    CallPlan,
    Calls,
    Emit,
    MethodConfig,
    Order,
    PlannedCall,
    Request,
    ignore,
)
from adhere.methods.prompting import compose
from adhere.methods.staged import FORCED, Close, Stage, Thought, is_forced, run_stages
from adhere.models.thinking import CLOSE
from adhere.spec import Specification

MAX_ROUNDS = 64
LEAST_ROUND = 16  # tokens; less room than this is no round worth its call


class MoreThinkConfig(MethodConfig):
    """Options of `more_think`."""

    rounds: int = Field(3, ge=1, le=MAX_ROUNDS, description="c: rounds of thought (published: 3)")
    word: str = Field("Wait, ", min_length=1, description="what makes the model think again")
    close: Close = Field("auto", description="who closes the thought: the model, or the method")
    think_tokens: int = Field(
        256, ge=1, description="tokens of thought a round may spend when the close is forced"
    )
    order: Order = "question_first"

    @field_validator("word")
    @classmethod
    def _keeps_the_thought_open(cls, word: str) -> str:
        if CLOSE in word:
            raise ValueError(f"it must not hold {CLOSE}, which would end the thought")
        return word


class MoreThink:
    """Think, and think again; then answer."""

    name: ClassVar[str] = "more_think"
    Config: ClassVar[type[MoreThinkConfig]] = MoreThinkConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT, Capability.PREFILL})
    }
    can_spend = True

    def __init__(self, config: MoreThinkConfig | None = None) -> None:
        """Take the options."""
        self.config = config or MoreThinkConfig()

    def variant(self, capabilities: frozenset[Capability]) -> str:
        """Which form a model with these capabilities gets; "" is the published one."""
        return FORCED if is_forced(self.config.close, capabilities) else ""

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities, without `spend`.

        Each call's prompt holds the thoughts of the rounds before it.
        """
        forced, rounds = bool(self.variant(capabilities)), self.config.rounds
        limit = self.config.think_tokens if forced else None
        prompt = (self.config.order, "more_think/prefill")
        calls = [
            PlannedCall(f"think {number + 1}", prompt, earlier=number, max_tokens=limit)
            for number in range(rounds)
        ]
        if forced:
            calls.append(PlannedCall("answer", prompt, earlier=rounds))
        last = "and an answer" if forced else "the last of which answers"
        return CallPlan(tuple(calls), f"{rounds} rounds of thought, {last}")

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        if request.spend is not None:
            return await self._spend(calls, asked, request.spend)
        forced = is_forced(self.config.close, calls.model().capabilities)
        return await run_stages(
            calls,
            asked,
            [self._round(request, number) for number in range(self.config.rounds)],
            {"rounds": self.config.rounds},
            stage_tokens=self.config.think_tokens if forced else None,
        )

    def _round(self, request: Request, number: int) -> Stage:
        words = (
            f"\n\n{self.config.word}" if number else request.prompts.render("more_think/prefill")
        )
        return Stage(f"think {number + 1}", words)

    async def _spend(self, calls: Calls, asked: list[Message], spend: int) -> Answer:
        limit, budget = calls.request.sampling.max_tokens, calls.request.budget.tokens
        goal = spend if budget is None else min(spend, budget)
        reserve = min(limit or goal, goal // 3)
        thought = Thought(calls, asked)
        while (room := goal - reserve - calls.completion_tokens) > 0:
            if thought.stages == MAX_ROUNDS or (thought.stages and room < LEAST_ROUND):
                break
            await thought.go_on(
                self._round(calls.request, thought.stages), most=min(limit or room, room)
            )
            if not calls.completion_tokens and any(step.text for step in calls.steps):
                raise BadInput(
                    "this server counts no completion tokens, so no number of them can be used up",
                    hint="Compare by a fixed `rounds` instead of `equal_tokens_to`.",
                )
        if not thought.stages:  # not even one token to think with
            thought.text = self._round(calls.request, 0).words
        answer = await thought.closed_by_method()
        used = {"rounds": thought.stages, "spend": spend, "spent": calls.completion_tokens}
        return replace(answer, facts={**used, **answer.facts})
