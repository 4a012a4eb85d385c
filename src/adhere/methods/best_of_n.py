"""Best-of-N: sample N answers, return the one that a selector scores highest.

Source: arXiv 2509.14760, appendix A and D.2 (N=15, a reward model). Here the selector is the
rules' own checks, which also score the result: an oracle selector, and labeled so. Ties go to
the earliest candidate. The candidates are draws of the vanilla prompt, so the first one is the
vanilla answer and a run that has both pays for it once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from adhere.chat import Answer, Capability, Completion, Message, Models, Role
from adhere.errors import Filtered, Truncated
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
from adhere.methods.selecting import by_checks, selecting_rules
from adhere.spec import Specification


class BestOfNConfig(MethodConfig):
    """Options of `best_of_n`."""

    n: int = Field(15, ge=1, le=1024, description="candidates (published: 15)")
    selector: Literal["checks", "random"] = Field(
        "checks", description="`checks` is an oracle; `random` is its control at equal tokens"
    )
    rules: tuple[str, ...] | None = Field(None, description="ids of the rules to select by; all")
    order: Order = "spec_first"


class BestOfN:
    """Sample N, keep the best."""

    name: ClassVar[str] = "best_of_n"
    Config: ClassVar[type[BestOfNConfig]] = BestOfNConfig
    requires: ClassVar[Mapping[Role, frozenset[Capability]]] = {
        Role.POLICY: frozenset({Capability.CHAT})
    }

    def __init__(self, config: BestOfNConfig | None = None) -> None:
        """Take the options."""
        self.config = config or BestOfNConfig()
        self.oracle = self.config.selector == "checks"

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        n = self.config.n
        candidates = PlannedCall("candidates", (self.config.order,), n, n)
        return CallPlan((candidates,), f"{n} candidates", at_once=n)

    async def _candidate(
        self, calls: Calls, asked: list[Message], index: int
    ) -> tuple[Completion, str, str]:
        got = await calls.sample(
            asked,
            calls.share(self.config.n),
            step=f"candidate {index + 1}",
            draw=index,
            paper_prompt=index == 0,
            stream=False,
        )
        return (got, *read_answer(got))

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        drawn = await asyncio.gather(
            *(self._candidate(calls, asked, index) for index in range(self.config.n)),
            return_exceptions=True,
        )
        readable: list[tuple[int, Completion, str, str]] = []
        for index, got in enumerate(drawn):
            if isinstance(got, BaseException):
                # A candidate that was withheld or cut inside its thought is out of the race.
                if not isinstance(got, Truncated | Filtered):
                    raise got
                continue
            readable.append((index, *got))
        if not readable:
            raise next(got for got in drawn if isinstance(got, BaseException))
        scores: list[float] = []
        if self.config.selector == "checks":
            rules = selecting_rules(request, self.config.rules)
            # An empty text breaks few rules of form; it never wins against an answer.
            scores = [
                by_checks(request, text, rules).score if text.strip() else -1.0
                for _, _, text, _ in readable
            ]
            best = max(range(len(readable)), key=lambda i: (scores[i], -i))
        else:
            # Seeded by the prompt, and blind to how long or readable a candidate is.
            wanted = random.Random(request.question).randrange(self.config.n)  # noqa: S311
            best = next((i for i, one in enumerate(readable) if one[0] == wanted), -1)
            if best < 0:
                raise Truncated("the candidate picked at random came to no answer")
        index, completion, text, thought = readable[best]
        return calls.answer(
            text,
            thought=thought,
            finish_reason=completion.finish_reason,
            facts={
                "candidates": len(drawn),
                "picked": index,
                "scores": scores,
                "selector": "checks (oracle)" if self.oracle else "random",
            },
        )
