"""TPO: candidates, written criticism of the best against the worst, new candidates; D times.

Source: test-time preference optimization (arXiv 2501.12895 and its code), as arXiv 2509.14760 uses
it: D = 2 iterations of N = 5 samples. N candidates of the vanilla prompt are scored. Then each
iteration takes the best and the worst *of all candidates so far* and makes

1. a loss call: why is the best better than the worst (`mode="revision"`: what of it is good and
   bad, without a worst one),
2. a gradient call: from that conversation, what should change,
3. N update draws: the text written anew, each between tags,

and scores what came. The answer is the best of all candidates. The paper counts 1 + 3D requests,
because N samples are one request there; here each draw is a request, N + D(2 + N) of them, and
the paper's count of prompt tokens takes a prompt of N draws once.

Decisions where the sources are silent or this differs:

* *The request* in the loss call is the published form of the prompt (question, rules,
  instruction), whatever `order` is: how the rules reached TPO in SpecBench is not documented.
* Best and worst are cut to 8,192 characters in the loss call (published: 2,048 tokens of the
  reward model). The answer is never cut.
* An update counts from its first opening tag to the next closing one, or to the end when it is
  never closed, as TextGrad reads it. Without an opening tag, or empty, it is dropped and counted
  (`unparsable_updates`; the published code drops it silently).
* Texts may hold anything: the published `<SEP>`-joined cache breaks on a text with `<SEP>`.
* Thoughts are dropped between calls. When the limit cuts or the server withholds a review, the
  best candidate so far is the answer, and `ended_by` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from adhere.chat import Answer, Capability, Message, Models, Role, Sampling, system, user
from adhere.errors import ContextTooLong, Filtered, Truncated
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
    read_answer,
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
    worst,
)
from adhere.methods.prompting import compose
from adhere.spec import Specification

OPENING, CLOSING = "<improved>", "</improved>"
SHOWN_CHARACTERS = 8192  # of a candidate in the loss call
SHORT_WORDS = 10  # at each end of a shortened text
UNPARSABLE = "unparsable"


class TpoConfig(MethodConfig):
    """Options of `tpo`."""

    iterations: int = Field(2, ge=1, le=100, description="D (published: 2 on SpecBench)")
    n: int = Field(5, ge=1, le=256, description="N, candidates and updates each time (5)")
    mode: Literal["tpo", "revision"] = Field(
        "tpo", description="`revision`: without a rejected answer"
    )
    selector: Selector = Field(
        "reward",
        description="`reward`: a reward model (published); `checks`: an oracle; `random`: control",
    )
    rules: tuple[str, ...] | None = Field(
        None, description="ids of the rules that `checks` selects by; all"
    )
    critique_temperature: float | None = Field(0.7, ge=0, le=10)
    critique_top_p: float | None = Field(0.99, gt=0, le=1)
    critique_tokens: int = Field(8192, ge=1, description="limit of a loss or gradient call")
    order: Order = "question_first"

    @model_validator(mode="after")
    def _draws_of_one_repeat(self) -> Self:
        if self.iterations * self.n > DRAWS_PER_REPEAT:
            raise ValueError(f"iterations times n is more than {DRAWS_PER_REPEAT}")
        return self


class Tpo:
    """Improve the best candidate by criticism of it against the worst."""

    name: ClassVar[str] = "tpo"
    Config: ClassVar[type[TpoConfig]] = TpoConfig

    def __init__(self, config: TpoConfig | None = None) -> None:
        """Take the options."""
        self.config = config or TpoConfig()
        self.oracle = self.config.selector == "checks"

    @property
    def requires(self) -> Mapping[Role, frozenset[Capability]]:
        """A reward model only when one selects."""
        return needs(self.config.selector)

    def expected_calls(self, capabilities: frozenset[Capability], spec: Specification) -> CallPlan:
        """The calls of one answer under `spec` by a model with these capabilities."""
        config = self.config
        d, n, limit = config.iterations, config.n, config.critique_tokens
        shown = 1 if config.mode == "revision" else 2
        loss = ("question_first", "tpo/loss_system", "tpo/loss")
        gradient = ("question_first", "tpo/gradient_system", "tpo/gradient")
        update = ("question_first", "tpo/update_system", "tpo/update")
        calls = [
            PlannedCall("candidates", (config.order,), n, n),
            PlannedCall("loss", loss, d, d, shown, max_tokens=limit),
            PlannedCall("gradient", gradient, d, d, shown + 1, max_tokens=limit),
            PlannedCall("updates", update, d * n, d * n, shown + 2),
        ]
        if config.selector == "reward":
            most = n * (1 + d)  # an update that cannot be read is not scored
            scoring = PlannedCall("rewards", (config.order,), n, most, 1, 0, Role.REWARD)
            calls.append(scoring)
        why = f"{n} candidates, then {d} times a review, criticism of it and {n} updates"
        return CallPlan(tuple(calls), why, at_once=n)

    async def answer(self, request: Request, models: Models, *, emit: Emit = ignore) -> Answer:
        """See `Method.answer`."""
        config = self.config
        calls = Calls(request, models, emit)
        asked = compose(request.messages, request.spec, request.prompts, config.order)
        scorer = Scorer.of(config.selector, calls, asked, config.order, config.rules)
        share = calls.share(config.n + config.iterations * (config.n + 2))
        numbers = range(config.n)
        names = [f"candidate {number + 1}" for number in numbers]
        cache = await draw_all(calls, asked, share, numbers, names=names)
        cache = await scorer.scored(cache)
        ended = ""
        if best(cache) is not None:
            step = _Step(config, calls, _request_text(request), share)
            for iteration in range(config.iterations):
                try:
                    updates = await step.updates(cache, iteration)
                except (Truncated, Filtered, ContextTooLong) as error:
                    ended = error.kind  # what there is stays the answer
                    break
                cache += await scorer.scored(updates, first=len(cache))
        place = best(cache)
        picked = without_winner(cache) if place is None else place
        chosen = cache[picked]
        return calls.answer(
            chosen.text,
            thought=chosen.thought,
            finish_reason=chosen.finish_reason,
            facts=_facts(config, cache, picked, ended),
        )


def _facts(
    config: TpoConfig, cache: Sequence[Candidate], picked: int, ended: str
) -> dict[str, Any]:
    """The whole table of scores: the first candidates, then the updates of each iteration."""
    n = config.n
    rounds = [cache[start : start + n] for start in range(0, len(cache), n)]
    return {
        "candidates": len(cache),
        "picked": picked,
        "iteration": picked // n,
        "scores": [[candidate.score for candidate in one] for one in rounds],
        "selector": SHOWN[config.selector],
        "mode": config.mode,
        "out_of_race": out_of_race(cache),
        "unparsable_updates": sum(candidate.out == UNPARSABLE for candidate in cache),
        "barren_iterations": sum(all(c.score is None for c in one) for one in rounds[1:]),
        "ended_by": ended,
    }


@dataclass(frozen=True)
class _Step:
    """One iteration: the loss, its gradient, the updates."""

    config: TpoConfig
    calls: Calls
    request: str
    share: Sampling

    async def updates(self, cache: Sequence[Candidate], iteration: int) -> list[Candidate]:
        """New candidates. A call of its own draw each time: equal prompts must not repeat it."""
        prompts, n = self.calls.request.prompts, self.config.n
        high, low = best(cache), worst(cache)
        assert high is not None
        assert low is not None
        compares = self.config.mode == "tpo"
        chosen = cache[high].text[:SHOWN_CHARACTERS]
        rejected = cache[low].text[:SHOWN_CHARACTERS] if compares else None
        instruction = prompts.render("tpo/loss_system", request=self.request, rejected=rejected)
        given = prompts.render("tpo/loss", chosen=chosen, rejected=rejected)
        review = await self._critique(
            [system(instruction), user(given)], f"loss {iteration + 1}", iteration
        )
        known: dict[str, Any] = {
            "role": "the preferred answer to a request" if compares else "an answer to a request",
            "shortened": shortened(chosen),
            "instruction": instruction,
            "given": given,
            "review": review,
        }
        criticism = await self._critique(
            [
                system(prompts.render("tpo/gradient_system")),
                user(prompts.render("tpo/gradient", objective=_OBJECTIVE[compares], **known)),
            ],
            f"gradient {iteration + 1}",
            iteration,
        )
        tags = {"opening": OPENING, "closing": CLOSING}
        constraints = _CONSTRAINTS[compares]
        rewrite = prompts.render(
            "tpo/update", criticism=criticism, constraints=constraints, **known, **tags
        )
        drawn = await draw_all(
            self.calls,
            [system(prompts.render("tpo/update_system", **tags)), user(rewrite)],
            self.share,
            range(iteration * n, (iteration + 1) * n),
            names=[f"update {iteration + 1}.{number + 1}" for number in range(n)],
        )
        return [_parsed(candidate) for candidate in drawn]

    async def _critique(self, messages: list[Message], step: str, number: int) -> str:
        config = self.config
        limit = config.critique_tokens
        if self.calls.request.budget.tokens is not None and self.share.max_tokens is not None:
            limit = min(limit, self.share.max_tokens)
        sampling = replace(
            self.share,
            temperature=config.critique_temperature,
            top_p=config.critique_top_p,
            max_tokens=limit,
        )
        got = await self.calls.sample(messages, sampling, step=step, draw=number)
        return read_answer(got)[0]


_OBJECTIVE = {
    True: "an answer that is to be preferred still more clearly to the one that was turned down.",
    False: "a better answer to the request.",
}
_CONSTRAINTS = {
    True: (
        "Write only an answer of the kind that is preferred.",
        "Write none of the kind that was turned down.",
    ),
    False: ("Write only an answer to the request.",),
}


def _request_text(request: Request) -> str:
    """The question with its rules, as the published prompt puts them."""
    asked = compose(request.messages, request.spec, request.prompts, "question_first")
    return next(m.text for m in reversed(asked) if m.role == "user")


def shortened(text: str) -> str:
    """The first and last ten words; the whole of a text that has no more than twenty."""
    words = text.split()
    if len(words) <= 2 * SHORT_WORDS:
        return text
    return f"{' '.join(words[:SHORT_WORDS])} [...] {' '.join(words[-SHORT_WORDS:])}"


def _parsed(candidate: Candidate) -> Candidate:
    """The update's text between its tags. One without an opening tag, or empty, is out."""
    if candidate.error is not None:
        return candidate
    _, tag, rest = candidate.text.partition(OPENING)
    text = rest.partition(CLOSING)[0].strip()
    if not tag or not text:
        return replace(candidate, text="", out=UNPARSABLE)
    return replace(candidate, text=text)
