"""The one owner of retries and of the number of calls in flight to one server.

Additive increase, multiplicative decrease: the limit starts at what the user configured, is cut
once per episode of 429 answers (calls that were already under way when the limit was cut belong
to the same episode), waits as long as Retry-After says, and grows back by one for each full
window of good answers. With `auto=True` it may grow beyond the configured number.

Whoever waits gets the slot of a call that ended handed over directly, first come, first served:
the cost of a call does not grow with the number that wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from adhere.errors import CallError, RateLimited

T = TypeVar("T")

CUT = 0.7
AUTO_CEILING = 256
# A dead key is not worth one request a row: until so many calls have succeeded, no more than so
# many are in flight. A key that dies later costs what is in flight then.
UNPROVEN_LIMIT = 16
PROVEN_AFTER = 8


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to wait. Waits double from `base` seconds up to `cap`, with jitter."""

    attempts: int = 5
    base: float = 0.5
    cap: float = 20.0
    longest_retry_after: float = 120.0

    def wait(self, attempt: int, error: CallError) -> float:
        """Seconds before the attempt after number `attempt` (from 0).

        A Retry-After of zero (or of a date that is past) names no time, so it is no reason to
        spend all tries at once.
        """
        if error.retry_after:
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
    cuts: int = 0

    def __post_init__(self) -> None:
        """Start at the configured number."""
        self.limit = float(max(1, self.concurrency))
        self.ceiling = float(max(AUTO_CEILING, self.concurrency) if self.auto else self.limit)
        self._in_flight = 0
        self._succeeded = 0
        self._good = 0
        self._cut_at = 0.0
        self._paused_until = 0.0
        self._fatal: CallError | None = None
        self._stopped = asyncio.Event()
        # A waiter's result: True with a slot, False when there is nothing left to wait for.
        self._waiting: deque[asyncio.Future[bool]] = deque()

    # ------------------------------------------------------------ slots

    def _room(self) -> bool:
        limit = int(self.limit)
        if self._succeeded < PROVEN_AFTER:
            limit = min(limit, UNPROVEN_LIMIT)
        return self._in_flight < limit

    async def _take_slot(self) -> None:
        """Wait for a slot. Raises the fatal error instead when the limiter was stopped."""
        if await self._slot_or_stop():
            try:
                while self._fatal is None and (pause := self._paused_until - time.monotonic()) > 0:
                    await self._sleep(pause)
            except BaseException:
                self._give_slot_back()
                raise
            if self._fatal is None:
                return
            self._give_slot_back()
        assert self._fatal is not None
        # One instance for all who wait: without the traces of where it was raised before.
        raise self._fatal.with_traceback(None)

    async def _slot_or_stop(self) -> bool:
        if self._fatal is not None:
            return False
        if self._room():  # then nobody waits: `_hand_out` runs whenever room appears
            self._in_flight += 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            # Cancelled in the moment between the handing over and the waking: pass it on.
            if turn.done() and not turn.cancelled() and turn.result():
                self._give_slot_back()
            raise

    def _give_slot_back(self) -> None:
        # No await may stand between the end of a call and this: a cancel would leak the slot.
        self._in_flight -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free slots to those who waited longest; pass over those who gave up."""
        while self._waiting and self._room():
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(True)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond a stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    # ------------------------------------------------------------ what answers teach

    def _on_success(self) -> None:
        self._succeeded += 1
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
            self.cuts += 1
            self.limit = max(1.0, self.limit * CUT)
        if error.retry_after:
            self._paused_until = max(self._paused_until, now + wait)

    def cap(self, most: int) -> None:
        """Never have more than this in flight, however many were asked for."""
        self.limit = min(self.limit, float(most))
        self.ceiling = min(self.ceiling, float(most))

    def stop(self, error: CallError) -> None:
        """Make no further call: each raises this error, and so does at once whoever waits."""
        self._fatal = error
        self._stopped.set()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call when there is room, again when its error is retryable; raise the last.

        After a fatal error (a dead key, an unknown model) no further call is made: each raises
        the same error.
        """
        attempt = 0
        while True:
            await self._take_slot()
            started = time.monotonic()
            try:
                result = await call()
            except CallError as error:
                wait = self.retry.wait(attempt, error)
                if isinstance(error, RateLimited):
                    self._on_rate_limited(started, error, wait)
                if error.fatal and self._fatal is None:
                    self.stop(error)
                attempt += 1
                # When the limiter was stopped, waiting for another try would wait for nothing.
                if self._fatal is not None or not error.retryable or attempt >= self.retry.attempts:
                    raise
            else:
                self._on_success()
                return result
            finally:
                self._give_slot_back()
            self.retried += 1
            await self._sleep(wait)
