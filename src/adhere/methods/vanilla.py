"""Vanilla: the spec in the prompt, one call. The baseline that every other method starts from.

Source: arXiv 2509.14760, section 4. Published order and default: question, rules, instruction in
one user message (`order="question_first"`). `spec_first` puts the spec into the system message, so
that a server reads it once for all prompts.
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


class VanillaConfig(MethodConfig):
    """Options of `vanilla`."""

    order: Order = "question_first"


class Vanilla:
    """One call with the spec in the prompt."""

    name: ClassVar[str] = "vanilla"
    Config: ClassVar[type[VanillaConfig]] = VanillaConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT})
    }

    def __init__(self, config: VanillaConfig | None = None) -> None:
        """Take the options."""
        self.config = config or VanillaConfig()

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        return CallPlan((PlannedCall("answer", (self.config.order,)),), "one answer")

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        got = await calls.sample(asked, step="answer")
        text, thought = read_answer(got)
        return calls.answer(text, thought=thought, finish_reason=got.finish_reason)
