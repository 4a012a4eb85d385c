"""Latent similarity: how alike the states of a model and of its base are at the end of an answer.

Source: arXiv 2604.09665, equations 2 and 3: the cosine of the two models' hidden states at the last
token, at one layer, for the same tokens of prompt and answer; the lowest wins. Decisions:

* The published code takes the last place of a padded batch, a token of padding for all but the
  longest answer, and computes in bfloat16, where near-ties become ties. Here the state is that of
  the answer's own last token, in float32, and the cosine is computed in float64.
* The published text ends with its last content token: no end of turn. `last_content` also goes
  back over white space; `last` stays at the last token; `mean` takes the mean state of the tokens
  up to the last content token.
* The published layer is 12 of `hidden_states`, behind the twelfth layer, for models of 16 to 48
  layers. It is the default where there are so many; else half of the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from adhere.errors import BadInput
from adhere.gathering import all_of
from adhere.methods.attribution.distributions import Distributions
from adhere.methods.attribution.scores import Direction, Needs, distinct
from adhere.scorers import Comparable, StatesAt

PUBLISHED_LAYER = 12
_BOTH = ("states", "base_states")

Pool = Literal["last_content", "last", "mean"]


def layer_index(layer: int | float | None, depth: int) -> int:
    """The layer meant, for a model of `depth` layers: 1 is behind the first, `depth` the last.

    An int is the layer itself, a float a share of the depth (a half is rounded up, and at least
    layer 1), None the default. Raises BadInput when there is no such layer.
    """
    if layer is None:
        layer = PUBLISHED_LAYER if depth >= PUBLISHED_LAYER else 0.5
    if isinstance(layer, float):
        if not 0 < layer <= 1:
            raise BadInput(
                f"layer: found {layer}; expected a share of the depth above 0 and up to 1.0, or "
                f"the number of a layer from 1 to {depth}"
            )
        return max(1, int(layer * depth + 0.5))
    if not 1 <= layer <= depth:
        raise BadInput(
            f"layer: found {layer}; expected 1 to {depth}, for that is how many this model has",
            hint="Layer 0, the embeddings, is the same for both models. A share such as "
            "`layer=0.5` fits models of any depth.",
        )
    return layer


def cosines(one: Any, other: Any) -> Any:
    """Float64 cosines of states [..., hidden] with those of the same place in `other`: [...].

    Exactly 1 for equal states, so that these tie; 0 where a state has no length.
    """
    numpy: Any = import_module("numpy")
    left, right = numpy.asarray(one, "float64"), numpy.asarray(other, "float64")
    # Three sums made alike, and one root: the root of a number's square is that number, whereas a
    # product of two roots is off in the last bit for every sixth state or so.
    lengths = numpy.sqrt((left * left).sum(-1) * (right * right).sum(-1))
    found = (left * right).sum(-1) / numpy.where(lengths > 0, lengths, 1.0)
    return found.clip(-1.0, 1.0)


def content_length(texts: Sequence[str], *, blanks: bool) -> int:
    """How many tokens stand up to the last content token.

    `texts` are those of an answer's tokens, empty for special ones. What stands behind is special
    tokens (the end of the turn) and, with `blanks`, white space. 0 where there is nothing else.
    """
    end = len(texts)
    while end and not (texts[end - 1].strip() if blanks else texts[end - 1]):
        end -= 1
    return end


@dataclass(frozen=True)
class LatentSimilarity:
    """The cosine of the student's and the base's state at one layer; the lowest wins.

    `layer`: see `layer_index`. Answers are scored as they are given but for `pool`, which decides
    what stands for the answer.
    """

    student: Comparable
    base: Comparable
    layer: int | float | None = None
    pool: Pool = "last_content"
    name: str = "latent"
    direction: Direction = "min"
    needs: Needs = "hidden"

    async def score(
        self, prompt_ids: Sequence[int], answer_ids: Sequence[Sequence[int]]
    ) -> list[float]:
        """See `CandidateScorer.score`."""
        layer = layer_index(self.layer, self.student.depth())
        return (await self.by_layer(prompt_ids, answer_ids, [layer]))[0]

    async def by_layer(
        self,
        prompt_ids: Sequence[int],
        answer_ids: Sequence[Sequence[int]],
        layers: Sequence[int] | None = None,
        beside: Distributions | None = None,
    ) -> list[list[float]]:
        """For each layer (None: 0, the embeddings, to the last) one similarity an answer.

        `beside`: what else is wanted of the same two models and answers, so that one pass of each
        serves both (but for the pool `mean`).

        An answer without a content token is taken with all of its tokens. Raises BadInput for one
        without tokens. Equal answers have equal numbers: each is looked at once.
        """
        if layers is None:
            layers = range(self.student.depth() + 1)
        answers = [tuple(self._content(ids)) for ids in answer_ids]
        if not answers:
            return [[] for _ in layers]
        once, places = distinct(answers)
        if beside is None or self.pool == "mean":
            states = await all_of(
                [self._states(model, prompt_ids, once, layers) for model in self._models]
            )
        else:
            at = StatesAt(tuple(layers), tuple(map(len, answers)))
            found = await beside.of(prompt_ids, answer_ids, at)
            first = [found[places.index(place)] for place in range(len(once))]
            numpy: Any = import_module("numpy")
            states = [numpy.stack([getattr(one, name) for one in first]) for name in _BOTH]
        rows: list[list[float]] = cosines(*states).T.tolist()
        return [[row[place] for place in places] for row in rows]

    @property
    def _models(self) -> tuple[Comparable, Comparable]:
        return self.student, self.base

    def _content(self, ids: Sequence[int]) -> Sequence[int]:
        if self.pool == "last":
            return ids
        return ids[: content_length(self.student.token_texts(ids), blanks=True)] or ids

    async def _states(
        self,
        model: Comparable,
        prompt_ids: Sequence[int],
        answers: Sequence[Sequence[int]],
        layers: Sequence[int],
    ) -> Any:
        """Float array [answers, layers, hidden]."""
        if self.pool != "mean":
            return await model.last_states(prompt_ids, answers, layers)
        numpy: Any = import_module("numpy")
        if not all(len(ids) for ids in answers):
            raise BadInput("found an answer without tokens; expected at least one token")
        found = await all_of([model.states(prompt_ids, ids, layers) for ids in answers])
        return numpy.stack([states.mean(axis=1, dtype="float64") for states in found])
