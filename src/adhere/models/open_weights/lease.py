"""The compute lease for work in this process: one engine decodes or trains at a time on a machine.

The same lock as the embedded engine's (`models/embedded.py`). Within a process it is held once,
however many ask for it; they share one worker thread, so that they take turns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock
from filelock import Timeout as LockTaken

from adhere.errors import disk_error
from adhere.models.embedded import LEASE_FILE
from adhere.models.weights import cache_folder

# One thread: what is under way in it has the machine to itself, and the rest waits its turn.
WORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="adhere-weights")

_POLL_SECONDS = 0.2


class _Held:
    """The lock of one file, and how many in this process use it."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path, thread_local=False)
        self.users = 0


_HELD: dict[Path, _Held] = {}
_GUARD = threading.Lock()


def take(path: Path) -> bool:
    """Take the lease of a file, or share it within this process; whether that could be done."""
    with _GUARD:
        held = _HELD.setdefault(path, _Held(path))
        if held.users == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.lock.acquire(timeout=0)
            except LockTaken:
                return False
        held.users += 1
        return True


def give_back(path: Path) -> None:
    """Give back what `take` took; the last one to do so frees the machine."""
    with _GUARD:
        held = _HELD[path]
        held.users -= 1
        if held.users == 0:
            held.lock.release()


def lease_file() -> Path:
    """The lock that stands for this machine's cores."""
    return cache_folder() / LEASE_FILE


def attempts(note: Callable[[str], None]) -> Iterator[float]:
    """Try to take the machine's cores; yields the seconds to wait until the next try.

    Ends when they are taken. Says once that others have them. Raises DiskFull, BadInput.
    """
    path = lease_file()
    said = False
    while True:
        try:
            if take(path):
                return
        except OSError as error:
            raise disk_error(error, path) from None
        if not said:
            note("another local model is using this machine's cores; waiting")
            said = True
        yield _POLL_SECONDS


@asynccontextmanager
async def compute_lease(note: Callable[[str], None] = lambda text: None) -> AsyncIterator[None]:
    """Hold the machine's cores, for as long as it takes to get them. Raises DiskFull, BadInput."""
    for seconds in attempts(note):
        await asyncio.sleep(seconds)
    try:
        yield
    finally:
        give_back(lease_file())
