"""Equal calls that are under way at the same time are made once, for all who wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Joined(Generic[T]):
    """Calls under way, by their key."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[T]] = {}
        self._waiting: dict[str, int] = {}

    async def call(self, key: str, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the call of this key; `start` begins it when there is none under way.

        The call belongs to all who wait for it: only the last one to give up cancels it.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(start())
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if self._waiting[key] == 0:
                del self._waiting[key]
                self._tasks.pop(key, None)
                if not task.done():
                    task.cancel()
