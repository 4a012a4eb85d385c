"""The journal: the durable record of every draw. It makes a run resumable and countable.

`Journal(model, store)` is itself a `Model`. One record a draw; the key covers what decides the
draw (model identity, messages, prefill, sampling without seed, draw number), so that

* a draw that was committed is never asked for again, in this process or after a kill;
* asking for more draws samples only the missing ones;
* equal requests in flight are joined into one;
* methods share draws on purpose (common random numbers).

The seed is not in the key: it is an identity field of the run that owns the store.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from adhere.chat import Capability, Completion, Message, Model, OnDelta, Sampling, Usage, digest
from adhere.records.database import open_database, writing

SCHEMA = """
CREATE TABLE IF NOT EXISTS draws (
    key TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    draw INTEGER NOT NULL,
    completion TEXT NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
"""


def draw_key(
    identity: str, messages: Sequence[Message], sampling: Sampling, prefill: str, draw: int
) -> str:
    """The key of one draw. Tools and other request fields are part of `sampling.extra`."""
    return digest(
        [
            identity,
            [message.to_dict() for message in messages],
            prefill,
            sampling.but(seed=None).to_dict(),
            draw,
        ]
    )


class DrawStore:
    """The table of draws in a SQLite file (WAL: a kill loses nothing that was committed)."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._db: sqlite3.Connection = open_database(path, SCHEMA)

    def get(self, key: str) -> Completion | None:
        """The committed draw, or None."""
        row = self._db.execute("SELECT completion FROM draws WHERE key = ?", (key,)).fetchone()
        return Completion.from_dict(json.loads(row[0])) if row else None

    def put(self, key: str, identity: str, draw: int, completion: Completion) -> None:
        """Commit one draw. Raises DiskFull."""
        text = json.dumps(completion.to_dict(), ensure_ascii=True)
        with writing(self.path):
            self._db.execute(
                "INSERT INTO draws (key, identity, draw, completion, created) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (key, identity, draw, text, time.time()),
            )

    def spent(self) -> Usage:
        """What all committed draws cost together: each call once, however often it was used."""
        total = Usage()
        for (text,) in self._db.execute("SELECT completion FROM draws"):
            total += Usage.from_dict(json.loads(text)["usage"])
        return total

    def count(self) -> int:
        """How many draws are committed."""
        return int(self._db.execute("SELECT count(*) FROM draws").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class Journal:
    """A `Model` that records every draw of another one."""

    def __init__(self, model: Model, store: DrawStore) -> None:
        self.model = model
        self.store = store
        self._in_flight: dict[str, asyncio.Task[Completion]] = {}
        self._waiting: dict[str, int] = {}

    @property
    def identity(self) -> str:
        """The recorded model's."""
        return self.model.identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The recorded model's."""
        return self.model.capabilities

    async def sample(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        n: int = 1,
        first_draw: int = 0,
        prefill: str = "",
        on_delta: OnDelta | None = None,
    ) -> list[Completion]:
        """See `Model.sample`. Draws that are on record cost nothing."""
        return list(
            await asyncio.gather(
                *(
                    self._one(messages, sampling, draw, prefill, on_delta if n == 1 else None)
                    for draw in range(first_draw, first_draw + n)
                )
            )
        )

    async def _one(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        draw: int,
        prefill: str,
        on_delta: OnDelta | None,
    ) -> Completion:
        key = draw_key(self.identity, messages, sampling, prefill, draw)
        if (known := self.store.get(key)) is not None:
            if on_delta is not None:
                on_delta(known.text)
            return known
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._call(key, messages, sampling, draw, prefill, on_delta))
            self._in_flight[key] = task
        # The call belongs to all who wait for it: only the last one to give up cancels it.
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if self._waiting[key] == 0:
                del self._waiting[key]
                self._in_flight.pop(key, None)
                if not task.done():
                    task.cancel()

    async def _call(
        self,
        key: str,
        messages: Sequence[Message],
        sampling: Sampling,
        draw: int,
        prefill: str,
        on_delta: OnDelta | None,
    ) -> Completion:
        [completion] = await self.model.sample(
            messages, sampling, n=1, first_draw=draw, prefill=prefill, on_delta=on_delta
        )
        self.store.put(key, self.identity, draw, completion)
        return completion
