"""Several calls at once, of which one may make the others pointless."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from adhere.errors import BadInput, CallError

T = TypeVar("T")


async def all_of(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. Raises what a call raised, when the others have ended too.

    An error that every other call would share (a refused key or request) ends those that are still
    under way: what waits for its turn is never sent, so one refused request is not multiplied.
    Requests that are with the server by then cannot be unsent. What finished calls came to is lost
    here, so what was paid for belongs on record within the call itself (the journals do so).
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if (error := task.exception()) is not None and is_permanent(error):
                    raise error
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]


def is_permanent(error: BaseException) -> bool:
    """Whether the same request would end the same way at any other time."""
    return isinstance(error, (BadInput, CallError)) and not error.retryable
