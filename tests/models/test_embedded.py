"""The embedded engine with the real small model: serving, ending, waiting, reusing prompts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adhere.errors import BadInput, Overloaded, Timeout
from adhere.models.embedded import EmbeddedServer
from adhere.models.weights import Weights, find_weights

NAME = "smollm2-135m"


def engine_is_here() -> str:
    """Why these tests cannot run; empty when they can."""
    try:
        import xllamacpp  # noqa: F401

        find_weights(NAME)
    except ImportError:
        return "xllamacpp is not installed"
    except BadInput as error:
        return error.message
    return ""


REASON = engine_is_here()
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.local,
    pytest.mark.skipif(bool(REASON), reason=REASON or "it can run"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def weights() -> Weights:
    return find_weights(NAME)


@pytest.fixture(autouse=True)
def own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither wait for a run of the user's nor hold it up."""
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path))


def server(weights: Weights, **changes: Any) -> EmbeddedServer:
    return EmbeddedServer(weights, **{"slots": 1, "context": 512, "lease_timeout": 60, **changes})


def call(base_url: str, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        base_url + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


def gone(pid: int, seconds: float) -> bool:
    """Whether the process ends within `seconds` (a zombie has ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


async def test_it_serves_refuses_a_wrong_key_and_ends(weights: Weights) -> None:
    async with server(weights) as running:
        assert running.alive
        assert running.base_url.startswith("http://127.0.0.1:")
        question = {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4}
        reply = await asyncio.to_thread(
            call, running.base_url, running.key, "/v1/chat/completions", question
        )
        assert reply["choices"][0]["message"]["content"].strip()
        assert reply["usage"]["completion_tokens"] <= 4
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(
                call, running.base_url, "wrong", "/v1/chat/completions", question
            )
        assert caught.value.code == 401
        pid = running.pid
        assert pid is not None
        secrets = (
            Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        )
        assert running.key.encode() not in secrets
    assert not running.alive
    assert gone(pid, 1)


async def test_a_crash_is_seen_and_the_lease_is_free_again(weights: Weights) -> None:
    first = server(weights)
    await first.start()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    for _ in range(100):
        if not first.alive:
            break
        await asyncio.sleep(0.02)
    assert not first.alive
    assert "-9" in first.failure()
    await first.stop()
    async with server(weights, lease_timeout=0) as second:
        assert second.alive


async def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    running = server(Weights(broken, "0" * 64, None))
    with pytest.raises(Overloaded, match="did not start"):
        await running.start()
    assert not running.alive


async def test_another_model_waits_and_an_equal_one_shares(weights: Weights) -> None:
    notes: list[str] = []
    async with server(weights) as first:
        async with server(weights) as same:
            assert same.pid == first.pid
        assert first.alive, "the first user still needs it"
        other = server(weights, context=256, lease_timeout=0.3, note=notes.append)
        with pytest.raises(Timeout, match="another local model"):
            await other.start()
        assert len(notes) == 1
    async with server(weights, context=256, lease_timeout=0) as other:
        assert other.alive


async def test_a_cancelled_start_leaves_nothing(weights: Weights) -> None:
    running = server(weights)
    task = asyncio.create_task(running.start())
    pid = None
    while pid is None:
        await asyncio.sleep(0.005)
        pid = running.pid
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert gone(pid, 1)
    async with server(weights, lease_timeout=0) as again:
        assert again.alive


def test_a_killed_parent_leaves_no_orphan(weights: Weights) -> None:
    code = f"""
import asyncio, pathlib
from adhere.models.embedded import EmbeddedServer
from adhere.models.weights import Weights
async def main():
    weights = Weights(pathlib.Path({str(weights.path)!r}), "", None)
    async with EmbeddedServer(weights, slots=1, context=256) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid, 0.1)
        parent.kill()
        assert gone(pid, 2)


SHARED = "<|im_start|>system\n" + "Answer in short and plain words; never name a brand. " * 4
STAGES = 3


def converse(url: str, key: str, number: int) -> list[tuple[int, int]]:
    """One conversation that grows by stages: tokens of the earlier transcript, and from cache."""
    text = f"{SHARED}<|im_end|>\n<|im_start|>user\nQuestion {number}?<|im_end|>\n"
    text += "<|im_start|>assistant\n"
    earlier, found = 0, []
    for stage in range(STAGES):
        body = {"prompt": text, "max_tokens": 4, "seed": number, "ignore_eos": True}
        reply = call(url, key, "/v1/completions", body)
        usage = reply["usage"]
        found.append((earlier, usage["prompt_tokens_details"]["cached_tokens"]))
        earlier = usage["prompt_tokens"] + usage["completion_tokens"]
        text += reply["choices"][0]["text"] + f"\nStage {stage}: look at the rules once more.\n"
    return found


@pytest.mark.parametrize(("reuse", "count"), [(True, 4), (False, 1)])
async def test_a_growing_prompt_is_read_once(weights: Weights, reuse: bool, count: int) -> None:
    """Conversations side by side, a slot for each, all with one long beginning."""
    async with server(weights, slots=count, reuse_prefix=reuse) as running:
        with ThreadPoolExecutor(count) as pool:
            loop = asyncio.get_running_loop()
            told = await asyncio.gather(
                *(
                    loop.run_in_executor(pool, converse, running.base_url, running.key, number)
                    for number in range(count)
                )
            )
    shares = [cached / earlier for rows in told for earlier, cached in rows[1:]]
    assert len(shares) == count * (STAGES - 1)
    if reuse:
        assert min(shares) >= 0.95, shares
    else:
        assert max(shares) == 0, shares
