"""Choosing the next token of many texts at once, each by its own settings and its own dice.

The rows of a step are reckoned together, and a token is found by inverting the sums of the chances:
nothing of a vocabulary's length is sorted, and nothing is done row by row unless its settings ask
for it (`top_k`, `top_p`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from adhere.chat import Sampling

_FIRST_GUESS = 64  # tokens that reach most values of top_p


def temperature_of(how: Sampling) -> float:
    """The temperature; what is not given is 1."""
    return 1.0 if how.temperature is None else how.temperature


def new_dice(seed: int | None) -> Any:
    """Dice that fall the same for the same seed, or any way without one."""
    dice = import_module("torch").Generator()
    dice.seed() if seed is None else dice.manual_seed(seed)
    return dice


def penalized(logprobs: Any, hows: Sequence[Sampling], written: Sequence[Sequence[int]]) -> Any:
    """Log-probabilities [rows, vocabulary], lowered for tokens that a row has written already.

    By `frequency_penalty` for each time, as OpenAI's API and vLLM do. What a token's
    log-probability is told to be stays that of the model.
    """
    mine = [row for row, how in enumerate(hows) if _penalty(how) and written[row]]
    if not mine:
        return logprobs
    torch: Any = import_module("torch")
    out = logprobs.clone()
    for row in mine:
        tokens = torch.tensor(list(written[row]))
        out[row].index_add_(0, tokens, torch.full(tokens.shape, -_penalty(hows[row])))
    return out


def _penalty(how: Sampling) -> float:
    return float(how.extra.get("frequency_penalty") or 0.0)


def choose(logprobs: Any, hows: Sequence[Sampling], dice: Sequence[Any]) -> list[int]:
    """One token for each row of log-probabilities [rows, vocabulary], which are finite or -inf.

    A row's token hangs on its own numbers, settings and dice alone.
    """
    torch: Any = import_module("torch")
    tokens: list[int] = logprobs.argmax(-1).tolist()
    sampled = [row for row, how in enumerate(hows) if temperature_of(how) > 0]
    if not sampled:
        return tokens
    if len(sampled) < len(hows):
        logprobs = logprobs[torch.tensor(sampled)]
    heats = torch.tensor([[temperature_of(hows[row])] for row in sampled], dtype=logprobs.dtype)
    # Without the highest no temperature, however small, makes all of them -inf.
    highest = logprobs.amax(-1, keepdim=True)
    chances = ((logprobs - highest) / heats.clamp_min(torch.finfo(heats.dtype).tiny)).softmax(-1)
    points = torch.stack(
        [torch.rand(1, generator=dice[row], dtype=torch.float64) for row in sampled]
    )
    whole = [at for at, row in enumerate(sampled) if not _cuts(hows[row])]
    if whole:
        mine = chances if len(whole) == len(sampled) else chances[torch.tensor(whole)]
        for at, token in zip(whole, _fall(mine, points[torch.tensor(whole)]), strict=True):
            tokens[sampled[at]] = token
    for at in set(range(len(sampled))).difference(whole):
        values, places = _cut(chances[at], hows[sampled[at]])
        token = _fall(values[None], points[at : at + 1])[0]
        tokens[sampled[at]] = int(places[token]) if places is not None else token
    return tokens


def _fall(chances: Any, points: Any) -> list[int]:
    """The place in each row of chances [rows, n] where a point [rows, 1] of [0, 1) falls."""
    torch: Any = import_module("torch")
    sums = chances.to(points.dtype).cumsum(-1)
    found = torch.searchsorted(sums, points * sums[:, -1:], right=True)[:, 0]
    # Only by rounding is a point beyond all sums.
    tokens: list[int] = found.where(found < sums.shape[1], chances.argmax(-1)).tolist()
    return tokens


def _cuts(how: Sampling) -> bool:
    return bool(_top_k(how) or _top_p(how) or _min_p(how))


def _top_k(how: Sampling) -> int:
    return max(int(how.extra.get("top_k") or 0), 0)  # servers take 0 and -1 for none


def _top_p(how: Sampling) -> float | None:
    return None if how.top_p is None or how.top_p >= 1 else how.top_p


def _min_p(how: Sampling) -> float:
    return float(how.extra.get("min_p") or 0.0)


def _cut(chances: Any, how: Sampling) -> tuple[Any, Any]:
    """The chances [n] that the settings leave, and their places (None: as they were given)."""
    top_k, top_p, min_p = _top_k(how), _top_p(how), _min_p(how)
    places = None
    if top_k:
        chances, places = chances.topk(min(top_k, chances.shape[0]))
    if top_p is not None:
        total = float(chances.sum())
        if places is None:
            chances, places = _likeliest(chances, top_p * total)
        # All before which less than top_p was reached, so always the likeliest.
        before = chances.cumsum(0) - chances
        chances = chances.masked_fill((before >= top_p * total) & (before > 0), 0.0)
    if min_p:
        chances = chances.masked_fill(chances < min_p * chances.max(), 0.0)
    return chances, places


def _likeliest(chances: Any, enough: float) -> tuple[Any, Any]:
    """The likeliest chances, falling, and their places: at least so many that they reach a sum."""
    width = _FIRST_GUESS
    while True:
        values, places = chances.topk(min(width, chances.shape[0]))
        if float(values.sum()) >= enough or width >= chances.shape[0]:
            return values, places
        width *= 8
