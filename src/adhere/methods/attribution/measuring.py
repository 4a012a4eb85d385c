"""All the scores that are asked for, of the candidates of one request, by the access there is.

Two routes, by what the student was found able to do. Open weights: the sampled tokens themselves,
cut behind the last content token, so that no end of turn is scored and nothing of a stop string;
the thought is part of them.
Servers: the texts as they were written, thought included, which allow the log-ratio and the
perplexity alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from adhere.chat import Message, Role
from adhere.methods.attribution.distributions import (
    Distributions,
    DistributionScore,
    Likelihoods,
)
from adhere.methods.attribution.latent import (
    LatentSimilarity,
    Pool,
    content_length,
    layer_index,
)
from adhere.methods.attribution.scores import (
    SCORES,
    CandidateScorer,
    FirstScore,
    RandomScore,
    chances,
    distinct,
)
from adhere.methods.base import Calls
from adhere.methods.candidates import Candidate
from adhere.scorers import Comparable

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Scores by name, one a candidate; None for one that there was nothing to score of.

    `by_layer`: the latent similarity by layer from 0 on, where it was asked for. `tokens`: how many
    of each candidate were scored. `layer` and `depth` where states were looked at.
    """

    scores: Mapping[str, list[float | None]]
    by_layer: list[list[float | None]] | None = None
    tokens: list[int | None] | None = None
    layer: int | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What is to be measured: scores by name, and how the latent one is."""

    names: Sequence[str]
    layer: int | float | None = None
    pool: Pool = "last_content"
    all_layers: bool = False


async def by_tokens(
    wanted: Wanted,
    student: Comparable,
    base: Comparable | None,
    calls: Calls,
    asked: Sequence[Message],
    drawn: Sequence[Candidate],
) -> Measured:
    """Measure the tokens of candidates. Raises CallError or BadInput."""
    prompt = student.prompt_ids(asked)
    stops = calls.request.sampling.stop
    tokens = [_tokens(student, candidate, stops) for candidate in drawn]
    places = [place for place, ids in enumerate(tokens) if ids]
    answers = [tokens[place] for place in places]
    n = len(drawn)
    scores: dict[str, list[float | None]] = {}
    by_layer: list[list[float | None]] | None = None
    layer = depth = None
    with_base = any(SCORES[name].with_base for name in wanted.names if name != "latent")
    distributions = Distributions(student, base if with_base else None)
    latent = "latent" in wanted.names
    if latent or wanted.all_layers:
        assert base is not None  # as `check_models` of the method saw to
        depth = student.depth()
        layer = layer_index(wanted.layer, depth)
        scorer = LatentSimilarity(student, base, layer, wanted.pool)
        layers = range(depth + 1) if wanted.all_layers else [layer]
        beside = distributions if with_base else None
        rows = await scorer.by_layer(prompt, answers, layers, beside)
        found = [_spread(row, places, n) for row in rows]
        by_layer = found if wanted.all_layers else None
        if latent:
            scores["latent"] = found[layer if wanted.all_layers else 0]
    for name in wanted.names:
        if name == "latent":
            continue
        if SCORES[name].needs == "text":
            scores[name] = _of_places(name, _seed(calls), n)
            continue
        one: CandidateScorer = DistributionScore(name, distributions)
        scores[name] = _spread(await one.score(prompt, answers), places, n)
    return Measured(
        {name: scores[name] for name in wanted.names},
        by_layer,
        [len(ids) or None for ids in tokens],
        layer,
        depth,
    )


async def by_texts(
    names: Sequence[str],
    calls: Calls,
    asked: Sequence[Message],
    drawn: Sequence[Candidate],
    written: Sequence[str],
) -> Measured:
    """Measure the texts of candidates as they were written. Raises CallError or BadInput."""
    texts = [
        text.rstrip() if candidate.completion is not None else ""
        for text, candidate in zip(written, drawn, strict=True)
    ]
    places = [place for place, text in enumerate(texts) if text]
    racing, places_of = distinct([texts[place] for place in places])
    asking = [name for name in names if SCORES[name].needs != "text"]
    likely = Likelihoods(
        lambda given: calls.logprobs(asked, given),
        (lambda given: calls.logprobs(asked, given, role=Role.BASE))
        if Role.BASE in calls.models
        else None,
    )
    found = await likely.scores(asking, racing) if asking and racing else {}
    scores: dict[str, list[float | None]] = {}
    for name in names:
        if name in asking:
            values = found.get(name, [])
            scores[name] = _spread([values[at] for at in places_of], places, len(drawn))
        else:
            scores[name] = _of_places(name, _seed(calls), len(drawn))
    return Measured(scores)


def _tokens(
    student: Comparable, candidate: Candidate, stops: Sequence[str] = ()
) -> tuple[int, ...]:
    """The sampled tokens up to the end of the answer; none for a candidate without one.

    That is before the end of the turn, and before a string at which sampling stopped. A token that
    holds the last of the answer and the first of that string stays.
    """
    if candidate.completion is None or not candidate.completion.token_ids:
        return ()
    ids = candidate.completion.token_ids
    texts = student.token_texts(ids)
    end = content_length(texts, blanks=False)
    whole = "".join(texts[:end])
    found = [at for stop in stops if stop and (at := whole.find(stop)) >= 0]
    if found:
        starts = list(accumulate(map(len, texts[:end]), initial=0))[:end]
        end = sum(start < min(found) for start in starts)
        end = content_length(texts[:end], blanks=False)
    return ids[:end]


def _seed(calls: Calls) -> str:
    return f"{calls.request.question}\0{calls.request.draw}"


def _of_places(name: str, seed: str, n: int) -> list[float | None]:
    """The scores that look at nothing but where a candidate stands."""
    if name == RandomScore.name:
        return list(chances(seed, n))
    assert name == FirstScore.name
    return [float(place) for place in range(n)]


def _spread(values: Sequence[T], places: Sequence[int], n: int) -> list[T | None]:
    """Values at their places among `n`, None elsewhere."""
    known = dict(zip(places, values, strict=True)) if values else {}
    return [known.get(place) for place in range(n)]
