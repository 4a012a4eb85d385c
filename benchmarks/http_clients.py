"""Measure which HTTP client costs least: this project's endpoint, httpx2, or the openai SDK.

    pip install httpx2 openai && python benchmarks/http_clients.py [CALLS] [IN_FLIGHT]

A bare asyncio server in another process answers each chat call after 100 ms. Ideal time is
calls / in flight * 0.1 s; the ratio to it is the client's overhead. The clients take turns in one
run, three times each; medians are printed. The two that are no dependency of the project are left
out where they are not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from adhere.models.http import Endpoint

DELAY = 0.1
BODY = {"model": "m", "messages": [{"role": "user", "content": "word " * 400}]}
REPLY = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "word " * 200},
            }
        ],
        "usage": {"prompt_tokens": 400, "completion_tokens": 200, "total_tokens": 600},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

Call = Callable[[], Awaitable[Any]]


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            await asyncio.sleep(DELAY)
            writer.write(HEAD % len(REPLY) + REPLY)
            await writer.drain()
    writer.close()


def serve(port: Any) -> None:
    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def timed(call: Call, calls: int, in_flight: int) -> tuple[float, float]:
    """Wall seconds, and CPU milliseconds of this process a call."""
    room = asyncio.Semaphore(in_flight)

    async def one() -> None:
        async with room:
            await call()

    await asyncio.gather(*(one() for _ in range(in_flight)))  # connections are open from here
    cpu, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(calls)))
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    return wall, used / calls * 1000


async def main(url: str, calls: int, in_flight: int) -> None:
    endpoint = Endpoint(url, pool=in_flight)
    clients: dict[str, Call] = {
        "adhere (aiohttp)": lambda: endpoint.post("/chat/completions", BODY)
    }
    with contextlib.suppress(ImportError):
        import httpx2

        limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        thin = httpx2.AsyncClient(limits=limits)

        async def by_httpx2() -> Any:
            return (await thin.post(f"{url}/chat/completions", json=BODY)).json()

        clients["httpx2"] = by_httpx2
    with contextlib.suppress(ImportError):
        import openai

        sdk = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        clients["openai"] = lambda: sdk.chat.completions.create(**BODY)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for _ in range(3):
        for name, call in clients.items():
            found[name].append(await timed(call, calls, in_flight))
    ideal = calls / in_flight * DELAY
    print(f"{calls} calls, {in_flight} in flight, ideal {ideal:.2f} s")
    for name, runs in found.items():
        wall = statistics.median(run[0] for run in runs)
        cpu = statistics.median(run[1] for run in runs)
        print(f"{name:18s} {wall:6.2f} s  {wall / ideal:5.2f} x ideal  {cpu:5.2f} ms CPU a call")
    await endpoint.close()


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    arguments = [int(a) for a in sys.argv[1:3]]
    asyncio.run(
        main(f"http://127.0.0.1:{ours.recv()}", *(arguments + [1280, 64][len(arguments) :]))
    )
    server.terminate()
