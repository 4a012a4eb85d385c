"""Writing texts token by token: several together, behind one prompt or many, each with its dice.

The order is that of common servers: temperature, then `top_k`, `top_p`, `min_p`. A temperature of
0 takes the likeliest token. What is not given is plain sampling from the model (temperature 1,
nothing cut off), whatever a model's own generation settings say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from adhere.chat import Sampling
from adhere.errors import BadInput, Garbage
from adhere.models.open_weights.batch import Batch
from adhere.models.open_weights.dice import choose, new_dice, penalized
from adhere.models.open_weights.forward import GivenUp, Prefix, forward, holds_all
from adhere.models.open_weights.loading import Loaded

OWN_EXTRA = ("top_k", "min_p", "frequency_penalty", "chat_template_kwargs")
MOST_TOP_LOGPROBS = 100
_MARGIN = 8  # tokens, for half characters and what is not spelled


@dataclass
class Draw:
    """One text under way. `tokens` holds the one that ended it, `ids` does not.

    `prompt` are the tokens that it stands behind; `spell(before, tokens)` gives the text of tokens
    behind others.
    """

    sampling: Sampling
    seed: int | None
    most: int
    prompt: Sequence[int]
    spell: Callable[[Sequence[int], Sequence[int]], str]
    given_up: GivenUp = lambda: False
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    finish: str = ""
    text: str = ""
    error: Garbage | None = None
    _by_token: bool = False
    _dice: Any = None

    @property
    def ids(self) -> list[int]:
        """The tokens of the text."""
        return self.tokens[:-1] if self._by_token else self.tokens

    def dice(self) -> Any:
        """The text's own dice, the same from its first token to its last."""
        if self._dice is None:
            self._dice = new_dice(self.seed)
        return self._dice

    def fail(self) -> None:
        """End it: the model gave no numbers."""
        self.error = Garbage("the model's numbers are not finite", hint="Try dtype: float32.")
        self.finish = "error"

    def take(self, token: int, logprobs: Any, ends: frozenset[int]) -> None:
        """Append the next token and note how likely it was by `logprobs`, of shape [vocab]."""
        self.tokens.append(token)
        self.logprobs.append(float(logprobs[token]))
        if (wanted := self.sampling.top_logprobs) is not None:
            values, places = logprobs.topk(min(wanted, int(logprobs.shape[0])))
            self.top.append(list(zip(places.tolist(), values.tolist(), strict=True)))
        self._look_for_end(token, ends)

    def _look_for_end(self, token: int, ends: frozenset[int]) -> None:
        if token in ends:
            self._by_token, self.finish = True, "stop"
        elif self._stopped():
            self.finish = "stop"
        if not self.finish and len(self.tokens) >= self.most:
            self.finish = "length"
        if self.finish:
            text = self.spell(self.prompt, self.ids)
            found = [at for s in self.sampling.stop if s and (at := text.find(s)) >= 0]
            self.text = text[: min(found)] if found else text
            self.finish = "stop" if found else self.finish

    def _stopped(self) -> bool:
        """Whether a stop string stands at the end of the text.

        The last tokens alone are spelled: all of them, after each, would take time by the square
        of their number. Each that is spelled at all has a byte at least.
        """
        stops = [stop for stop in self.sampling.stop if stop]
        if not stops:
            return False
        start = max(0, len(self.tokens) - max(len(s.encode()) for s in stops) - _MARGIN)
        before = [*self.prompt[-_MARGIN:], *self.tokens[max(0, start - _MARGIN) : start]]
        text = self.spell(before, self.tokens[start:])
        return any(stop in text for stop in stops)


def check_sampling(name: str, sampling: Sampling) -> None:
    """Raises BadInput for what is no way to sample, or what this cannot do."""
    if unknown := sorted(set(sampling.extra) - set(OWN_EXTRA)):
        raise BadInput(
            f"{name}: found {', '.join(unknown)} in the extra sampling fields; open weights take "
            f"{', '.join(OWN_EXTRA)}"
        )
    temperature, top_p = sampling.temperature, sampling.top_p
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise BadInput(f"{name}: found temperature {temperature}; expected 0 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise BadInput(f"{name}: found top_p {top_p}; expected more than 0 and at most 1")
    for field_name, least, most in (
        ("top_k", -1, 1 << 30), ("min_p", 0, 1), ("frequency_penalty", -2, 2),
    ):  # fmt: skip
        value = sampling.extra.get(field_name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and least <= value <= most):
            raise BadInput(f"{name}: found {field_name} {value!r:.40}; expected a number")
    if sampling.top_logprobs is not None and not 0 <= sampling.top_logprobs <= MOST_TOP_LOGPROBS:
        raise BadInput(
            f"{name}: found top_logprobs {sampling.top_logprobs}; expected 0 to {MOST_TOP_LOGPROBS}"
        )
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise BadInput(f"{name}: found max_tokens {sampling.max_tokens}; expected 1 or more")


def mixes_prompts(net: Loaded) -> bool:
    """Whether texts behind different prompts can be written together.

    The shorter prompts are then padded on the left, which layers that forget cannot be shown.
    """
    return holds_all(import_module("transformers").DynamicCache(config=net.model.config))


def write(
    net: Loaded,
    prefixes: Sequence[Prefix],
    draws: Sequence[Draw],
    ended: Callable[[int], None] = lambda place: None,
    more: Callable[[Sequence[int]], Sequence[tuple[Prefix, Draw]]] = lambda places: (),
) -> None:
    """Write all draws to their ends, one token each at a time; each has its prefix.

    `ended` is told the place of each draw as soon as it is at its end. A draw that is given up is
    left as it is, and the others go on. `more` is told which places are still being written, and
    gives draws that take what has become free: they have the places behind all others. Prefixes
    may differ, and others may join, where `mixes_prompts`.
    """
    torch: Any = import_module("torch")
    draws = list(draws)

    def first_tokens(prefixes: Sequence[Prefix], places: Sequence[int]) -> dict[int, int]:
        """The first token of each draw that goes on behind it, by its number here."""
        logits = torch.stack([prefix.logits for prefix in prefixes])
        return taken(logits, places)

    def taken(logits: Any, places: Sequence[int]) -> dict[int, int]:
        chosen = _take(logits.float().cpu(), [draws[place] for place in places], net.ends)
        for place in places:
            if draws[place].finish:
                ended(place)
        return {
            row: chosen[row]
            for row, place in enumerate(places)
            if not draws[place].finish and not draws[place].given_up()
        }

    active = list(range(len(draws)))
    going = first_tokens(prefixes, active)
    batch = Batch(net, [prefixes[row] for row in going]) if going else None
    active = [active[row] for row in going]
    tokens = list(going.values())
    while True:
        while fresh := more(active):
            start = len(draws)
            draws += [draw for _, draw in fresh]
            places = list(range(start, len(draws)))
            going = first_tokens([prefix for prefix, _ in fresh], places)
            joining = [fresh[row][0] for row in going]
            if joining and batch is not None:
                batch.join(joining)
            elif joining:
                batch = Batch(net, joining)
            active += [places[row] for row in going]
            tokens += going.values()
        if batch is None or not active:
            return
        told = batch.next()
        step = torch.tensor([[token] for token in tokens])
        logits = forward(net, step, batch.cache, last_only=True, **told)[:, -1]
        going = taken(logits, active)
        if 0 < len(going) < len(active):
            batch.select(list(going))
        elif not going:
            batch = None
        active = [active[row] for row in going]
        tokens = list(going.values())


def _take(logits: Any, draws: Sequence[Draw], ends: frozenset[int]) -> list[int]:
    """One more token for each draw, by logits [draws, vocab]; a draw without numbers fails."""
    finite = logits.amax(-1).isfinite().tolist()  # a NaN comes through as one
    logprobs = logits.log_softmax(-1)
    for row, known in enumerate(finite):
        if not known:
            logprobs[row] = 0.0  # any token: it is not taken
    hows = [draw.sampling for draw in draws]
    weighed = penalized(logprobs, hows, [draw.tokens for draw in draws])
    chosen = choose(weighed, hows, [draw.dice() for draw in draws])
    for row, draw in enumerate(draws):
        if finite[row]:
            draw.take(chosen[row], logprobs[row], ends)
        else:
            draw.fail()
    return chosen
