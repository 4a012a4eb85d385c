"""What the lines of an estimate cost in money and time, what they come to, and how to read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from adhere.chat import Role, Usage
from adhere.experiments.inputs import Inputs
from adhere.experiments.pricing import Prices
from adhere.experiments.roles import decodes_here
from adhere.experiments.sizes import CHARACTERS_HIGH, CHARACTERS_LOW
from adhere.experiments.tally import Line, Range
from adhere.models.connect import ModelConfig

LOCAL_SLOTS = 4  # of the embedded engine, for weights that the catalog does not know
NO_SPEED = "time not known: give tokens_per_second in the price file"

Measured = Mapping[tuple[str, str], Usage]  # (model, method) -> usage; method "" for all of them


def priced(
    line: Line,
    names: Sequence[str],
    prices: Prices | None,
    measured: Measured | None,
    room: int,
) -> Line:
    """The line with its money and time, where `room` calls are in flight at once."""
    return replace(
        line,
        cost=_cost(line, names, prices),
        seconds=_seconds(line, names, prices, measured or {}, max(1, room)),
    )


def _cost(line: Line, names: Sequence[str], prices: Prices | None) -> Range | None:
    if prices is None:
        return None
    low = prices.cost(names, Usage(prompt_tokens=math.floor(line.prompt_tokens.low)))
    if low is None:
        return None
    if line.prompt_tokens.high is None or line.completion_tokens is None:
        return Range(low, None)
    most = Usage(math.ceil(line.prompt_tokens.high), 0, math.ceil(line.completion_tokens))
    return Range(low, prices.cost(names, most))


def _seconds(
    line: Line, names: Sequence[str], prices: Prices | None, measured: Measured, room: int
) -> Range | None:
    """Wall seconds while `room` calls are in flight: as measured, or by the price file's speeds."""
    high = line.calls.high
    used = measured.get((line.model, line.method)) or measured.get((line.model, ""))
    if used is not None and used.calls:
        each = used.seconds / used.calls / room
        return Range(line.calls.low * each, None if high is None else high * each)
    speed = prices.speed(names) if prices else None
    if speed is None:
        return None
    rate, wait = speed
    low = line.calls.low * wait / room
    if high is None or line.completion_tokens is None:
        return Range(low, None)
    return Range(low, (high * wait + line.completion_tokens / rate) / room)


def concurrency(inputs: Inputs, model: ModelConfig) -> int:
    """How many calls to a model are in flight at once."""
    from adhere.models.catalog import BY_NAME

    limit = inputs.plan.limits.concurrency
    _, _, name = model.model.partition(":")
    if not decodes_here(model):
        return limit
    known = BY_NAME.get(name)
    return min(limit, model.slots or (known.slots if known else LOCAL_SLOTS))


def total(lines: Sequence[Line]) -> Line:
    """What the run newly spends: at the low end, calls that lines share count once."""
    zero = Range(0, 0)
    calls, prompt, cost, seconds = zero, zero, zero, zero
    cost_known = seconds_known = bool(lines)
    completion: float | None = 0.0
    for line in lines:
        new = line.calls.low - line.shared_calls
        left = max(0.0, line.prompt_tokens.low - line.shared_prompt_tokens)
        calls = calls.plus(Range(max(0, new), line.calls.high))
        prompt = prompt.plus(Range(left, line.prompt_tokens.high))
        known = completion is not None and line.completion_tokens is not None
        completion = (completion or 0) + (line.completion_tokens or 0) if known else None
        cost_known &= line.cost is not None
        seconds_known &= line.seconds is not None
        if line.cost is not None:
            share = left / line.prompt_tokens.low if line.prompt_tokens.low else 0.0
            cost = cost.plus(Range(line.cost.low * share, line.cost.high))
        if line.seconds is not None:
            share = max(0.0, new / line.calls.low) if line.calls.low else 0.0
            seconds = seconds.plus(Range(line.seconds.low * share, line.seconds.high))
    rows = sum(line.rows for line in lines if line.role == Role.POLICY)
    return Line(
        "all", "", "", rows, calls, prompt, completion,
        cost if cost_known else None, seconds if seconds_known else None,
        sum(line.shared_calls for line in lines), sum(x.shared_prompt_tokens for x in lines),
    )  # fmt: skip


def notes(lines: Sequence[Line], prices: Prices | None, inputs: Inputs) -> Iterable[str]:
    """What somebody who reads the numbers should know of them."""
    yield (
        f"Prompt tokens are an estimate: 1 for every {CHARACTERS_LOW:g} characters (low) to every "
        f"{CHARACTERS_HIGH:g} (high). Completion tokens are the most that `max_tokens` allows. "
        "Retries are not counted, and no price for cached tokens is assumed."
    )
    if shared := sum(line.shared_calls for line in lines):
        yield (
            f"{shared} calls serve several methods, or are on record; the total's low end "
            "counts them once."
        )
    todo = [line for line in lines if line.calls.low]
    missing = list(dict.fromkeys(x.model for x in todo if x.cost is None))
    if prices is not None and missing:
        yield "No price for " + ", ".join(missing) + ": what it costs is not known."
    if slow := list(dict.fromkeys(x.model for x in todo if x.seconds is None)):
        yield f"{', '.join(slow)}: {NO_SPEED}."
    if any(line.calls.high is None for line in todo):
        yield "A method from elsewhere does not say how many calls it makes; no upper end is known."
    if inputs.plan.budget.seconds is not None:
        yield "The budget of seconds is not taken into account."
