"""The states of answers at their last tokens, and of no other ones.

What tells candidates apart by one state each needs a number of rows, not a number of tokens: each
layer's row is copied out while the layer runs, and the rest of it goes as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from adhere.models.open_weights.forward import GivenUp, Prefix, through_layers
from adhere.models.open_weights.loading import Loaded
from adhere.models.open_weights.rows import Piece, pieces


class Ends:
    """Takes the states of answers at one token each out of the pieces that they go through in.

    `lengths`: how many of an answer's tokens have been read there. `found`: float32 tensor
    [answers, layers, hidden], in the orders given.
    """

    def __init__(self, net: Loaded, layers: Sequence[int], lengths: Sequence[int]) -> None:
        """Nothing is found yet."""
        torch: Any = import_module("torch")
        hidden = net.model.config.get_text_config().hidden_size
        self.layers, self.lengths = tuple(layers), tuple(lengths)
        self.found = torch.empty((len(lengths), len(layers), hidden))

    def of(self, piece: Piece) -> Callable[[int, Any], None]:
        """What `through_layers` is to take of a piece."""
        torch: Any = import_module("torch")
        ends = [self.lengths[place] for place in piece.rows]
        ending = [row for row, end in enumerate(ends) if piece.at < end <= piece.end]
        places = [piece.rows[row] for row in ending]
        rows = torch.tensor(ending, dtype=torch.long)
        at = torch.tensor([ends[row] - 1 - piece.at for row in ending], dtype=torch.long)

        def take(layer: int, states: Any) -> None:
            # Indexing copies: nothing holds on to the states of the other tokens.
            got = states[rows.to(states.device), at.to(states.device)].float().cpu()
            for column, wanted in enumerate(self.layers):
                if wanted == layer:
                    self.found[places, column] = got

        return take


def last_states(
    net: Loaded,
    prefix: Prefix,
    answers: Sequence[Sequence[int]],
    layers: Sequence[int],
    depth: int | None,
    *,
    rows: int = 8,
    given_up: GivenUp = lambda: False,
) -> Any:
    """Float32 tensor [answers, layers, hidden], in the orders given; no answer is empty.

    `depth` is that of `states.depth_of`, and `prefix` was read at least as deep. At most `rows`
    answers go through the model together. Raises Abandoned.
    """
    ends = Ends(net, layers, [len(answer) for answer in answers])
    for piece in pieces(net, prefix, answers, rows, given_up):
        through_layers(net, piece.ids, piece.cache, depth, layers, take=ends.of(piece))
    return ends.found
