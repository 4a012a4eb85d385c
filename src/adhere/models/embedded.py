"""The embedded engine: a model file served on this machine, for as long as it is needed.

`EmbeddedServer` starts llama.cpp's HTTP server in a child process on loopback, with a random key,
and is reached through the same client as every other server. One such server runs at a time on a
machine: it holds the compute lease, because two that share the cores are slower together than
one after the other (measured: 2 tokens a second against 80).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTaken

from adhere.errors import BadInput, Overloaded, Timeout, disk_error
from adhere.models.weights import Weights, cache_folder

START_SECONDS = 120.0
LEASE_FILE = "compute.lease"

Note = Callable[[str], None]


def default_threads() -> int:
    """Threads for decoding: the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


class EmbeddedServer:
    """A model served by a child process. `async with` starts and stops it.

    `slots` sequences are decoded in parallel, each with `context` tokens. With `reuse_prefix` a
    prompt that begins like an earlier one is read from where they differ.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        slots: int = 8,
        context: int = 4096,
        threads: int | None = None,
        reuse_prefix: bool = True,
        note: Note = lambda text: None,
    ) -> None:
        """Raises BadInput when the engine is not installed."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise BadInput(
                "the embedded engine is not installed",
                hint="pip install 'adhere[local]'",
            )
        self.weights = weights
        self.slots = slots
        self.context = context
        self.threads = threads or default_threads()
        self.reuse_prefix = reuse_prefix
        self.key = secrets.token_urlsafe(32)
        self.base_url = ""
        self._note = note
        self._child: asyncio.subprocess.Process | None = None
        self._lease = FileLock(cache_folder() / LEASE_FILE)
        self._log: Path | None = None

    async def __aenter__(self) -> EmbeddedServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Wait for the compute lease, start the child, wait until it serves.

        Raises Overloaded when the child dies, Timeout when it does not come up.
        """
        await self._take_lease()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _take_lease(self) -> None:
        said = False
        while True:
            try:
                Path(self._lease.lock_file).parent.mkdir(parents=True, exist_ok=True)
                self._lease.acquire(timeout=0)
                return
            except LockTaken:
                if not said:
                    self._note("another adhere process is using this machine's cores; waiting")
                    said = True
                await asyncio.sleep(0.5)
            except OSError as error:
                raise disk_error(error, self._lease.lock_file) from None

    async def _start(self) -> None:
        handle, name = tempfile.mkstemp(prefix="adhere-engine-", suffix=".log")
        os.close(handle)
        self._log = Path(name)
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "adhere.models.embedded_server"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C is for the parent, which then ends the child in good order.
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        config: dict[str, Any] = {
            "model": str(self.weights.path),
            "name": self.weights.model.name if self.weights.model else self.weights.path.stem,
            "key": self.key,
            "slots": self.slots,
            "context": self.context,
            "threads": self.threads,
            "reuse_prefix": self.reuse_prefix,
            "cache_mib": 2048,
            "log": str(self._log),
        }
        try:
            async with asyncio.timeout(START_SECONDS):
                self._child.stdin.write(json.dumps(config).encode() + b"\n")
                await self._child.stdin.drain()
                line = await self._child.stdout.readline()
        except TimeoutError:
            raise Timeout(f"the embedded engine did not start within {START_SECONDS:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            await self._child.wait()
            raise Overloaded(f"the embedded engine did not start: {self.failure()}")
        self.base_url = json.loads(line)["url"]

    def failure(self) -> str:
        """The end of what the engine had to say, in one line."""
        try:
            lines = self._log.read_text(errors="replace").split("\n") if self._log else []
        except OSError:
            lines = []
        said = " / ".join(line.strip() for line in lines[-6:] if line.strip())
        code = self._child.returncode if self._child else None
        return f"{said or 'no message'} (exit code {code})"

    async def stop(self) -> None:
        """End the child and free the lease."""
        child = self._child
        if child is not None and child.returncode is None:
            if child.stdin is not None:
                child.stdin.close()
            try:
                async with asyncio.timeout(3):
                    await child.wait()
            except (TimeoutError, asyncio.CancelledError):
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        if self._log is not None:
            self._log.unlink(missing_ok=True)
        self._lease.release()
