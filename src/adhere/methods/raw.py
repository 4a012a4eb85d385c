"""Raw: the question as it is, without the spec. Shows what the spec in the prompt is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adhere.chat import Answer, Capability, Models, Role
from adhere.methods.base import (
    CallPlan,
    Calls,
    Emit,
    MethodConfig,
    PlannedCall,
    Request,
    ignore,
    read_answer,
)
from adhere.spec import Specification


class Raw:
    """One call with the conversation as it is."""

    name: ClassVar[str] = "raw"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT})
    }

    def __init__(self, config: MethodConfig | None = None) -> None:
        """No options."""
        self.config = config or MethodConfig()

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        return CallPlan((PlannedCall("answer", ("conversation",)),), "one answer")

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        got = await calls.sample(request.messages, step="answer")
        text, thought = read_answer(got)
        return calls.answer(text, thought=thought, finish_reason=got.finish_reason)
