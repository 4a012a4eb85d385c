"""Scores by what two models say of the tokens: divergences, log-ratio, certainty.

Two ways to the same numbers. Open weights give whole distributions, for answers as tokens; all
scores come of one pass (`Distributions`). Servers that say how likely a given text is, give the
log-ratio and the perplexity, for answers as texts (`Likelihoods`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adhere.errors import BadInput
from adhere.gathering import all_of
from adhere.methods.attribution.scores import SCORES, Direction, Needs, distinct
from adhere.scorers import Comparable, Compared, StatesAt, TokenLogprobs

_MOST_NATS = 700.0  # beyond which an exponential is no number any more

Pass = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


@dataclass
class Distributions:
    """The student's distributions beside the base's, computed once for all scores of a prompt.

    `base` None: only the scores that need none.
    """

    student: Comparable
    base: Comparable | None
    _passes: dict[Pass, list[Compared]] = field(default_factory=dict)

    async def of(
        self,
        prompt_ids: Sequence[int],
        answer_ids: Sequence[Sequence[int]],
        at: StatesAt | None = None,
    ) -> list[Compared]:
        """One entry an answer, in order; equal ones share theirs (and have equal lengths in `at`).

        With `at` also the states of both models, out of the same pass, which then serves what is
        asked without. Raises CallError or BadInput.
        """
        once, places = distinct([tuple(ids) for ids in answer_ids])
        if not once:
            return []
        key = tuple(prompt_ids), tuple(once)
        if at is not None:
            length_of = dict(zip(places, at.lengths, strict=True))
            at = StatesAt(at.layers, tuple(length_of[place] for place in range(len(once))))
        if at is not None or key not in self._passes:
            self._passes[key] = await self.student.compared(*key, self.base, at)
        found = self._passes[key]
        return [found[place] for place in places]


@dataclass(frozen=True)
class DistributionScore:
    """One score out of the distributions; `name` is any of `SCORES` that comes of them."""

    name: str
    distributions: Distributions

    @property
    def direction(self) -> Direction:
        """As in `SCORES`."""
        return SCORES[self.name].direction

    @property
    def needs(self) -> Needs:
        """As in `SCORES`."""
        return SCORES[self.name].needs

    async def score(
        self, prompt_ids: Sequence[int], answer_ids: Sequence[Sequence[int]]
    ) -> list[float]:
        """See `CandidateScorer.score`. Raises BadInput for a score that needs a base, without."""
        found = await self.distributions.of(prompt_ids, answer_ids)
        return [self._number(one) for one in found]

    def _number(self, one: Compared) -> float:
        if self.name == "perplexity":
            return perplexity(one.nll)
        value: float | None = getattr(one, self.name)
        if value is None:
            raise BadInput(f"score {self.name}: compares with a base, and there is none")
        return value


def perplexity(nll: float) -> float:
    """The exponential of a mean negative log-likelihood in nats, kept finite."""
    return math.exp(min(nll, _MOST_NATS))


# ---------------------------------------------------------------- of given texts

TextLogprobs = Callable[[Sequence[str]], Coroutine[Any, Any, list[TokenLogprobs]]]


@dataclass(frozen=True)
class Likelihoods:
    """How likely the texts of candidates are, asked of servers: of the student, and of its base."""

    student: TextLogprobs
    base: TextLogprobs | None = None

    async def scores(self, names: Sequence[str], texts: Sequence[str]) -> Mapping[str, list[float]]:
        """The scores by name, of `log_ratio` and `perplexity`; one number a text, in order.

        Raises CallError, or BadInput: another score, a base that is missing, or one that reads
        texts as other tokens.
        """
        for name in names:
            if SCORES[name].needs != "logprobs":
                raise BadInput(
                    f"score {name}: takes open weights, and this server gives no more than "
                    "log-probabilities of texts",
                    hint="Use --model weights:NAME, or score=log_ratio.",
                )
        against = self.base if "log_ratio" in names else None
        if "log_ratio" in names and against is None:
            raise BadInput("score log_ratio: compares with a base, and there is none")
        asked = [self.student] if against is None else [self.student, against]
        mine, *others = await all_of([ask(texts) for ask in asked])
        found: dict[str, list[float]] = {}
        if "perplexity" in names:
            found["perplexity"] = [perplexity(-one.mean) for one in mine]
        for theirs in others:
            check_tokens(mine, theirs)
            pairs = zip(mine, theirs, strict=True)
            found["log_ratio"] = [one.mean - other.mean for one, other in pairs]
        return found


# Ways in which servers spell a blank and a line's end within a token.
_SPELLED = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n"})
# Tokens that are pieces of a character, which every server spells in its own way.
_PIECES = re.compile("\ufffd|<0x[0-9A-Fa-f]{2}>|bytes:|[^\x00-\x7f]")


def check_tokens(mine: Sequence[TokenLogprobs], theirs: Sequence[TokenLogprobs]) -> None:
    """Raises BadInput when two models read the same texts as different tokens.

    As many tokens, and the same ones as far as two servers' spellings can be laid beside each
    other: blanks at a token's ends, and tokens that are not plain ASCII, are not looked at.
    """
    hint = "Name as base the model that training began with."
    for one, other in zip(mine, theirs, strict=True):
        if len(one.tokens) != len(other.tokens):
            raise BadInput(
                f"found two tokenizers: the student reads a candidate as {len(one.tokens)} tokens "
                f"and its base as {len(other.tokens)}; expected the same",
                hint=hint,
            )
        for number, (left, right) in enumerate(zip(one.tokens, other.tokens, strict=True), 1):
            if not _alike(left, right):
                # The tokens stay out of the message: they are the model's text.
                raise BadInput(
                    f"found two tokenizers: token {number} of a candidate is another one to the "
                    f"base ({len(left)} characters to the student, {len(right)} to its base); "
                    "expected the same",
                    hint=hint,
                )


def _alike(left: str, right: str) -> bool:
    left, right = (token.translate(_SPELLED).strip() for token in (left, right))
    return left == right or bool(_PIECES.search(left) or _PIECES.search(right))
