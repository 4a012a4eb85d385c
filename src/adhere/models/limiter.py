"""The one owner of retries and of the number of calls in flight to one server.

Additive increase, multiplicative decrease: the limit starts at what the user configured, is cut
once per episode of 429 answers (calls that were already under way when the limit was cut belong
to the same episode), waits as long as Retry-After says, and grows back by one for each full
window of good answers. With `auto=True` it may grow beyond the configured number.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from adhere.errors import CallError, RateLimited

T = TypeVar("T")

CUT = 0.7
AUTO_CEILING = 256
# Until one call has succeeded, no more than this are in flight: a dead key is not worth more.
UNPROVEN_LIMIT = 8


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to wait. Waits double from `base` seconds up to `cap`, with jitter."""

    attempts: int = 5
    base: float = 0.5
    cap: float = 20.0
    longest_retry_after: float = 120.0

    def wait(self, attempt: int, error: CallError) -> float:
        """Seconds before the attempt after number `attempt` (from 0)."""
        if error.retry_after is not None:
            return min(error.retry_after, self.longest_retry_after)
        full = min(self.cap, self.base * 2.0**attempt)
        return full * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret


@dataclass
class Limiter:
    """Calls in flight to one server, and their retries. Shared by all roles on that server."""

    concurrency: int = 8
    auto: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    rate_limited: int = 0
    retried: int = 0

    def __post_init__(self) -> None:
        """Start at the configured number."""
        self.limit = float(max(1, self.concurrency))
        self.ceiling = float(max(AUTO_CEILING, self.concurrency) if self.auto else self.limit)
        self._in_flight = 0
        self._good = 0
        self._cut_at = 0.0
        self._paused_until = 0.0
        self._proven = False
        self._fatal: CallError | None = None
        self._changed = asyncio.Condition()

    def _room(self) -> bool:
        limit = int(self.limit) if self._proven else min(int(self.limit), UNPROVEN_LIMIT)
        return self._in_flight < limit

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(self._room)
            self._in_flight += 1
        try:
            while self._fatal is None and (pause := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(min(pause, 0.5))
            yield
        finally:
            # No await may stand between here and the decrement: a cancel would leak the slot.
            self._in_flight -= 1
            wake = asyncio.ensure_future(self._wake())
            _BACKGROUND.add(wake)
            wake.add_done_callback(_BACKGROUND.discard)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _on_success(self) -> None:
        self._proven = True
        self._good += 1
        if self._good >= self.limit and self.limit < self.ceiling:
            self._good = 0
            self.limit = min(self.ceiling, self.limit + 1)

    def _on_rate_limited(self, started: float, error: CallError, wait: float) -> None:
        self.rate_limited += 1
        now = time.monotonic()
        self._good = 0
        if started > self._cut_at:  # a new episode, not an answer to a call from before the cut
            self._cut_at = now
            self.limit = max(1.0, self.limit * CUT)
        if error.retry_after is not None:
            self._paused_until = max(self._paused_until, now + wait)

    def cap(self, most: int) -> None:
        """Never have more than this in flight, however many were asked for."""
        self.limit = min(self.limit, float(most))
        self.ceiling = min(self.ceiling, float(most))

    def stop(self, error: CallError) -> None:
        """Make no further call: each raises this error."""
        self._fatal = error

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call when there is room, again when its error is retryable; raise the last.

        After a fatal error (a dead key, an unknown model) no further call is made: each raises
        the same error.
        """
        attempt = 0
        while True:
            try:
                async with self._slot():
                    if self._fatal is not None:
                        raise self._fatal
                    started = time.monotonic()
                    result = await call()
            except CallError as error:
                wait = self.retry.wait(attempt, error)
                if isinstance(error, RateLimited):
                    self._on_rate_limited(started, error, wait)
                attempt += 1
                if error.fatal:
                    self.stop(error)
                # When the limiter was stopped, waiting for another try would wait for nothing.
                if self._fatal is not None or not error.retryable or attempt >= self.retry.attempts:
                    raise
                self.retried += 1
                await asyncio.sleep(wait)
            else:
                self._on_success()
                return result


_BACKGROUND: set[asyncio.Future[None]] = set()
