"""The embedded engine: a model file served on this machine, for as long as it is needed.

`EmbeddedServer` starts llama.cpp's HTTP server in a child process on loopback, with a random key,
and is reached through the same client as every other server. One such server runs at a time on a
machine: it holds the compute lease, because two that share the cores are slower together than
one after the other (measured: 2 tokens a second against 80). Within a process, servers of equal
settings are one child that ends with its last user; others wait for it, like other processes.
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
STOP_SECONDS = 3.0
LEASE_FILE = "compute.lease"
CACHE_MIB = 2048  # memory for transcripts that had to leave their slot

_LOG_TAIL = 4096  # bytes of the child's log that an error message is made of

Note = Callable[[str], None]


def default_threads() -> int:
    """Threads for decoding: the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


class EmbeddedServer:
    """A model served by a child process. `async with` starts and stops it.

    `slots` sequences are decoded in parallel, each with `context` tokens. With `reuse_prefix` a
    prompt that begins like an earlier one is read from where they differ; keep at most `slots`
    conversations under way, or they push each other out of the slots. `lease_timeout`: seconds to
    wait for the machine, None for as long as it takes.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        slots: int = 8,
        context: int = 4096,
        threads: int | None = None,
        reuse_prefix: bool = True,
        lease_timeout: float | None = None,
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
        self.lease_timeout = lease_timeout
        self._note = note
        self._child: _Child | None = None
        self._said = ""

    async def __aenter__(self) -> EmbeddedServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        """Where the child serves; empty before it does."""
        return self._child.base_url if self._child else ""

    @property
    def key(self) -> str:
        """The bearer key that the child asks for; empty before it serves."""
        return self._child.key if self._child else ""

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.alive

    def failure(self) -> str:
        """The end of what the engine had to say, in one line."""
        return self._child.failure() if self._child else self._said or "it was not started"

    async def start(self) -> None:
        """Wait for the compute lease, start the child, wait until it serves.

        Raises Overloaded when the child dies, Timeout when it does not come up in time or the
        lease is not to be had within `lease_timeout`.
        """
        if self._child is not None:
            return
        settings: dict[str, Any] = {
            "model": str(self.weights.path),
            "name": self.weights.model.name if self.weights.model else self.weights.path.stem,
            "slots": self.slots,
            "context": self.context,
            "threads": self.threads,
            "reuse_prefix": self.reuse_prefix,
            "cache_mib": CACHE_MIB,
        }
        loop = asyncio.get_running_loop()
        running = _RUNNING.get((loop, json.dumps(settings)))
        if running is None or running.dead:
            if running is not None:
                await running.stop()
            running = _RUNNING[loop, json.dumps(settings)] = _Child(settings)
        self._child = running
        running.users += 1
        try:
            async with running.starting:  # the second user waits for the first one's start
                if not running.base_url:
                    await running.start(self._note, self.lease_timeout)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the child, unless another server of this process uses it, and free the lease."""
        child, self._child = self._child, None
        if child is None:
            return
        child.users -= 1
        if child.users <= 0:
            for key in [key for key, value in _RUNNING.items() if value is child]:
                del _RUNNING[key]
            try:
                await child.stop()
            finally:
                self._said = child.failure()
                child.forget()


class _Child:
    """One child process with its lease and log; shared by the servers that want the same."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.key = secrets.token_urlsafe(32)
        self.base_url = ""
        self.users = 0
        self.starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._lease = FileLock(cache_folder() / LEASE_FILE)
        self._log: Path | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def dead(self) -> bool:
        """Whether it served and ended."""
        return self._process is not None and self._process.returncode is not None

    async def start(self, note: Note, lease_timeout: float | None) -> None:
        await self._take_lease(note, lease_timeout)
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await self._spawn()
            self.base_url = await self._url(line)
        except BaseException as error:
            await self.stop()  # before another user tries
            if isinstance(error, TimeoutError):
                raise Timeout(
                    f"the embedded engine did not start within {START_SECONDS:g} s"
                ) from None
            raise

    async def _url(self, line: bytes) -> str:
        try:
            return str(json.loads(line)["url"])
        except (ValueError, KeyError, TypeError):
            await self._end()
            raise Overloaded(
                f"the embedded engine did not start: {self.failure()}",
                hint="Is the model file whole and a GGUF that llama.cpp knows, and is there "
                "memory for it? Fewer --slots or a smaller --context need less.",
            ) from None

    async def _take_lease(self, note: Note, lease_timeout: float | None) -> None:
        clock = asyncio.get_running_loop()
        begun, said = clock.time(), False
        while True:
            try:
                Path(self._lease.lock_file).parent.mkdir(parents=True, exist_ok=True)
                self._lease.acquire(timeout=0)
                return
            except LockTaken:
                ours = any(child.alive for child in _RUNNING.values() if child is not self)
                holder = "another local model of this run" if ours else "another adhere process"
                if not said:
                    note(f"{holder} is using this machine's cores; waiting")
                    said = True
                if lease_timeout is not None and clock.time() - begun >= lease_timeout:
                    raise Timeout(
                        f"{holder} has used this machine's cores for {lease_timeout:g} s",
                        hint="Wait until it ends, or end it, and run the same command again.",
                    ) from None
                await asyncio.sleep(0.2)
            except OSError as error:
                raise disk_error(error, self._lease.lock_file) from None

    async def _spawn(self) -> bytes:
        """Start the process and return its first line; empty when it ended instead."""
        self.forget()
        handle, name = tempfile.mkstemp(prefix="adhere-engine-", suffix=".log")
        os.close(handle)
        self._log = Path(name)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "adhere.models.embedded_server"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C is for the parent, which then ends the child in good order.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        config = {**self.settings, "key": self.key, "log": str(self._log)}
        try:
            self._process.stdin.write(json.dumps(config).encode() + b"\n")
            await self._process.stdin.drain()
            return await self._process.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def failure(self) -> str:
        try:
            said = self._log.read_bytes()[-_LOG_TAIL:].decode(errors="replace") if self._log else ""
        except OSError:
            said = ""
        lines = [line.strip() for line in said.split("\n") if line.strip()]
        code = self._process.returncode if self._process else None
        return f"{' / '.join(lines[-6:]) or 'no message'} (exit code {code})"

    async def stop(self) -> None:
        try:
            await self._end()
        finally:
            self.base_url = ""
            self._lease.release()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            pass
        finally:  # also when we are cancelled meanwhile
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await process.wait()

    def forget(self) -> None:
        """Remove the log."""
        if self._log is not None:
            self._log.unlink(missing_ok=True)


_RUNNING: dict[tuple[asyncio.AbstractEventLoop, str], _Child] = {}
