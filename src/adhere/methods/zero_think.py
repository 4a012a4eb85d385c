"""ZeroThink: answer without a thought, by a prefill that opens and closes it at once.

Source: arXiv 2509.14760, section 4 and the official code: one call without a stop whose prefill is
`<think>`, a line break and `</think>`. A baseline that shows what a model's thoughts are worth.
(The paper leaves it out for models with a switch of their own for thinking: there it is that
switch.)

It needs a server that takes a prefill, and is refused where there is none. A model that opens a
thought again all the same is read as any other: what stands behind the last closing tag is the
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adhere.chat import Answer, Capability, Models, Role
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
from adhere.spec import Specification


class ZeroThinkConfig(MethodConfig):
    """Options of `zero_think`."""

    order: Order = "question_first"


class ZeroThink:
    """One call behind an empty thought."""

    name: ClassVar[str] = "zero_think"
    Config: ClassVar[type[ZeroThinkConfig]] = ZeroThinkConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT, Capability.PREFILL})
    }

    def __init__(self, config: ZeroThinkConfig | None = None) -> None:
        """Take the options."""
        self.config = config or ZeroThinkConfig()

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        prompt = (self.config.order, "zero_think/prefill")
        return CallPlan((PlannedCall("answer", prompt),), "one answer behind an empty thought")

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        prefill = request.prompts.render("zero_think/prefill")
        got = await calls.sample(asked, step="answer", prefill=prefill)
        text, thought = read_answer(got)
        return calls.answer(text.lstrip("\n"), thought=thought, finish_reason=got.finish_reason)
