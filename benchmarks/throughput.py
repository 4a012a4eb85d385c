"""How much time joint judging adds to waiting for the judge: wall time over the ideal.

    python benchmarks/throughput.py [--rows 1280] [--repeats 5] [--in-flight 8 32 64]

A bare asyncio server in another process answers each chat call after 100 ms with a whole reply
about 20 rules. Ideal time is rows / in flight * 0.1 s. Measured are, in turn and in one run:

* `floor`: bare sockets that send the same bytes and read the replies, and do nothing else;
* `loop`: the project's judging of all rows, with the journal, the marks and the rows committed;
* `command`: the same with reading the file, the summary and the report.

Printed are medians of the ratio to the ideal, and CPU milliseconds of the judging process a call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from adhere.experiments.given import judge_answers
from adhere.experiments.phases import Rows
from adhere.experiments.plan import JudgingPlan

DELAY = 0.1
SAFETY, BEHAVIORAL = 8, 12
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def reply() -> bytes:
    """A whole joint reply, as a chat completion."""
    blocks = []
    for name, count in (("safety", SAFETY), ("behavioral", BEHAVIORAL)):
        lines = "".join(
            f"{i}. The answer was read with this rule in mind and follows it. <YES>\n"
            for i in range(1, count + 1)
        )
        blocks.append(f"<{name}_specifications>\n{lines}</{name}_specifications>")
    message = {"role": "assistant", "content": "\n".join(blocks)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 1200, "completion_tokens": 400, "total_tokens": 1600}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    whole = HEAD % len(REPLY) + REPLY
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
                continue
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            if b"apply-template" in head.split(b"\r\n", 1)[0]:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
                continue
            await asyncio.sleep(DELAY)
            writer.write(whole)
    writer.close()


REPLY = reply()


def serve(port: Any) -> None:
    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**20)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def write_inputs(folder: Path, rows: int) -> None:
    rules = ["# Assistant", "", "## Safety"]
    rules += [f"- [s{i}] Never do the forbidden thing number {i}." for i in range(SAFETY)]
    rules += ["", "## Behavioral"]
    rules += [f"- [b{i}] Always do the useful thing number {i}." for i in range(BEHAVIORAL)]
    (folder / "spec.md").write_text("\n".join(rules) + "\n")
    lines = (
        json.dumps({"prompt": f"Question {i}: what should I do?", "response": f"Answer {i}. " * 60})
        for i in range(rows)
    )
    (folder / "responses.jsonl").write_text("\n".join(lines) + "\n")


async def floor(port: int, rows: int, in_flight: int) -> None:
    """The same number of calls over bare sockets."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 1000}]})
    request = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    left = iter(range(rows))

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        for _ in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(worker() for _ in range(in_flight)))


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of this process."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await work()
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def judged(port: int, folder: Path, rows: int, in_flight: int) -> dict[str, float]:
    """One whole judging in a fresh run folder; the loop over rows is timed within it."""
    loop: list[tuple[float, float]] = []
    original = Rows.run

    async def run(self: Rows, *arguments: Any) -> None:
        loop.append(await timed(lambda: original(self, *arguments)))

    with tempfile.TemporaryDirectory(dir=folder) as out:
        plan = JudgingPlan(
            spec=folder / "spec.md",
            responses=folder / "responses.jsonl",
            judge={"model": "openai:m", "base_url": f"http://127.0.0.1:{port}/v1", "output": "text",
                   "prefill": "none"},
            limits={"concurrency": in_flight},
            controls=0,
            out=Path(out) / "run",
        )  # fmt: skip
        Rows.run = run  # type: ignore[method-assign]
        try:
            wall, _ = await timed(lambda: judge_answers(plan))
        finally:
            Rows.run = original  # type: ignore[method-assign]
        summary = json.loads((plan.out / "summary.json").read_text())
        scored = sum(r["n_scored"] for r in summary["rows"] if r["subset"] == "all")
        if scored != rows:
            raise SystemExit(f"{scored} of {rows} rows were scored; this measures nothing")
    return {"loop": loop[0][0], "cpu": loop[0][1], "command": wall}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1280)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[8, 32, 64])
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    print("in flight   ideal s   floor   loop   command   CPU ms a call (loop)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, options.rows)
        for in_flight in options.in_flight:
            ideal = options.rows / in_flight * DELAY
            found: dict[str, list[float]] = {k: [] for k in ("floor", "loop", "command", "cpu")}
            for _ in range(options.repeats):
                found["floor"].append(
                    asyncio.run(timed(lambda: floor(port, options.rows, in_flight)))[0] / ideal  # noqa: B023
                )
                one = asyncio.run(judged(port, folder, options.rows, in_flight))
                found["loop"].append(one["loop"] / ideal)
                found["command"].append(one["command"] / ideal)
                found["cpu"].append(1000 * one["cpu"] / options.rows)
            middle = {k: statistics.median(v) for k, v in found.items()}
            print(
                f"{in_flight:9d} {ideal:9.2f} {middle['floor']:7.2f} {middle['loop']:6.2f} "
                f"{middle['command']:9.2f} {middle['cpu']:22.2f}",
                flush=True,
            )
    server.terminate()


if __name__ == "__main__":
    main()
