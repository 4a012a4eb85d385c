"""What prompt-prefix reuse and parallel slots are worth on the embedded engine.

    adhere models pull smollm2-135m && python benchmarks/local_engine.py

Align3 (forced close, 4 calls with a growing prompt) answers 8 prompts under the quickstart's spec,
with prefix reuse on and off, on 1 and on 8 slots. For each setting, in one run:

* tokens a second (generated), and prompt tokens read against prompt tokens sent;
* kept: of the transcript that the call before had left (its prompt and its text), the share that
  came from the cache, in stages 2 and 3 and in the answer; the least over all calls, and the mean;
* the ratio of the wall time to a floor measured alone on a fresh engine: reading each final
  transcript's non-generated text once, then generating as many tokens after it, with the same
  slots. Reading and generating cannot be cheaper than that; the rest is ours.

Set ADHERE_BENCH_ROUNDS to repeat it (default 1; the median ratio is printed).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adhere.chat import Completion, Message, Role, Sampling, user
from adhere.methods import load_method
from adhere.methods.base import Request
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter
from adhere.models.openai_compatible import OpenAICompatible
from adhere.prompting import Prompts
from adhere.spec import load_spec

EXAMPLE = Path(__file__).parents[1] / "examples" / "quickstart"
PROMPTS = [json.loads(line)["prompt"] for line in (EXAMPLE / "prompts.jsonl").open()][:8]
THINK, ANSWER = 48, 96


class Recorder:
    """A model that remembers each call's prefill and completion, by conversation."""

    def __init__(self, model: OpenAICompatible) -> None:
        self.model = model
        self.identity = model.identity
        self.capabilities = model.capabilities
        self.calls: dict[str, list[tuple[str, Completion]]] = {}

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, **options: Any
    ) -> list[Completion]:
        """Sample and remember."""
        got = await self.model.sample(messages, sampling, **options)
        self.calls.setdefault(messages[-1].text, []).append((options["prefill"], got[0]))
        return got


def config(slots: int, reuse: bool) -> ModelConfig:
    return ModelConfig(model="local:smollm2-135m", slots=slots, context=2048, reuse_prefix=reuse)


async def in_parallel(jobs: Sequence[Any], limit: int) -> float:
    """Run the jobs, `limit` at a time; wall seconds."""
    room = asyncio.Semaphore(limit)

    async def one(job: Any) -> None:
        async with room:
            await job()

    began = time.perf_counter()
    await asyncio.gather(*(one(job) for job in jobs))
    return time.perf_counter() - began


async def align3(slots: int, reuse: bool) -> tuple[float, Recorder]:
    method = load_method("align3", {"close": "forced", "think_tokens": THINK})
    spec = load_spec(EXAMPLE / "spec.md")
    async with connect(config(slots, reuse), Limiter(slots)) as model:
        recorder = Recorder(model)

        def job(prompt: str) -> Any:
            request = Request(
                (user(prompt),),
                spec,
                Sampling(temperature=0.7, max_tokens=ANSWER, seed=0),
                Prompts(),
            )
            return lambda: method.answer(request, {Role.POLICY: recorder})

        await model.sample([user("warm up")], Sampling(max_tokens=1))
        wall = await in_parallel([job(p) for p in PROMPTS], slots)
    return wall, recorder


async def floor(slots: int, recorder: Recorder) -> tuple[float, float]:
    """Seconds to read each final transcript without what was generated, and to generate as much."""
    async with connect(config(slots, True), Limiter(slots)) as model:
        spec = load_spec(EXAMPLE / "spec.md")
        from adhere.methods.prompting import compose

        texts, tokens = [], []
        for question, calls in recorder.calls.items():
            [head] = [compose([user(question)], spec, Prompts(), "spec_first")]
            assert model.render is not None
            text = await model.render(head) + calls[-1][0]
            for _, completion in calls[:-1]:
                text = text.replace(completion.text.rstrip(), "", 1)
            texts.append(text)
            tokens.append(sum(c.usage.completion_tokens for _, c in calls))

        def post(text: str, count: int) -> Any:
            body = {"prompt": text, "max_tokens": count, "temperature": 0.7, "ignore_eos": True}
            return lambda: model.endpoint.post("/completions", body)

        await model.sample([user("warm up")], Sampling(max_tokens=1))
        read = await in_parallel([post(t, 1) for t in texts], slots)
        # On one slot only the last text is still in its slot, so each generation would read its
        # text again; there the engine's own clock of the generation alone is the measure.
        if slots >= len(texts):
            generate = await in_parallel(
                [post(t, n) for t, n in zip(texts, tokens, strict=True)], slots
            )
        else:
            generate = 0.0
            for text, count in zip(texts, tokens, strict=True):
                reply = await post(text, count)()
                generate += reply["timings"]["predicted_ms"] / 1000
    return read, generate


def kept(recorder: Recorder) -> tuple[float, float]:
    """Least and mean share of the earlier transcript that later calls found in the cache."""
    shares = []
    for calls in recorder.calls.values():
        for (_, before), (_, after) in itertools.pairwise(calls):
            earlier = before.usage.prompt_tokens + before.usage.completion_tokens
            shares.append(min(1.0, after.usage.cached_prompt_tokens / earlier))
    return min(shares), statistics.mean(shares)


async def main() -> None:
    rounds = int(os.environ.get("ADHERE_BENCH_ROUNDS", "1"))
    print(f"align3 over {len(PROMPTS)} prompts, {THINK} tokens a stage, {ANSWER} for the answer")
    print("slots  reuse   wall s  tokens/s  read/sent    kept least, mean   floor s  wall/floor")
    walls: dict[tuple[int, bool], float] = {}
    for slots in (1, 8):
        for reuse in (True, False):
            ratios, lines = [], []
            for _ in range(rounds):
                wall, recorder = await align3(slots, reuse)
                calls = [c for found in recorder.calls.values() for _, c in found]
                sent = sum(c.usage.prompt_tokens for c in calls)
                read = sent - sum(c.usage.cached_prompt_tokens for c in calls)
                made = sum(c.usage.completion_tokens for c in calls)
                least, mean = kept(recorder)
                reading, generating = await floor(slots, recorder)
                ratios.append(wall / (reading + generating))
                walls[slots, reuse] = wall
                lines.append(
                    f"{slots:5d}  {'on' if reuse else 'off':5s}  {wall:6.1f}  {made / wall:8.1f}  "
                    f"{read:5d}/{sent:<6d}  {least:8.1%}, {mean:6.1%}   "
                    f"{reading + generating:7.1f}  {ratios[-1]:9.2f}"
                )
            print("\n".join(lines), flush=True)
            if rounds > 1:
                print(f"       median wall/floor {statistics.median(ratios):.2f}", flush=True)
    for slots in (1, 8):
        gain = walls[slots, False] / walls[slots, True]
        print(f"prefix reuse on {slots} slot(s): {gain:.2f} times as fast")
    print(f"8 slots instead of 1: {walls[1, True] / walls[8, True]:.2f} times as fast")


if __name__ == "__main__":
    asyncio.run(main())
