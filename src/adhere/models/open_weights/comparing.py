"""A model's distributions over the tokens of answers beside those of a base: divergences, means.

The logits of a vocabulary are the largest thing in such a comparison. Both models' last states are
made first, which are small; then the logits of some tokens at a time, of both models side by side,
and what is wanted of them is added up before the next ones are made. The base is the same model
with its adapter switched off, or another model in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from adhere.models.open_weights.forward import (
    Abandoned,
    GivenUp,
    PromptReader,
    decoder_layers,
    through_layers,
)
from adhere.models.open_weights.last_states import Ends
from adhere.models.open_weights.loading import Loaded
from adhere.models.open_weights.logits import logits_of
from adhere.models.open_weights.rows import Piece, pieces
from adhere.scorers import Compared, StatesAt

_MOST_LOGITS = 1 << 22  # numbers of one model at once: 16 MiB in float32
_FEWEST = 64  # tokens at once all the same: reading the head costs as much as for one
# The columns of what is found of a token; the last three only beside a base.
_NLL, _CERTAINTY, _GINI, _KL, _REVERSE, _RATIO = range(6)


@dataclass(frozen=True)
class Side:
    """A model in memory, with its adapter or without, and what reads prompts for it so."""

    net: Loaded
    reader: PromptReader
    adapter: bool

    def on(self) -> AbstractContextManager[None]:
        """Within it the model computes as this side does. Not to be opened within another one."""
        return nullcontext() if self.adapter else self.net.base()


def compared(
    student: Side,
    base: Side | None,
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
    at: StatesAt | None = None,
    *,
    rows: int = 8,
    given_up: GivenUp = lambda: False,
) -> list[Compared]:
    """See `Compared`; neither the prompt nor an answer is empty, and both sides have equal tokens.

    Logits are computed in the model's format, the softmax in float32, means in float64. Numbers may
    come out not finite. Raises ContextTooLong, Abandoned.
    """
    torch: Any = import_module("torch")
    sides = [student] if base is None else [student, base]
    prefixes = []
    for side in sides:
        with side.on():
            prefixes.append(side.reader.read(prompt, given_up, room=0))
    # What the prompt predicts is the same for all answers, and was made in reading it.
    first = [prefix.logits.float()[None].expand(len(answers), -1) for prefix in prefixes]
    sums = _of_tokens(first, torch.tensor([answer[0] for answer in answers]))
    # The last token of an answer is predicted, and read only where its state may be asked for.
    read = [answer if at else answer[:-1] for answer in answers]
    ends = [Ends(side.net, at.layers, at.lengths) if at else None for side in sides]
    rows = rows if all(side.net.takes_rows for side in sides) else 1
    walks = [
        pieces(side.net, prefix, read, rows, given_up)
        for side, prefix in zip(sides, prefixes, strict=True)
    ]
    for together in zip(*walks, strict=True):
        _add(sums, sides, together, ends, answers, given_up)
    states = [end.found.numpy() if end else [None] * len(answers) for end in ends]
    return [
        _means(sums[i].tolist(), len(answer), base, [found[i] for found in states])
        for i, answer in enumerate(answers)
    ]


def _add(
    sums: Any,
    sides: Sequence[Side],
    together: Sequence[Piece],
    ends: Sequence[Ends | None],
    answers: Sequence[Sequence[int]],
    given_up: GivenUp,
) -> None:
    """Add what is found of the tokens of one piece, of which each side has its own."""
    torch: Any = import_module("torch")
    piece = together[0]
    states = []
    for side, own, end in zip(sides, together, ends, strict=True):
        with side.on():
            states.append(_last_layer(side.net, own, answers, end))
    behind = [
        (place, token)
        for place in piece.rows
        for token in answers[place][piece.at + 1 : piece.end + 1]
    ]
    if not behind:
        return
    places, targets = (torch.tensor(column) for column in zip(*behind, strict=True))
    step = max(_FEWEST, _MOST_LOGITS // max(1, sides[0].net.vocabulary))
    for at in range(0, len(targets), step):
        if given_up():
            raise Abandoned
        logits = []
        for side, hidden in zip(sides, states, strict=True):
            with side.on():
                logits.append(logits_of(side.net, hidden[at : at + step]))
        found = _of_tokens(logits, targets[at : at + step])
        sums.index_add_(0, places[at : at + step], found)


def _last_layer(
    net: Loaded, piece: Piece, answers: Sequence[Sequence[int]], ends: Ends | None
) -> Any:
    """The last states of a piece's tokens that predict one, row by row: [tokens, hidden].

    `ends` takes along what it is for.
    """
    torch: Any = import_module("torch")
    predicting = torch.tensor([len(answers[place]) - 1 for place in piece.rows])[:, None]
    real = torch.arange(piece.at, piece.end)[None] < predicting
    last = len(decoder_layers(net)[1])
    aside = ends.of(piece) if ends else None

    def take(layer: int, states: Any) -> Any:
        if aside is not None:
            aside(layer, states)
        return states[real.to(states.device)] if layer == last else None

    wanted = sorted({last, *(ends.layers if ends else ())})
    return through_layers(net, piece.ids, piece.cache, None, wanted, take=take)[last]


def _of_tokens(logits: list[Any], targets: Any) -> Any:
    """What is found of each token, in float64: [tokens, columns].

    `logits` holds those of the student, and of the base where there is one: float32 [tokens,
    vocab]. It is emptied, so that no more of them stand side by side than must.
    """
    torch: Any = import_module("torch")
    beside = len(logits) > 1
    log_p = torch.log_softmax(logits.pop(0), dim=-1)
    at = targets.to(log_p.device)[:, None]
    p = log_p.exp()
    found: list[Any] = [None] * 6
    found[_NLL] = -log_p.gather(1, at)[:, 0]
    found[_CERTAINTY] = -log_p.mean(dim=-1) - math.log(log_p.shape[-1])
    found[_GINI] = 1.0 - _dots(p, p)
    if beside:
        log_q = torch.log_softmax(logits.pop(0).to(log_p.device), dim=-1)
        ratio = log_p.sub_(log_q)
        found[_KL] = _dots(p, ratio)
        found[_REVERSE] = -_dots(log_q.exp_(), ratio)
        found[_RATIO] = ratio.gather(1, at)[:, 0]
    columns = [torch.zeros(len(targets)) if c is None else c.cpu() for c in found]
    return torch.stack(columns, dim=1).double()


def _dots(left: Any, right: Any) -> Any:
    torch: Any = import_module("torch")
    return torch.linalg.vecdot(left, right)


def _means(
    sums: Sequence[float], tokens: int, base: Side | None, states: Sequence[Any]
) -> Compared:
    means = [value / tokens for value in sums]
    beside = means[_KL:] if base is not None else (None, None, None)
    return Compared(tokens, *means[:_KL], *beside, *states)
