"""The loop over rows that go forward step by step, wherever each of them stopped.

Every step is committed when it is done. So a row goes on in another process after a kill, or when
the model that it waits for has its turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adhere.chat import Outcome
from adhere.errors import AdhereError
from adhere.experiments.answering import worth_retrying
from adhere.experiments.breaker import Breaker
from adhere.experiments.phases import Listener
from adhere.experiments.stepwise.seats import NOBODY, Open
from adhere.records import SCHEMA_VERSION, RunFolder
from adhere.records.run_folder import Key

Row = dict[str, Any]

WAITING = "waiting"  # for its next step; any other outcome is the row's end
FAILED = Outcome.FAILED.value


def begun(key: Key, **own: Any) -> Row:
    """A row before anything was asked; `own`: what its kind of run keeps in it."""
    suite, case, model, method, repeat = key
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite,
        "case": case,
        "model": model,
        "method": method,
        "repeat": repeat,
        "outcome": WAITING,
        "reason": "",
        "detail": "",
        "error": None,
        **own,
    }


def ended(row: Row, outcome: str, reason: str = "", detail: str = "") -> Row:
    """The row at its end."""
    return {**row, "outcome": outcome, "reason": reason, "detail": detail, "error": None}


def may_come_better(row: Row) -> bool:
    """Whether a row failed for a call that another start tries again.

    One that failed without an error failed for what a model wrote: it would write it again.
    """
    return row["error"] is not None and worth_retrying(row)


class Steps(Protocol):
    """What the rows of a kind of run go through."""

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked, as `begun` makes it."""

    def next_seat(self, row: Row) -> str:
        """Who must be open for a row's next step: a seat, or `NOBODY`."""

    async def step(self, row: Row, open_: Open) -> Row:
        """The row one step further.

        A failed call ends it as FAILED with its `error`. Raises what stops the run: an error of
        the journal, or a limit.
        """


@dataclass
class RowLoop:
    """All rows of a run. `known` are those on record."""

    steps: Steps
    folder: RunFolder
    listener: Listener
    known: dict[Key, Row] = field(default_factory=dict)
    _tried: set[Key] = field(default_factory=set)  # failed in this start: not tried again in it

    def __post_init__(self) -> None:
        """Read what is there."""
        self.known = self.folder.rows()
        self.breaker = Breaker.of(self.known)

    def to_do(self, keys: Sequence[Key]) -> list[Key]:
        """The rows that are not at their end, or failed and may come better."""
        return [key for key in keys if self._is_open(key)]

    def _is_open(self, key: Key) -> bool:
        row = self.known.get(key)
        if row is None or row["outcome"] == WAITING:
            return True
        return may_come_better(row) and key not in self._tried

    def waiting(self, keys: Sequence[Key]) -> Counter[str]:
        """How many rows wait for each seat next."""
        return Counter(self.steps.next_seat(self._row(key)) for key in self.to_do(keys))

    def _row(self, key: Key) -> Row:
        return self.known.get(key) or self.steps.new_row(key)

    async def run(self, keys: Sequence[Key], open_: Open) -> None:
        """Bring rows forward as far as the open models can. Raises what stops the run."""
        self.breaker.limiters = list(open_.limiters.values())
        # One row for each call that may be in flight: rows that are begun are finished first.
        room = asyncio.Semaphore(open_.room)

        async def one(key: Key) -> None:
            async with room:
                try:
                    await self._forward(key, open_)
                except AdhereError as error:  # of the journal or a limit; a model's is in the row
                    self.breaker.halt(error)

        async with asyncio.TaskGroup() as group:
            for key in self.to_do(keys):
                group.create_task(one(key))
        if self.breaker.stop is not None:
            raise self.breaker.stop

    async def _forward(self, key: Key, open_: Open) -> None:
        row = self._row(key)
        if row["outcome"] == FAILED:
            row = ended(row, WAITING)
        while row["outcome"] == WAITING and self.breaker.stop is None:
            seat = self.steps.next_seat(row)
            if seat != NOBODY and seat not in open_.models:
                return
            row = await self.steps.step(row, open_)
            if self.breaker.stop is not None and row["outcome"] == FAILED:
                return  # never asked, because the breaker is open
            self.folder.put_row(row, whole=False)
            self.known[key] = row
        if row["outcome"] != WAITING:
            self._tried.add(key)
            self.listener.row(row)
            self.breaker.watch(key, row)
