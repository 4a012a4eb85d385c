"""Candidates for one answer, looked at by a loaded model: checked here, computed in its turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adhere.errors import BadInput, ContextTooLong, Garbage
from adhere.models.open_weights.comparing import compared
from adhere.models.open_weights.engine import FLOAT32, Engine
from adhere.models.open_weights.forward import GivenUp
from adhere.models.open_weights.last_states import last_states
from adhere.models.open_weights.loading import Loaded
from adhere.models.open_weights.states import check_layers, depth_of
from adhere.scorers import Compared, StatesAt


async def last_states_of(
    engine: Engine,
    adapter: bool,
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
    layers: Sequence[int],
) -> Any:
    """See `HiddenStates.last_states`; of the model with its adapter or without it."""
    net, side = engine.net, engine.side(adapter)
    check_layers(net.name, layers, engine.layers)
    _check_answers(net.name, answers)
    _check_fits(net, prompt, answers)
    depth = depth_of(layers, engine.layers)

    def work(given_up: GivenUp) -> Any:
        with side.on():
            prefix = side.reader.read_layers(prompt, given_up, depth, room=0)
            return last_states(
                net, prefix, answers, layers, depth, rows=engine.slots, given_up=given_up
            )

    found = await engine.alone(work)
    if not bool(found.isfinite().all()):
        raise Garbage(f"{net.name}: a hidden state is not finite", hint=FLOAT32)
    return found.numpy()


async def compare(
    engine: Engine,
    adapter: bool,
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
    base: tuple[Engine, bool] | None,
    at: StatesAt | None = None,
) -> list[Compared]:
    """See `Comparable.compared`. `base`: an engine, this one or another, and whether with adapter.

    All engines compute in one thread, so that the other one's model is not in use meanwhile.
    """
    net = engine.net
    if not prompt:
        raise BadInput(f"{net.name}: found a prompt without tokens; expected at least one")
    _check_answers(net.name, answers)
    _check_fits(net, prompt, answers)
    if at is not None:
        check_layers(net.name, at.layers, engine.layers)
        if base is not None:
            check_layers(base[0].net.name, at.layers, base[0].layers)
        _check_lengths(net.name, at.lengths, answers)
    if base is not None:
        _check_fits(base[0].net, prompt, answers)
        if base[0].net.vocabulary != net.vocabulary:
            raise BadInput(
                f"{net.name} has logits of {net.vocabulary} tokens, and its base "
                f"{base[0].net.name} of {base[0].net.vocabulary}; expected as many",
                hint="Name as base the model that training began with.",
            )
    student, other = engine.side(adapter), base[0].side(base[1]) if base else None

    def work(given_up: GivenUp) -> list[Compared]:
        return compared(student, other, prompt, answers, at, rows=engine.slots, given_up=given_up)

    found: list[Compared] = await engine.alone(work)
    for one in found:
        numbers = (one.nll, one.self_certainty, one.gini, one.kl, one.reverse_kl, one.log_ratio)
        if not all(math.isfinite(n) for n in numbers if n is not None):
            raise Garbage(f"{net.name}: a log-probability is not finite", hint=FLOAT32)
        for states in (one.states, one.base_states):
            if states is not None and not all(map(math.isfinite, states.ravel())):
                raise Garbage(f"{net.name}: a hidden state is not finite", hint=FLOAT32)
    return found


def _check_fits(net: Loaded, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
    most = net.vocabulary
    for ids in (prompt, *answers):
        if strange := [i for i in ids if not 0 <= i < (most or i + 1)]:
            raise BadInput(f"{net.name}: found token {strange[0]}; expected 0 to {most - 1}")
    longest = max(map(len, answers))
    if len(prompt) + longest > net.context:
        raise ContextTooLong(
            f"{net.name}: {len(prompt)} tokens of prompt and {longest} of answer; the model takes "
            f"{net.context}",
            hint="Shorten the spec, the prompt or the answer.",
        )


def _check_lengths(name: str, lengths: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
    expected = [f"1 to {len(answer)}" for answer in answers]
    if len(lengths) != len(answers) or not all(
        1 <= n <= len(answer) for n, answer in zip(lengths, answers, strict=True)
    ):
        raise BadInput(f"{name}: found states at {list(lengths)}; expected {expected}")


def _check_answers(name: str, answers: Sequence[Sequence[int]]) -> None:
    if not answers:
        raise BadInput(f"{name}: found no answers; expected at least one")
    for place, answer in enumerate(answers, start=1):
        if not answer:
            raise BadInput(
                f"{name}: found no tokens in answer {place}; expected at least one in each",
                hint="An empty answer has no last state and no likelihood; leave it out.",
            )
