"""Self-Refine: answer, give feedback on the answer, answer again; T times, no early stop.

Source: arXiv 2303.17651 as used by SpecBench (arXiv 2509.14760, section 4 and the official
code): 1 + 2T calls. The feedback call sees the question, the rules and the response; the refine
call sees the question and the last `history` pairs of response and feedback, numbered from 1, but
not the rules. Thoughts are dropped between the calls, and the answer has none. Usage is the sum of
all calls. Published T is 15 and the default; the official configuration file has 3.

A call that the limit cuts inside its thought, or that the server withholds or finds too long, ends
the refining: the answer so far stands (`ended_by`). The published code goes on with the cut
thought.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from adhere.chat import Answer, Capability, Models, Role, system, user
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
from adhere.methods.prompting import compose, enclosed, spec_text
from adhere.spec import Specification


class SelfRefineConfig(MethodConfig):
    """Options of `self_refine`."""

    iterations: int = Field(15, ge=1, le=100, description="T (paper 15, official configuration 3)")
    history: int = Field(1, ge=1, le=100, description="pairs of response and feedback shown")
    order: Order = "question_first"


class SelfRefine:
    """Feedback and refinement, in turn."""

    name: ClassVar[str] = "self_refine"
    Config: ClassVar[type[SelfRefineConfig]] = SelfRefineConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT})
    }

    def __init__(self, config: SelfRefineConfig | None = None) -> None:
        """Take the options."""
        self.config = config or SelfRefineConfig()

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        times = self.config.iterations
        review = ("question", "rules", "self_refine/feedback_system", "self_refine/feedback")
        refine = ("question", "self_refine/refine_system", "self_refine/refine")
        pairs = min(self.config.history, times)
        return CallPlan(
            (
                PlannedCall("answer", (self.config.order,)),
                PlannedCall("feedback", review, times, times, earlier=1),
                PlannedCall("refine", refine, times, times, earlier=2 * pairs),
            ),
            f"an answer, then {times} times feedback and a new answer",
        )

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        prompts, question = request.prompts, request.question
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, prompts, self.config.order)
        reviewer = system(
            prompts.render(
                "self_refine/feedback_system", question=question, rules=spec_text(request.spec)
            )
        )
        improver = system(prompts.render("self_refine/refine_system", question=question))
        got = await calls.sample(asked, step="answer")
        text, _ = read_answer(got)
        pairs: list[tuple[str, str]] = []
        done, ended = 0, ""
        for number in range(1, self.config.iterations + 1):
            try:
                # A draw of its own each time: a text that came out as it went in must not repeat
                # the same two calls for ever.
                feedback = await calls.sample(
                    [reviewer, user(prompts.render("self_refine/feedback", response=text))],
                    step=f"feedback {number}",
                    draw=number - 1,
                )
                pairs.append((text, read_answer(feedback)[0]))
                shown = "\n\n".join(
                    enclosed(response, f"response_{i}") + "\n" + enclosed(review, f"feedback_{i}")
                    for i, (response, review) in enumerate(pairs[-self.config.history :], 1)
                )
                better = await calls.sample(
                    [improver, user(prompts.render("self_refine/refine", history=shown))],
                    step=f"refine {number}",
                    draw=number - 1,
                )
                text, _ = read_answer(better)
            except (Truncated, Filtered, ContextTooLong) as error:
                ended = error.kind  # what there is stays the answer
                break
            got, done = better, number
        return calls.answer(
            text, finish_reason=got.finish_reason, facts={"iterations": done, "ended_by": ended}
        )
