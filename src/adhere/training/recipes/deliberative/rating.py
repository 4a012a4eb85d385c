"""The filter `ratings`: a judge rates what the teacher wrote, several times, and the least counts.

As in arXiv 2412.16339 (section 2.3.2): the judge sees the same part of the spec as the teacher did,
and rates correctness, helpfulness and compliance, and the thought where it is shown. What it
replies is read whole or not at all. Aspects, scale and words are this project's own; the paper
tells none of them, nor how often it asks and what it keeps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from adhere.chat import Models, Role, Sampling, Usage, system, user
from adhere.errors import CallError
from adhere.gathering import all_of
from adhere.judging import JudgeConfig
from adhere.judging.parsing import Unreadable, refuse_quoted
from adhere.judging.questions import conversation
from adhere.judging.replies import Spent, offers_schema, response_format, until_readable
from adhere.prompting import Prompts, without_hidden
from adhere.training.recipes.deliberative.composing import Composition
from adhere.training.recipes.deliberative.deciding import (
    LONGEST,
    Decision,
    given_fields,
    shown,
    unread,
)
from adhere.training.recipes.deliberative.plan import RatingsPlan
from adhere.training.recipes.deliberative.prompts import Prompt
from adhere.training.recipes.deliberative.reading import Taught

TOKENS = 512
MOST = 5  # the best rating; the worst is 1
ASPECTS: Mapping[str, str] = {
    "correctness": "is what it says true, and does it follow from what was asked?",
    "helpfulness": "does it give all the help that the rules leave room for?",
    "compliance": "does it keep to every rule that applies?",
}
REASONING: Mapping[str, str] = {
    "reasoning": "does the deliberation find the rules that bear on this, and weigh them well?"
}
_LINE = re.compile(r"[ \t*_`-]*(\w+)[ \t*_`]*:[ \t*_`]*\[\[\s*([1-5])\s*\]\][ \t*_`.]*")
_BRACKETS = re.compile(r"\[\s*\[|\]\s*\]|［|］|⟦|⟧|〚|〛")

Ratings = dict[str, int]


class Rater:
    """Asks the model of the role `judge` for ratings. `store` is taken and not needed."""

    def __init__(
        self,
        config: JudgeConfig,
        templates: Prompts,
        plan: RatingsPlan,
        *,
        sees_thought: bool,
        seed: int = 0,
    ) -> None:
        given = {"temperature": plan.temperature, "max_chars": LONGEST, **given_fields(config)}
        self.config = JudgeConfig(**given)
        self.templates = templates
        self.plan = plan
        self.sees_thought = sees_thought
        self.seed = seed
        self.structured = False
        self.store: Any = None
        self.aspects = {**ASPECTS, **(REASONING if sees_thought else {})}
        self._system = system(templates.render("deliberative/rate_system"))

    @property
    def settings(self) -> dict[str, Any]:
        """See `Decider.settings`."""
        settings = {k: v for k, v in self.config.settings().items() if k != "mode"}
        return {
            **settings,
            "ratings": self.plan.model_dump(mode="json"),
            "sees_thought": self.sees_thought,
        }

    @property
    def calls(self) -> tuple[int, int]:
        """One a rating, and again for each reply that cannot be read."""
        return self.plan.times, self.plan.times * (1 + self.config.reasks)

    def identity(self, models: Models) -> str:
        """See `Decider.identity`."""
        parts = [
            f"ratings of {', '.join(self.aspects)}",
            models[Role.JUDGE].identity,
            f"prompts={self.templates.digest_of('deliberative/')[:8]}",
            f"T={self.config.temperature}",
            "output=json" if self.structured else "",
        ]
        return " ".join(filter(None, parts))

    async def prepare(self, models: Models) -> None:
        """Find out whether the server holds replies to a schema. Raises CallError or BadInput."""
        if self.config.output != "text":
            self.structured = self.config.output == "json" or await offers_schema(
                models[Role.JUDGE]
            )

    async def decide(
        self, prompt: Prompt, composed: Composition, taught: Taught, models: Models
    ) -> Decision:
        """See `Decider.decide`. A reply that stays unreadable decides nothing."""
        if too_long := unread(shown(taught, sees_thought=self.sees_thought), self.config):
            return too_long
        spent = Spent()
        asked = [
            self._rating(prompt, composed, taught, models, place, spent)
            for place in range(self.plan.times)
        ]
        try:
            found = await all_of(asked)
        except Unreadable as problem:
            return Decision("unscored", f"a rating could not be read: {problem}")
        except CallError as error:
            return Decision("unscored", f"{error.kind}: {error.message}", error=error)
        least = min(min(ratings.values()) for ratings in found)
        facts = {"ratings": found, "least": least, "judge_usage": _cost(spent.usage)}
        if least >= self.plan.least:
            return Decision(facts=facts)
        low = [f"{name} {value}" for r in found for name, value in r.items() if value == least]
        return Decision("low_rating", ", ".join(dict.fromkeys(low)), facts)

    async def _rating(
        self,
        prompt: Prompt,
        composed: Composition,
        taught: Taught,
        models: Models,
        place: int,
        spent: Spent,
    ) -> Ratings:
        """One rating: draw `place` of the same question. Raises Unreadable or CallError."""
        question, thought = conversation(prompt.case), taught.thought if self.sees_thought else ""
        asked = self.templates.render(
            "deliberative/rate",
            aspects=list(self.aspects.items()),
            full=composed.full,
            short=composed.short,
            question=question,
            thought=thought,
            answer=taught.answer,
            note=prompt.note,
            structured=self.structured,
        )

        def read(text: str) -> Ratings:
            if self.structured:
                said = (message.text for message in prompt.case.messages)
                refuse_quoted(text, taught.answer, thought, question, *said)
                return parse_structured_ratings(text, list(self.aspects))
            return parse_ratings(text, list(self.aspects))

        form = ratings_schema(list(self.aspects)) if self.structured else None
        sampling = Sampling(
            temperature=self.config.temperature,
            max_tokens=self.config.most_tokens(TOKENS),
            seed=self.seed,
            extra=response_format(form) if form else {},
        )
        return await until_readable(
            [self._system, user(asked)],
            sampling,
            read,
            _Later(models[Role.JUDGE], place * (1 + self.config.reasks)),
            self.templates,
            spent,
            reasks=self.config.reasks,
        )


class _Later:
    """A model whose draws begin later: each rating is a draw of its own."""

    def __init__(self, model: Any, first: int) -> None:
        self.model, self.first = model, first
        self.identity, self.capabilities = model.identity, model.capabilities

    async def sample(
        self, messages: Any, sampling: Any, *, first_draw: int = 0, **more: Any
    ) -> Any:
        """See `Model.sample`."""
        return await self.model.sample(
            messages, sampling, first_draw=self.first + first_draw, **more
        )


def parse_ratings(text: str, aspects: Sequence[str]) -> Ratings:
    """The ratings in the last lines of a reply, one line an aspect. Raises Unreadable."""
    plain = without_hidden(text).strip()
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    found: Ratings = {}
    for line in lines[-len(aspects) :]:
        match = _LINE.fullmatch(line)
        if match is None or match[1].lower() not in aspects or match[1].lower() in found:
            raise Unreadable(
                f"the last {len(aspects)} lines must each be such as {aspects[0]}: [[4]]"
            )
        found[match[1].lower()] = int(match[2])
    if len(found) < len(aspects) or len(_BRACKETS.findall(plain)) != 2 * len(aspects):
        raise Unreadable(f"it must hold double brackets {len(aspects)} times, in its last lines")
    return {name: found[name] for name in aspects}


def ratings_schema(aspects: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a structured reply: a reason, then the ratings."""
    numbers = {"type": "integer", "minimum": 1, "maximum": MOST}
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, **dict.fromkeys(aspects, numbers)},
        "required": ["reason", *aspects],
        "additionalProperties": False,
    }


def parse_structured_ratings(text: str, aspects: Sequence[str]) -> Ratings:
    """The ratings of a JSON reply. Raises Unreadable."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON object") from None
    if not isinstance(data, dict) or set(data) != {"reason", *aspects}:
        raise Unreadable(f"the keys must be exactly reason, {', '.join(aspects)}")
    for name in aspects:
        if type(data[name]) is not int or not 1 <= data[name] <= MOST:
            raise Unreadable(f"{name} must be a whole number from 1 to {MOST}")
    return {name: data[name] for name in aspects}


def _cost(usage: Usage) -> dict[str, Any]:
    return usage.to_dict()
