"""Best-of-N: sample N answers, return the one that a selector scores highest.

Source: arXiv 2509.14760, appendix A and D.2 (N=15, a reward model). Here the selector is the
rules' own checks, which also score the result: an oracle selector, and labeled so. Ties go to
the earliest candidate. The candidates are draws of the vanilla prompt, so the first one is the
vanilla answer and a run that has both pays for it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from adhere.chat import Answer, Capability, Models, Role
from adhere.errors import Truncated
from adhere.methods.base import Calls, Emit, MethodConfig, Order, Request, ignore, read_answer
from adhere.methods.prompting import compose
from adhere.methods.selecting import by_checks, selecting_rules


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

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, self.config.order)
        drawn = await calls.sample(asked, step="candidate", n=self.config.n)
        readable: list[tuple[int, str, str]] = []
        for index, completion in enumerate(drawn):
            try:
                text, thought = read_answer(completion)
            except Truncated:
                continue
            readable.append((index, text, thought))
        if not readable:
            raise Truncated("no candidate came to an answer within the token limit")
        scores: list[float] = []
        if self.config.selector == "checks":
            rules = selecting_rules(request, self.config.rules)
            # An empty text breaks few rules of form; it never wins against an answer.
            scores = [
                by_checks(request, text, rules).score if text.strip() else -1.0
                for _, text, _ in readable
            ]
            best = max(range(len(readable)), key=lambda i: (scores[i], -i))
        else:
            # Draws are exchangeable, so the last one is a random pick that vanilla did not make.
            best = len(readable) - 1
        index, text, thought = readable[best]
        return calls.answer(
            text,
            thought=thought,
            finish_reason=drawn[index].finish_reason,
            facts={
                "candidates": len(drawn),
                "picked": index,
                "scores": scores,
                "selector": "checks (oracle)" if self.oracle else "random",
            },
        )
