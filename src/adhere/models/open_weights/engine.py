"""One loaded model with the queue of what is to be computed, one piece of work at a time.

Texts that wait together are written together, so that several cost little more time than one:
behind one prompt or, where the layers hold all that they read, behind several of about equal
length. Each is handed over as soon as it is at its end, and where they hold all others take the
places that became free. So are made the hidden states of answers to one prompt. Work is left when
nobody waits for it any more: between two tokens of a text, two blocks of a prompt, two pieces of
what is scored. Each piece of work is done with the model's adapter or without it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from typing import Any

from adhere.chat import Completion, Sampling, Usage
from adhere.errors import AdhereError, BadInput, Bug, ContextTooLong, Garbage, Overloaded
from adhere.models.logprobs import by_text
from adhere.models.open_weights.comparing import Side
from adhere.models.open_weights.forward import (
    Abandoned,
    GivenUp,
    Prefix,
    PromptReader,
    check_room,
    decoder_layers,
)
from adhere.models.open_weights.jobs import DrawJob, Job, LoneJob, ScoreJob, StatesJob
from adhere.models.open_weights.lease import WORKER
from adhere.models.open_weights.loading import Loaded
from adhere.models.open_weights.sampling import Draw, mixes_prompts, write
from adhere.models.open_weights.scoring import score
from adhere.models.open_weights.states import check_layers, depth_of, states
from adhere.models.open_weights.tokens import ChatTokens
from adhere.scorers import TokenLogprobs

SLOTS = 8  # texts that go through the model together
FLOAT32 = "Try dtype: float32."  # of numbers that are not finite
_SHORT = 4096  # tokens, padding included, that go together whatever the padding
_REFILLED = 8  # the share of the slots, as 1 / n, that must be free before others join


class Engine:
    """A loaded model. It belongs to one event loop; the work is done in one thread."""

    def __init__(self, net: Loaded, *, slots: int = SLOTS, reuse_prefix: bool = True) -> None:
        """`slots`: with 1, no text's rounding depends on what else is written."""
        self.net = net
        self.slots = slots if net.takes_rows else 1
        # With an adapter and without, the same prompt is read differently.
        self._readers = {on: PromptReader(net, reuse=reuse_prefix) for on in (True, False)}
        self._mixes = mixes_prompts(net)
        self._waiting: deque[Job] = deque()
        self._lock = threading.Lock()  # of what waits: texts under way are joined from the thread
        self._worker: asyncio.Task[None] | None = None

    async def write(
        self,
        tokens: ChatTokens,
        prompt: str,
        sampling: Sampling,
        seed: int | None,
        *,
        adapter: bool = True,
    ) -> Completion:
        """Write one text behind a rendered prompt. Raises CallError."""
        ids = tuple(tokens.encode_prompt(prompt))
        check_room(self.net, ids)
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._enqueue(DrawJob(tokens, ids, sampling, seed, adapter, done))
        return await done

    async def score(
        self, tokens: ChatTokens, prompt: str, texts: Sequence[str], *, adapter: bool = True
    ) -> list[TokenLogprobs]:
        """Score texts behind a rendered prompt. Raises CallError."""
        done: asyncio.Future[list[TokenLogprobs]] = asyncio.get_running_loop().create_future()
        self._enqueue(ScoreJob(tokens, prompt, texts, adapter, done))
        return await done

    @property
    def layers(self) -> int:
        """How many layers the model has. Raises BadInput for one without a list of layers."""
        return len(decoder_layers(self.net)[1])

    @property
    def shows_states(self) -> bool:
        """Whether hidden states can be had of this model."""
        try:
            return self.layers > 0
        except BadInput:
            return False

    async def states(
        self,
        prompt: Sequence[int],
        answer: Sequence[int],
        layers: Sequence[int],
        *,
        adapter: bool = True,
    ) -> Any:
        """Hidden states of an answer's tokens behind those of a prompt; see `HiddenStates`."""
        name, most = self.net.name, self.net.vocabulary
        check_layers(name, layers, self.layers)
        if strange := [i for i in (*prompt, *answer) if not 0 <= i < (most or i + 1)]:
            raise BadInput(f"{name}: found token {strange[0]}; expected 0 to {most - 1}")
        if len(prompt) + len(answer) > self.net.context:
            raise ContextTooLong(
                f"{name}: {len(prompt)} tokens of prompt and {len(answer)} of answer; the model "
                f"takes {self.net.context}",
                hint="Shorten the spec, the prompt or the answer.",
            )
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._enqueue(StatesJob(tuple(prompt), tuple(answer), tuple(layers), adapter, done))
        return await done

    def side(self, adapter: bool) -> Side:
        """The model with its adapter or without it, and what reads prompts for it so."""
        return Side(self.net, self._readers[adapter], adapter)

    async def alone(self, work: Callable[[GivenUp], Any]) -> Any:
        """Have something computed in the thread, in its turn and without gradients.

        `work` is told whether anybody still waits, and switches the adapter itself. Raises what
        it raises; what is no error of ours is Bug or Overloaded.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._enqueue(LoneJob(work, done))
        return await done

    async def close(self) -> None:
        """Give up what waits, let the work under way notice, and free the memory."""
        with self._lock:
            given_up, self._waiting = self._waiting, deque()
        for job in given_up:
            job.done.cancel()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        # Behind whatever the thread is still at: the memory must not go from under it.
        await asyncio.get_running_loop().run_in_executor(WORKER, self._free)

    # ------------------------------------------------------------ the queue

    def _enqueue(self, job: Job) -> None:
        with self._lock:
            self._waiting.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # draws of one prompt come at once; let them all arrive
            jobs = self._next()
            if not jobs:
                continue
            # By now what was handed over has come: both go through the loop's queue, in order.
            failed: Exception = Bug(f"{self.net.name}: a piece of work ended without a result")
            try:
                await asyncio.get_running_loop().run_in_executor(WORKER, self._compute, jobs)
            except asyncio.CancelledError:
                for job in jobs:
                    job.done.cancel()
                raise
            except Abandoned:
                pass
            except Exception as error:
                failed = self._failed(error)
            for job in jobs:
                _settle(job.done, failed)  # nobody waits forever

    def _next(self) -> list[Any]:
        """The first job that somebody waits for, with the ones that can go with it."""
        with self._lock:
            self._waiting = deque(job for job in self._waiting if not job.done.done())
            if not self._waiting:
                return []
            first: Any = self._waiting.popleft()
            if first.joins is None:
                return [first]
            return [first, *self._taken_with(first, [first.size], self.slots - 1)]

    def _taken_with(self, first: Job, sizes: list[int], room: int) -> list[Any]:
        """So many jobs at most that can go with one, out of those that wait; the lock is held.

        `sizes`: those of all that go already.
        """
        found: list[Any] = []
        left: deque[Job] = deque()
        longest, total = max(sizes), sum(sizes)
        for job in self._waiting:
            # Rows are padded to the longest: a short one beside a long one takes as much room.
            padded = (len(sizes) + len(found) + 1) * max(longest, job.size)
            if (
                len(found) < room
                and job.joins == first.joins
                and (self._mixes or not isinstance(job, DrawJob) or job.ids == first.ids)  # type: ignore[union-attr]
                and padded <= max(_SHORT, 2 * (total + job.size))
            ):
                found.append(job)
                longest, total = max(longest, job.size), total + job.size
            else:
                left.append(job)
        self._waiting = left
        return found

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, AdhereError):
            return error
        what = f"{self.net.name}: {type(error).__name__}: {error}"[:400]
        if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError):
            return Overloaded(what, hint="Lower `slots` or `context`, or use a larger machine.")
        return Bug(what)

    # ------------------------------------------------------------ in the thread

    def _compute(self, jobs: list[Any]) -> None:
        torch: Any = import_module("torch")
        first = jobs[0]
        with torch.inference_mode(), nullcontext() if first.adapter else self.net.base():
            if isinstance(first, LoneJob):
                _hand_over(first, first.work(first.done.done))
            elif isinstance(first, ScoreJob):
                _hand_over(first, self._score(first))
            elif isinstance(first, StatesJob):
                for job, numbers in zip(jobs, self._states(jobs), strict=True):
                    _hand_over(job, numbers)
            else:
                self._write(jobs)

    def _write(self, jobs: list[DrawJob]) -> None:
        """Write the texts, and hand over each when it is at its end.

        What else waits to be written joins them where others have ended, and is put into `jobs`.
        """
        reader = self._readers[jobs[0].adapter]
        # Not the prefixes themselves: of a batch that goes on for long they would fill the memory.
        written: list[tuple[DrawJob, Draw, float, int]] = []
        spare = self.slots  # texts that may yet join while work of another kind waits

        def begun(jobs: Sequence[DrawJob]) -> list[tuple[Prefix, Draw]]:
            started = time.monotonic()
            read: dict[tuple[int, ...], Prefix] = {}
            found: list[tuple[Prefix, Draw]] = []
            for job in jobs:
                ids, given_up = job.ids, job.done.done
                try:
                    prefix = read.get(ids) or reader.read(ids, given_up)
                except Abandoned:
                    continue
                left = self.net.context - len(ids)
                most = min(job.sampling.max_tokens or left, left)
                # Another text behind the same prompt finds all of it read.
                read[ids] = replace(prefix, reused=len(ids))
                draw = Draw(job.sampling, job.seed, most, ids, job.tokens.text_behind, given_up)
                written.append((job, draw, started, prefix.reused))
                found.append((prefix, draw))
            return found

        def more(places: Sequence[int]) -> list[tuple[Prefix, Draw]]:
            nonlocal spare
            room = self.slots - len(places)
            # Each time some join, all that is there is copied once.
            if not self._mixes or not places or room < max(1, self.slots // _REFILLED):
                return []
            sizes = [len(written[p][0].ids) + len(written[p][1].tokens) for p in places]
            with self._lock:
                others = any(job.joins != jobs[0].joins for job in self._waiting)
                found = self._taken_with(jobs[0], sizes, min(room, spare) if others else room)
            spare -= len(found) if others else 0
            jobs.extend(found)
            return begun(found)

        def ended(place: int) -> None:
            job, draw, started, reused = written[place]
            seconds = time.monotonic() - started
            _hand_over(job, self._completion(job.tokens, draw, seconds, len(job.ids), reused))

        if first := begun(jobs):
            prefixes, draws = zip(*first, strict=True)
            write(self.net, prefixes, draws, ended, more)

    def _completion(
        self, tokens: ChatTokens, draw: Draw, seconds: float, prompt: int, cached: int
    ) -> Completion | Exception:
        if draw.error is not None:
            return draw.error
        asked = draw.sampling.top_logprobs is not None
        return Completion(
            text=draw.text,
            finish_reason=draw.finish or "length",
            usage=Usage(prompt, cached, len(draw.tokens), 1, seconds),
            token_ids=tuple(draw.tokens),
            logprobs=tuple(draw.logprobs) if asked else None,
            top_logprobs=tuple(_by_text(tokens, place) for place in draw.top) if asked else None,
        )

    def _free(self) -> None:
        for reader in self._readers.values():
            reader.forget()
        self.net.free()

    def _score(self, job: ScoreJob) -> list[TokenLogprobs]:
        started = time.monotonic()
        given_up: Callable[[], bool] = job.done.done
        ids = job.tokens.encode_prompt(job.prompt)
        texts = [job.tokens.encode_text(text) for text in job.texts]
        longest = max(map(len, texts), default=0)
        prefix = self._readers[job.adapter].read(ids, given_up, room=max(1, longest))
        found = score(self.net, prefix, texts, rows=self.slots, given_up=given_up)
        if not all(math.isfinite(value) for values in found for value in values):
            raise Garbage(f"{self.net.name}: a log-probability is not finite", hint=FLOAT32)
        seconds = (time.monotonic() - started) / max(1, len(texts))
        out = []
        for place, (text, values) in enumerate(zip(texts, found, strict=True)):
            cached = len(ids) if place else prefix.reused
            used = Usage(len(ids) + len(text), cached, 0, 1, seconds)
            spelled = tuple(job.tokens.token_text(token) for token in text)
            out.append(TokenLogprobs(spelled, tuple(values), used if text else Usage()))
        return out

    def _states(self, jobs: list[StatesJob]) -> list[Any]:
        torch: Any = import_module("torch")

        def given_up() -> bool:
            return all(job.done.done() for job in jobs)

        first = jobs[0]
        depth = depth_of(first.layers, self.layers)
        prefix = self._readers[first.adapter].read_layers(first.prompt, given_up, depth, room=0)
        answers = [job.answer for job in jobs]
        found = states(self.net, prefix, answers, first.layers, depth, given_up=given_up)
        if not all(bool(torch.isfinite(torch.from_numpy(numbers)).all()) for numbers in found):
            raise Garbage(f"{self.net.name}: a hidden state is not finite", hint=FLOAT32)
        return found


def _hand_over(job: Job, result: Any) -> None:
    """From the thread to who waits."""
    job.done.get_loop().call_soon_threadsafe(_settle, job.done, result)


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    """Answer who waits, unless that was done or nobody does any more."""
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)


def _by_text(tokens: ChatTokens, place: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Log-probabilities by the token's text, without what is masked out: as good as not listed."""
    return by_text((tokens.token_text(t), value) for t, value in place if math.isfinite(value))
