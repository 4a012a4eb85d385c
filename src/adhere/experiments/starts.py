"""One start of a run: what it is recorded as, how it may end, and what it came to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from adhere.errors import EXIT_DONE, AdhereError, BadInput, DiskFull
from adhere.records import RunFolder

_WALL_SECONDS = "wall seconds"  # a fact of the run's folder


class Silent:
    """A listener that does nothing."""

    def started(self, total: int, done: int) -> None:
        """Ignore it."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `stopped` says why it ended early, or is empty."""

    folder: Path
    summary: Mapping[str, Any]
    did_nothing: bool
    stopped: str = ""
    exit_code: int = EXIT_DONE


def new_record(
    plan: BaseModel, operational: tuple[str, ...], identity: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """What `run.yaml` says of a run: its identity, and its plan by what changes a number."""
    dumped = plan.model_dump(mode="json", exclude_none=True)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
        "identity": dict(identity),
        "plan": {k: v for k, v in dumped.items() if k not in operational},
        "operational": {k: v for k, v in dumped.items() if k in operational and k != "out"},
    }


@dataclass
class Ending:
    """What ended the work of a start early: an error, or whoever runs it. Neither: its end."""

    error: AdhereError | None = None
    interrupted: bool = False

    @property
    def why(self) -> str:
        """In words, for the summary; empty for work that came to its end."""
        return str(self.error) if self.error else "interrupted" if self.interrupted else ""

    def pass_on(self) -> None:
        """Go on with an interruption that was held back. Raises CancelledError."""
        if self.interrupted:
            raise asyncio.CancelledError


@contextmanager
def until_its_end(folder: RunFolder) -> Iterator[Ending]:
    """Around the work of a start. What ends it early is told, so that what is there is summed up.

    Raises what came before the folder had a record, which is discarded; and BadInput and DiskFull:
    the user has to do something first, and the journal holds what was done.
    """
    ending = Ending()
    try:
        yield ending
    except (AdhereError, asyncio.CancelledError) as error:
        if folder.read_record() is None:
            folder.discard()
            raise
        if isinstance(error, BadInput | DiskFull):
            raise
        if isinstance(error, AdhereError):
            ending.error = error
        else:
            ending.interrupted = True


def seconds_spent(folder: RunFolder, started: float, *, worked: bool) -> float:
    """Wall time of all starts of a run together; that of one that did nothing counts for nothing.

    `started`: when this start began, by `time.monotonic`. What a killed start took is not known.
    """
    before: float = folder.get_fact(_WALL_SECONDS) or 0.0
    if not worked:
        return before
    seconds = before + time.monotonic() - started
    folder.put_fact(_WALL_SECONDS, seconds)
    return seconds
