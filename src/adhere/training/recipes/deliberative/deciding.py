"""The filters: whether a thought and an answer are good enough to be trained on.

* `checks`: the answer violates no rule that a check decides, of those that the teacher was shown.
  No model is asked. The same checks
  score the student in the end, so say so where its numbers stand.
* `guard` (arXiv 2604.09665): one call of a guard, on the question and what the teacher wrote. Its
  categories are the spec's safety rules, or its own.
* `ratings` (arXiv 2412.16339): a judge that sees what the teacher saw of the spec rates the answer
  `times` times; the least of all ratings has to reach the threshold.

What cannot be decided is never kept: unscored is not safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from adhere.chat import (
    Answer,
    Case,
    Mark,
    Message,
    Model,
    Models,
    Role,
    Sampling,
    Unscored,
    assistant,
    user,
)
from adhere.errors import AdhereError, CallError
from adhere.judging import JudgeConfig, ModelJudge
from adhere.judging.base import check_verdict
from adhere.judging.config import GUARD_TOKENS
from adhere.judging.parsing import Unreadable, parse_guard
from adhere.judging.replies import Spent, until_readable
from adhere.prompting import Prompts
from adhere.spec import Rule, Specification
from adhere.training.recipes.deliberative.composing import Composition
from adhere.training.recipes.deliberative.plan import DistillPlan
from adhere.training.recipes.deliberative.prompts import Prompt
from adhere.training.recipes.deliberative.reading import Taught

# Characters of a thought and an answer together that a judge reads: as long as B's may get.
LONGEST = 32_000


@dataclass(frozen=True)
class Decision:
    """What a filter says: `reason` is a key of `REASONS`, or "" to keep the row.

    `facts` are kept beside the row; `error` is the failed call because of which nothing was
    decided, with which the row fails.
    """

    reason: str = ""
    detail: str = ""
    facts: Mapping[str, Any] | None = None
    error: AdhereError | None = None


class Decider(Protocol):
    """A filter that asks the model of the role `judge`."""

    config: JudgeConfig
    store: Any

    @property
    def settings(self) -> dict[str, Any]:
        """What decides, apart from the weights behind the model's name."""

    @property
    def calls(self) -> tuple[int, int]:
        """Calls about one answer: the fewest, and the most."""

    def identity(self, models: Models) -> str:
        """Who decides, in full."""

    async def prepare(self, models: Models) -> None:
        """Find out what the server offers. Raises CallError or BadInput."""

    async def decide(
        self, prompt: Prompt, composed: Composition, taught: Taught, models: Models
    ) -> Decision:
        """Decide about what was taught."""


def make_decider(plan: DistillPlan, spec: Specification, templates: Prompts) -> Decider | None:
    """The filter of a plan that asks a judge, or None. Raises BadInput."""
    if plan.judge is None or plan.asking is None:
        return None
    if plan.asking == "guard":
        return GuardDecider(plan.judge, spec, templates, plan.guard_prompt, plan.sees_thought)
    from adhere.training.recipes.deliberative.rating import Rater

    return Rater(
        plan.judge,
        templates,
        plan.ratings,
        sees_thought=plan.sees_thought,
        seed=plan.sampling.seed,
    )


def decide_by_checks(rules: tuple[Rule, ...], case: Case, taught: Taught) -> Decision:
    """Whether the answer violates a rule that a check decides.

    `rules`: those that the teacher was shown. With `compose: relevant` a rule on another subject
    is none of them, and asks nothing of this answer.
    """
    verdict = check_verdict(rules, taught.answer, case.judged_prompt or case.prompt)
    if isinstance(verdict, Unscored):
        return Decision("unscored", verdict.reason)
    broken = [rule for rule, given in verdict.marks.items() if given.mark is Mark.NO]
    return Decision("violates", ", ".join(broken)) if broken else Decision()


class GuardDecider:
    """A guard in the Llama Guard format: `safe` or `unsafe`. Anything else decides nothing.

    `prompt` "spec": the safety rules stand in the prompt as its categories, also those with a
    check. "own": question and answer are sent as a conversation, about which the guard's own
    template asks (as published); the journal's draws then depend on that template.
    """

    def __init__(
        self,
        config: JudgeConfig,
        spec: Specification,
        templates: Prompts,
        prompt: str,
        sees_thought: bool,
    ) -> None:
        own = {"max_chars": LONGEST, **given_fields(config), "mode": "guard", "twins": False}
        self.config = JudgeConfig(**own)
        self.rules = replace(
            spec, rules=tuple(replace(r, check=None, applies=None) for r in spec.safety)
        )
        self.prompt = prompt
        self.sees_thought = sees_thought
        self.templates = templates
        self.judge = ModelJudge(self.config, templates)
        self.store: Any = None

    @property
    def decides_nothing(self) -> bool:
        """Whether it has no categories."""
        return self.prompt == "spec" and not self.rules.rules

    @property
    def settings(self) -> dict[str, Any]:
        """See `Decider.settings`."""
        return {**self.judge.settings, "prompt": self.prompt, "sees_thought": self.sees_thought}

    @property
    def calls(self) -> tuple[int, int]:
        """One, and again for each reply that cannot be read."""
        return 1, 1 + (self.config.reasks if self.prompt == "spec" else 0)

    def identity(self, models: Models) -> str:
        """See `Decider.identity`."""
        who = self.judge.identity(models)
        return who if self.prompt == "spec" else f"{who} categories=own"

    async def prepare(self, models: Models) -> None:
        """Nothing is to be found out: a guard's format is fixed."""

    async def decide(
        self, prompt: Prompt, composed: Composition, taught: Taught, models: Models
    ) -> Decision:
        """See `Decider.decide`."""
        text = shown(taught, sees_thought=self.sees_thought)
        if too_long := unread(text, self.config):
            return too_long
        if self.prompt == "own":
            case = prompt.case
            asked = (user(case.judged_prompt),) if case.judged_prompt else case.messages
            return await self._by_its_own(asked, text, models[Role.JUDGE])
        self.judge.store = self.store
        verdict = await self.judge.judge(prompt.case, Answer(text), self.rules, models)
        if isinstance(verdict, Unscored):
            error = verdict.error if isinstance(verdict.error, AdhereError) else None
            return Decision("unscored", verdict.reason, error=error)
        broken = [rule for rule, given in verdict.marks.items() if given.mark is Mark.NO]
        return Decision("unsafe", ", ".join(broken)) if broken else Decision()

    async def _by_its_own(self, messages: tuple[Message, ...], text: str, model: Model) -> Decision:
        sampling = Sampling(
            temperature=self.config.temperature, max_tokens=self.config.most_tokens(GUARD_TOKENS)
        )
        try:
            broken = await until_readable(
                [*messages, assistant(text)], sampling, parse_guard_reply, model, self.templates,
                Spent(), reasks=0,
            )  # fmt: skip
        except Unreadable as problem:
            return Decision("unscored", f"the guard's reply could not be read: {problem}")
        except CallError as error:
            return Decision("unscored", f"{error.kind}: {error.message}", error=error)
        return Decision() if broken is None else Decision("unsafe", broken)


def parse_guard_reply(text: str) -> str | None:
    """None for `safe`, or the categories of `unsafe` as one text. Raises Unreadable."""
    found = parse_guard(text)
    return ", ".join(f"S{number}" for number in found) if found else None


def shown(taught: Taught, *, sees_thought: bool) -> str:
    """What a guard is shown of what the teacher wrote: thought and answer, as one text."""
    return f"{taught.thought}\n\n{taught.answer}" if sees_thought else taught.answer


def unread(text: str, config: JudgeConfig) -> Decision | None:
    """The decision on a text of which a judge would read the beginning alone, or None."""
    if len(text) <= config.max_chars:
        return None
    return Decision("unscored", f"{len(text)} characters, of which {config.max_chars} are judged")


def given_fields(config: JudgeConfig) -> dict[str, Any]:
    """The fields that were given, as they were read."""
    return {name: getattr(config, name) for name in config.model_fields_set}
