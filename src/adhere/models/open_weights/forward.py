"""Reading a prompt once: its keys and values are kept and shared by all that goes on from it.

Prompts are read in blocks of a fixed size, and what an earlier prompt shares is taken over in
whole blocks only. A block is thus always computed in the same shape behind the same blocks, so
the numbers do not depend on what was read before: reuse changes the time, and nothing else.

What is wanted for hidden states alone is read no deeper than the deepest layer that is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from adhere.errors import BadInput, ContextTooLong
from adhere.models.open_weights.loading import Loaded

BLOCK = 128  # tokens
_KEPT = 4  # prompts

GivenUp = Callable[[], bool]


class Abandoned(Exception):
    """Who asked has given up; the work under way was left."""


class _Deep(Exception):
    """The deepest layer that is asked for was reached."""


@dataclass
class Prefix:
    """A prompt that was read: tokens, cache (batch of one), logits behind it of shape [vocab].

    `reused`: how many of the tokens had been read before. `depth`: how many layers it went
    through; None for all of them. Read for hidden states, it has no logits.
    """

    ids: tuple[int, ...]
    cache: Any
    logits: Any
    reused: int = 0
    depth: int | None = None

    def expanded(self, rows: int) -> Any:
        """A copy of the cache for so many texts that go on from here."""
        cache = copy.deepcopy(self.cache)
        if rows > 1:
            cache.batch_repeat_interleave(rows)
        return cache


def forward(net: Loaded, ids: Any, cache: Any, *, last_only: bool, **more: Any) -> Any:
    """Logits behind tokens `ids` [rows, n]: [rows, n, vocab], or [rows, 1, vocab] of the last.

    `cache` is what stands before them, the same length for all rows, and grows by them. Rows that
    are padded on the right need no mask: nothing before the padding can see it. `more` goes to the
    model (`attention_mask`, `position_ids`).
    """
    options = {"logits_to_keep": 1} if last_only and net.keeps_logits else {}
    logits = net.model(
        input_ids=ids.to(net.device), past_key_values=cache, use_cache=True, **options, **more
    ).logits
    return logits[:, -1:] if last_only else logits


def check_room(net: Loaded, ids: Sequence[int], room: int = 1) -> None:
    """Raises ContextTooLong when so many tokens have no room behind a prompt."""
    if len(ids) + room > net.context:
        raise ContextTooLong(
            f"{net.name}: {len(ids)} tokens of prompt and {room} behind it; the model takes "
            f"{net.context}",
            hint="Shorten the spec or the prompt.",
        )


def decoder_layers(net: Loaded) -> tuple[Any, Any]:
    """The model without its head, and the list of its layers. Raises BadInput for odd ones."""
    backbone = net.model.get_decoder()
    count = getattr(net.model.config.get_text_config(), "num_hidden_layers", None)
    for child in backbone.children():
        if type(child).__name__ == "ModuleList" and len(child) == count:
            return backbone, child
    raise BadInput(
        f"{net.name}: found no list of {count} layers in {type(backbone).__name__}; expected a "
        "decoder of layers one behind another",
        hint="Hidden states can be had of such models only.",
    )


def _as_they_are(layer: int, states: Any) -> Any:
    return states


def through_layers(
    net: Loaded,
    ids: Any,
    cache: Any,
    depth: int | None,
    wanted: Sequence[int] = (),
    *,
    take: Callable[[int, Any], Any] = _as_they_are,
) -> dict[int, Any]:
    """Hidden states of tokens `ids` [rows, n] behind the wanted layers: [rows, n, hidden] each.

    Layers count as transformers' `hidden_states` do: 0 is what the first layer reads, k what layer
    k writes, and the last one's is behind the final norm. Nothing runs behind the first `depth`
    layers, which are at least one, so that the cache knows how long it is; None runs all of them,
    and no head. `take` gets the number and the states of each wanted layer while the next
    ones have yet to run, and what it gives is what is kept of them.
    """
    backbone, layers = decoder_layers(net)
    found: dict[int, Any] = {}
    hooks = []

    def look(layer: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            if layer in wanted:
                found[layer] = take(layer, args[0] if args else kwargs["hidden_states"])
            if layer == depth:
                raise _Deep

        return hook

    inner = {layer for layer in (*wanted, depth) if layer is not None and layer < len(layers)}
    try:
        for layer in inner:
            hooks.append(layers[layer].register_forward_pre_hook(look(layer), with_kwargs=True))
        out = backbone(input_ids=ids.to(net.device), past_key_values=cache, use_cache=True)
        if len(layers) in wanted:
            found[len(layers)] = take(len(layers), out.last_hidden_state)
    except _Deep:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: found[layer] for layer in wanted}


class PromptReader:
    """Reads prompts for one model and keeps the last few, for one thread at a time."""

    def __init__(self, net: Loaded, *, reuse: bool = True) -> None:
        """`reuse=False`: every prompt is read from its beginning."""
        self.net = net
        self.reuse = reuse
        self._kept: list[Prefix] = []

    def read(self, ids: Sequence[int], given_up: GivenUp, *, room: int = 1) -> Prefix:
        """Read a prompt. Raises ContextTooLong without `room` tokens behind it, or Abandoned."""
        return self._read(ids, given_up, room, _WHOLE)

    def forget(self) -> None:
        """Let go of what was kept, and of its memory."""
        self._kept = []

    def read_layers(
        self, ids: Sequence[int], given_up: GivenUp, depth: int | None, *, room: int = 1
    ) -> Prefix:
        """Read a prompt through its first `depth` layers, or all (None), for no logits.

        What was read whole serves as well. Raises ContextTooLong, Abandoned.
        """
        return self._read(ids, given_up, room, _Need(depth, logits=False))

    def _read(self, ids: Sequence[int], given_up: GivenUp, room: int, need: _Need) -> Prefix:
        check_room(self.net, ids, room)
        torch: Any = import_module("torch")
        start = self._start(tuple(ids), need)
        if start.reused == len(ids):
            return start
        for at in range(start.reused, len(ids), BLOCK):
            if given_up():
                raise Abandoned
            block = torch.tensor([ids[at : at + BLOCK]])
            if not need.logits:
                through_layers(self.net, block, start.cache, need.depth)
                continue
            logits = forward(self.net, block, start.cache, last_only=True)
            if at + BLOCK >= len(ids):
                start.logits = logits[0, -1]
        self._keep(start)
        return start

    def _start(self, ids: tuple[int, ...], need: _Need) -> Prefix:
        """What of a prompt is known: all of it, whole blocks at its beginning, or nothing."""
        best, shared = None, 0
        for kept in self._kept if self.reuse else ():
            if not need.met_by(kept):
                continue
            if kept.ids == ids and (kept.logits is not None or not need.logits):
                self._keep(kept)
                return replace(kept, reused=len(ids))
            same = _common(kept.ids, ids)
            # One token at least is read: the logits behind the prompt come of it.
            blocks = min(same, len(ids) - 1) // BLOCK * BLOCK
            if blocks > shared and holds_all(kept.cache):
                best, shared = kept, blocks
        if best is None:
            torch_cache = import_module("transformers").DynamicCache(config=self.net.model.config)
            return Prefix(ids, torch_cache, None, depth=need.depth)
        cache = best.expanded(1)
        if surplus := len(best.ids) - shared:
            cache.crop(-surplus)
        # Whatever went deeper before: the rest of this one goes no deeper than is needed.
        return Prefix(ids, cache, None, shared, need.depth)

    def _keep(self, prefix: Prefix) -> None:
        if self.reuse:
            others = [kept for kept in self._kept if kept.ids != prefix.ids]
            self._kept = [replace(prefix, reused=0), *others][:_KEPT]


@dataclass(frozen=True)
class _Need:
    """How deep a prompt must have been read, and whether to the logits behind it."""

    depth: int | None
    logits: bool

    def met_by(self, kept: Prefix) -> bool:
        """Whether a prompt that was read went deep enough for a beginning of this one."""
        return kept.depth is None or (self.depth is not None and kept.depth >= self.depth)


_WHOLE = _Need(None, logits=True)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))


def holds_all(cache: Any) -> bool:
    """Whether every layer holds all that it has read; sliding windows and states forget."""
    return all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)
