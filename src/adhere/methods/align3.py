"""Align3: think in three stages before answering: behavior, then safety, then an audit of both.

Source: arXiv 2509.14760, section 4 and the official code. The thought is steered by *prefill*:
each stage appends a first-person turn with the rules it is about to the thought so far, and the
model goes on thinking until it closes the thought (`stop="</think>"`); the last stage runs
without a stop, closes the thought and answers: 3 calls.

What differs here, each named in the record:

* `close="model"` is the published form. `close="forced"` is for models that do not close a
  thought: each stage thinks for at most `think_tokens`, then the method closes the tag itself
  and asks for the answer in one more call. `auto` takes the form that fits the model.
* A server without prefill gets an *emulated* form over several turns, marked as not the
  published method.
* `stages` and their order are free (the paper ablates them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from adhere.chat import Answer, Capability, Completion, Message, Models, Role, assistant, user
from adhere.errors import BadInput, Truncated
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
from adhere.models.thinking import CLOSE, OPEN, plain_thought, split_thought
from adhere.spec import Specification

Stage = Literal["behavioral", "safety", "audit"]
Close = Literal["auto", "model", "forced"]


class Align3Config(MethodConfig):
    """Options of `align3`."""

    stages: tuple[Stage, ...] = Field(
        ("behavioral", "safety", "audit"), min_length=1, description="stages, in order"
    )
    close: Close = Field("auto", description="who closes the thought: the model, or the method")
    think_tokens: int = Field(
        256, ge=1, description="tokens of thought a stage may spend when the close is forced"
    )
    order: Order = "spec_first"


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
        if self.config.close == "forced" or (
            self.config.close == "auto" and Capability.THINKS not in capabilities
        ):
            return "forced close"
        return ""

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities.

        Each call's prompt holds the turns and the thoughts of the stages before it.
        """
        variant = self.variant(capabilities)
        prefix = "emulated_" if variant.startswith("emulated") else ""
        limit = self.config.think_tokens if variant == "forced close" else None
        stages = self._stages(spec)
        calls: list[PlannedCall] = []
        prompt: tuple[str, ...] = (self.config.order,)
        for number, stage in enumerate(stages):
            shown = "rules" if stage == "audit" else stage
            prompt = (*prompt, f"align3/{prefix}{stage}", shown)
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
        return await self._prefilled(calls, asked, forced=bool(variant))

    def _stages(self, spec: Specification) -> tuple[Stage, ...]:
        rules = {"behavioral": spec.behavioral, "safety": spec.safety, "audit": spec.rules}
        return tuple(stage for stage in self.config.stages if rules[stage])

    def _turns(self, request: Request, prefix: str = "") -> list[tuple[Stage, str]]:
        """Stage and text of each turn; a stage about a kind the spec has no rule of is left out."""
        spec = request.spec
        turns = [
            (
                stage,
                request.prompts.render(
                    f"align3/{prefix}{stage}", behavioral=spec.behavioral, safety=spec.safety
                ),
            )
            for stage in self._stages(spec)
        ]
        if not turns:
            raise BadInput("align3: the spec has no rule for any of the stages")
        return turns

    async def _prefilled(self, calls: Calls, asked: list[Message], *, forced: bool) -> Answer:
        sampling = calls.request.sampling
        thinking = sampling.but(stop=(*sampling.stop, CLOSE))
        if forced:
            thinking = thinking.but(max_tokens=self.config.think_tokens)
        turns = self._turns(calls.request)
        prefill = OPEN + "\n"
        cut_stages, closed = 0, True
        for number, (stage, turn) in enumerate(turns, 1):
            prefill = prefill + turn if number == 1 else f"{prefill}\n\n{turn}"
            last = number == len(turns)
            if last and not forced:
                break
            got = await calls.sample(
                asked, thinking, step=stage, prefill=prefill, paper_prompt=number == 1
            )
            # A server that ignores the stop must not smuggle an answer into the thought.
            # A server with a reasoning parser hands the thought over apart from the text.
            prefill += (got.text or got.reasoning).split(CLOSE)[0].rstrip()
            cut_stages += got.cut
        if forced:
            prefill += f"\n{CLOSE}\n\n"
            got = await calls.sample(asked, step="answer", prefill=prefill, paper_prompt=False)
            text = split_thought(got.text).answer.lstrip("\n")
            thought = plain_thought(prefill.split(CLOSE)[0])
        else:
            got = await calls.sample(
                asked, step=turns[-1][0], prefill=prefill, paper_prompt=len(turns) == 1
            )
            text, thought, closed = _close(prefill, got)
        return calls.answer(
            text,
            thought=thought,
            finish_reason=got.finish_reason,
            facts={
                "stages": [stage for stage, _ in turns],
                "close": "forced" if forced else "model",
                "emulated": False,
                "closed": closed,
                "cut_stages": cut_stages,
            },
        )

    async def _emulated(self, calls: Calls, asked: list[Message]) -> Answer:
        talk = list(asked)
        turns = self._turns(calls.request, "emulated_")
        thoughts = []
        for number, (stage, turn) in enumerate(turns, 1):
            # A conversation's turns alternate, so the first turn joins the question's.
            talk = _ask(talk, turn)
            got = await calls.sample(talk, step=stage, paper_prompt=number == 1)
            thought, _ = read_answer(got)
            thoughts.append(thought.strip())
            talk.append(assistant(thought))
        talk = _ask(talk, calls.request.prompts.render("align3/emulated_answer"))
        got = await calls.sample(talk, step="answer", paper_prompt=False)
        text, _ = read_answer(got)
        return calls.answer(
            text,
            thought="\n\n".join(thoughts),
            finish_reason=got.finish_reason,
            facts={
                "stages": [stage for stage, _ in turns],
                "close": "none",
                "emulated": True,
                "cut_stages": 0,
            },
        )


def _ask(talk: list[Message], turn: str) -> list[Message]:
    if talk and talk[-1].role == "user" and isinstance(talk[-1].content, str):
        return [*talk[:-1], user(f"{talk[-1].content}\n\n{turn}")]
    return [*talk, user(turn)]


def _close(prefill: str, got: Completion) -> tuple[str, str, bool]:
    """Answer, thought, and whether the model closed the thought, of the published last stage.

    A continuation that never closes the thought is, by the published rule, all answer; the row
    says so. One that the token limit cut inside the thought is no answer at all.
    """
    split = split_thought(got.text)
    if split.closed:
        return split.answer, plain_thought(prefill + split.thought), True
    if got.reasoning and got.text:
        return got.text, plain_thought(prefill + got.reasoning), True
    if got.cut or got.reasoning:
        raise Truncated("the token limit ended the thought before an answer began")
    return got.text, plain_thought(prefill), False
