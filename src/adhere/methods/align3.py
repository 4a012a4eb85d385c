"""Align3: think in three stages before answering: behavior, then safety, then an audit of both.

Source: arXiv 2509.14760, section 4 and the official code. The thought is steered by *prefill*:
each stage appends a first-person turn with the rules it is about to the thought so far, and the
model goes on thinking until it closes the thought; the last stage closes it and answers: 3 calls
(`methods/staged.py`).

Options beyond the published form, each named in the record:

* `safety_stage`: paper and official code word the second turn differently, so each content is
  there. `code` (default, the one that the published numbers come from): safety first by a positive
  turn of the answer, still under the behavioral rules, refusal as the last resort. `paper`: drop
  what is harmful and answer from another side, refuse if that is impossible.
* `close="forced"` is for models that do not close a thought: each stage thinks for at most
  `think_tokens`, then the method closes the tag itself and asks for the answer in one more call.
  `auto` takes the form that fits the model.
* `stages`: any of them, in any order (the paper ablates both).
* A server without prefill gets an *emulated* form over several turns, marked as not the
  published method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from adhere.chat import Answer, Capability, Message, Models, Role, assistant, user
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
    read_answer,
)
from adhere.methods.prompting import compose
from adhere.methods.staged import FORCED, Close, Stage, is_forced, run_stages, shared
from adhere.models.thinking import OPEN
from adhere.spec import Specification

StageName = Literal["behavioral", "safety", "audit"]


class Align3Config(MethodConfig):
    """Options of `align3`."""

    stages: tuple[StageName, ...] = Field(
        ("behavioral", "safety", "audit"), min_length=1, description="stages, in order"
    )
    safety_stage: Literal["code", "paper"] = Field(
        "code", description="content of the stage of safety: the official code's, or the paper's"
    )
    close: Close = Field("auto", description="who closes the thought: the model, or the method")
    think_tokens: int = Field(
        256, ge=1, description="tokens of thought a stage may spend when the close is forced"
    )
    order: Order = "question_first"


class Align3:
    """Think about behavior, about safety, about both; then answer."""

    name: ClassVar[str] = "align3"
    Config: ClassVar[type[Align3Config]] = Align3Config
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT})
    }

    def __init__(self, config: Align3Config | None = None) -> None:
        """Take the options."""
        self.config = config or Align3Config()

    def variant(self, capabilities: frozenset[Capability]) -> str:
        """Which form a model with these capabilities gets; "" is the published one."""
        if Capability.PREFILL not in capabilities:
            return "emulated, no prefill"
        return FORCED if is_forced(self.config.close, capabilities) else ""

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities.

        Each call's prompt holds the turns and the thoughts of the stages before it.
        """
        variant = self.variant(capabilities)
        prefix = "emulated_" if variant.startswith("emulated") else ""
        limit = self.config.think_tokens if variant == FORCED else None
        stages = self._stages(spec)
        calls: list[PlannedCall] = []
        prompt: tuple[str, ...] = (self.config.order,)
        for number, stage in enumerate(stages):
            shown = "rules" if stage == "audit" else stage
            prompt = (*prompt, self._template(stage, prefix), shown)
            calls.append(PlannedCall(stage, prompt, earlier=number, max_tokens=limit))
        if variant:
            asked = ("align3/emulated_answer",) if prefix else ()
            calls.append(PlannedCall("answer", (*prompt, *asked), earlier=len(stages)))
        last = "and an answer" if variant else "the last of which answers"
        return CallPlan(tuple(calls), f"{len(stages)} stages of thought, {last}")

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        variant = self.variant(calls.model().capabilities)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        if variant.startswith("emulated"):
            return await self._emulated(calls, asked)
        turns = self._turns(request)
        first, *others = turns
        return await run_stages(
            calls,
            asked,
            [
                Stage(first.name, f"{OPEN}\n{first.words}"),
                *(Stage(name, f"\n\n{turn}") for name, turn in others),
            ],
            self._facts(turns, emulated=False),
            stage_tokens=self.config.think_tokens if variant else None,
        )

    def _stages(self, spec: Specification) -> tuple[StageName, ...]:
        rules = {"behavioral": spec.behavioral, "safety": spec.safety, "audit": spec.rules}
        return tuple(stage for stage in self.config.stages if rules[stage])

    def _template(self, stage: StageName, prefix: str) -> str:
        content = f"_{self.config.safety_stage}" if stage == "safety" else ""
        return f"align3/{prefix}{stage}{content}"

    def _turns(self, request: Request, prefix: str = "") -> list[Stage]:
        """Name and text of each turn; a stage about a kind the spec has no rule of is left out."""
        spec = request.spec
        turns = [
            Stage(
                stage,
                request.prompts.render(
                    self._template(stage, prefix), behavioral=spec.behavioral, safety=spec.safety
                ),
            )
            for stage in self._stages(spec)
        ]
        if not turns:
            raise BadInput("align3: the spec has no rule for any of the stages")
        return turns

    def _facts(self, turns: list[Stage], *, emulated: bool) -> dict[str, Any]:
        names = [turn.name for turn in turns]
        content = {"safety_stage": self.config.safety_stage} if "safety" in names else {}
        return {"stages": names, **content, "emulated": emulated}

    async def _emulated(self, calls: Calls, asked: list[Message]) -> Answer:
        talk = list(asked)
        own = calls.request.sampling
        turns = self._turns(calls.request, "emulated_")
        thoughts, cut_stages = [], 0
        for number, (stage, turn) in enumerate(turns):
            # A conversation's turns alternate, so the first turn joins the question's.
            talk = _ask(talk, turn)
            part = shared(calls, own, len(turns) + 1 - number)
            got = await calls.sample(talk, part, step=stage, paper_prompt=number == 0)
            thought, _ = read_answer(got)
            thoughts.append(thought.strip())
            cut_stages += got.cut
            talk.append(assistant(thought))
        talk = _ask(talk, calls.request.prompts.render("align3/emulated_answer"))
        got = await calls.sample(talk, step="answer", paper_prompt=False)
        text, _ = read_answer(got)
        return calls.answer(
            text,
            thought="\n\n".join(thoughts),
            finish_reason=got.finish_reason,
            facts={
                **self._facts(turns, emulated=True),
                "close": "none",
                "cut_stages": cut_stages,
            },
        )


def _ask(talk: list[Message], turn: str) -> list[Message]:
    if talk and talk[-1].role == "user" and isinstance(talk[-1].content, str):
        return [*talk[:-1], user(f"{talk[-1].content}\n\n{turn}")]
    return [*talk, user(turn)]
