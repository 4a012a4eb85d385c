"""Best-of-N: sample N answers, return the one that a selector scores highest.

Source: arXiv 2509.14760, appendix A and D.2: N = 15 and a reward model, which is the default
here. The candidates are draws of the vanilla prompt, so the first one is the vanilla answer and a
run that has both pays for it once. The paper draws them by one request with 15 samples; here each
is a request with a seed of its own, so that it can be resumed and shared, and the paper's count of
prompt tokens takes the prompt once. Ties go to the earliest candidate.

With `Request.spend` it is a control at equal tokens: it draws candidates in order until another
method's completion tokens are used up, however many that makes. The last candidate may go beyond.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from adhere.chat import Answer, Capability, Message, Models, Role
from adhere.errors import BadInput
from adhere.methods.base import (
    DRAWS_PER_REPEAT,
    CallPlan,
    Calls,
    Emit,
    MethodConfig,
    Order,
    PlannedCall,
    Request,
    ignore,
)
from adhere.methods.candidates import (
    SHOWN,
    Candidate,
    Scorer,
    Selector,
    best,
    draw_all,
    needs,
    out_of_race,
    without_winner,
)
from adhere.methods.prompting import compose
from adhere.spec import Specification

AT_ONCE = 8  # candidates in flight while tokens are spent
WITHOUT_TOKENS = 8  # draws in a row that count no token before spending gives up


class BestOfNConfig(MethodConfig):
    """Options of `best_of_n`."""

    n: int = Field(15, ge=1, le=DRAWS_PER_REPEAT, description="candidates (published: 15)")
    selector: Selector = Field(
        "reward",
        description="`reward`: a reward model (published); `checks`: an oracle; `random`: control",
    )
    rules: tuple[str, ...] | None = Field(
        None, description="ids of the rules that `checks` selects by; all"
    )
    order: Order = "question_first"


class BestOfN:
    """Sample N, keep the best."""

    name: ClassVar[str] = "best_of_n"
    Config: ClassVar[type[BestOfNConfig]] = BestOfNConfig
    can_spend = True

    def __init__(self, config: BestOfNConfig | None = None) -> None:
        """Take the options."""
        self.config = config or BestOfNConfig()
        self.oracle = self.config.selector == "checks"

    @property
    def requires(self) -> Mapping[Role, frozenset[Capability]]:
        """A reward model only when one selects."""
        return needs(self.config.selector)

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        n, order = self.config.n, self.config.order
        calls = [PlannedCall("candidates", (order,), n, n)]
        if self.config.selector == "reward":
            scoring = PlannedCall("rewards", (order,), n, n, 1, max_tokens=0, role=Role.REWARD)
            calls.append(scoring)
        return CallPlan(tuple(calls), f"{n} candidates", at_once=n)

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        config = self.config
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, config.order)
        scorer = Scorer.of(config.selector, calls, asked, config.order, config.rules)
        if request.spend is None:
            drawn = await _draw(calls, asked, 0, config.n, share=config.n)
        else:
            drawn = await _spend(calls, asked, request.spend)
        if config.selector == "random":
            picked = _by_chance(request, drawn)
        else:
            drawn = await scorer.scored(drawn)
            place = best(drawn)
            picked = without_winner(drawn) if place is None else place
        chosen = drawn[picked]
        facts: dict[str, Any] = {
            "candidates": len(drawn),
            "picked": picked,
            "scores": [candidate.score for candidate in drawn],
            "selector": SHOWN[config.selector],
            "out_of_race": out_of_race(drawn),
        }
        if request.spend is not None:
            facts |= {"spend": request.spend, "spent": calls.completion_tokens}
        return calls.answer(
            chosen.text, thought=chosen.thought, finish_reason=chosen.finish_reason, facts=facts
        )


def _by_chance(request: Request, drawn: list[Candidate]) -> int:
    """Seeded by the prompt, and blind to how long or readable a candidate is."""
    picked = random.Random(request.question).randrange(len(drawn))  # noqa: S311
    if (error := drawn[picked].error) is not None:
        raise error  # the row ends as that candidate did
    return picked


async def _draw(
    calls: Calls, asked: list[Message], first: int, n: int, share: int
) -> list[Candidate]:
    numbers = range(first, first + n)
    return await draw_all(
        calls,
        asked,
        calls.share(share),
        numbers,
        names=[f"candidate {number + 1}" for number in numbers],
        paper_prompt=first == 0,
    )


async def _spend(calls: Calls, asked: list[Message], spend: int) -> list[Candidate]:
    """Draw until `spend` completion tokens are used, and at most one call more.

    As many run at once as are sure to fit, each taken at its limit or, without one, at the longest
    so far. Raises BadInput when the server counts no tokens.
    """
    budget = calls.request.budget.tokens
    goal = spend if budget is None else min(spend, budget)
    limit = calls.request.sampling.max_tokens
    drawn: list[Candidate] = []
    last_count = longest = idle = 0
    while not drawn or (calls.completion_tokens < goal and len(drawn) < DRAWS_PER_REPEAT):
        used = calls.completion_tokens
        idle = 0 if used > last_count else idle
        if idle >= WITHOUT_TOKENS:
            break
        last_count = used
        fits = (goal - used) // (limit or longest or goal)
        n = max(1, min(fits, AT_ONCE, DRAWS_PER_REPEAT - len(drawn)))
        drawn += (new := await _draw(calls, asked, len(drawn), n, share=1))
        idle += n
        counts = [c.completion.usage.completion_tokens for c in new if c.completion]
        longest = max([longest, *counts])
    if calls.completion_tokens == 0 and any(candidate.completion for candidate in drawn):
        raise BadInput(
            "this server counts no completion tokens, so no number of them can be used up",
            hint="Compare by a fixed `n` instead of `equal_tokens_to`.",
        )
    return drawn
