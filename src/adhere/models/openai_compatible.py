"""A model behind an OpenAI-compatible server: chat, and the routes by which it takes a prefill.

A *prefill* is a given beginning of the answer that the model continues (Align3, MoreThink and
ZeroThink stand on it). Servers differ in how they take one, hence the routes:

* `completions`: the chat template is rendered here (from a file the user gives) or by the server
  (llama.cpp's /apply-template), the prefill is appended, and /completions continues it.
* `chat`: the prefill is sent as a last assistant message with `continue_final_message` (vLLM,
  SGLang). Servers that send the prefill back are normalised: `Completion.text` never holds it.
* `none`: the model has no prefill; methods that need one fall back to a named emulation.

Each draw is one request with its own seed, so that a draw can be repeated or resumed alone. The
draws of one prompt share their prefix in the server's cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, Literal, get_args

from adhere.chat import Capability, Completion, Message, OnDelta, Sampling, digest
from adhere.errors import BadInput, CallError, Garbage, NotFound
from adhere.models.http import Endpoint
from adhere.models.limiter import Limiter
from adhere.models.replies import StreamedReply, read_completion
from adhere.models.thinking import OPEN

Route = Literal["completions", "chat", "none"]
ROUTES: tuple[str, ...] = get_args(Route)

RenderPrompt = Callable[[Sequence[Message]], Awaitable[str]]

_SEED_SPACE = 2**31 - 1


def draw_seed(seed: int, draw: int) -> int:
    """The seed of one draw: far apart for neighboring run seeds, so repeats never overlap."""
    return (seed * 1_000_003 + draw) % _SEED_SPACE


class OpenAICompatible:
    """A `Model`. Open it with `models/connect.py`, which probes what the server can do."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        limiter: Limiter,
        *,
        provider: str = "openai",
        route: Route = "none",
        render: RenderPrompt | None = None,
        weights: str = "",
        template: str = "",
        capabilities: frozenset[Capability] = frozenset({Capability.CHAT}),
        extra_body: Mapping[str, Any] | None = None,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        """`render` turns messages into prompt text; the `completions` route needs it.

        `marks` are further facts that tell this model from another one of the same name.
        """
        self.name = name
        self.endpoint = endpoint
        self.limiter = limiter
        self.provider = provider
        self.route = route
        self.render = render
        self.weights = weights
        self.template = template
        self._capabilities = capabilities
        self.extra_body = dict(extra_body or {})
        self.marks = dict(marks or {})
        self._rendered: dict[str, str] = {}

    @cached_property
    def identity(self) -> str:
        """Everything that decides what is sampled; the base URL is recorded, not keyed."""
        parts = [f"{self.provider}:{self.name}"]
        if self.weights:
            parts.append(f"weights={self.weights[:16]}")
        if self.template:
            parts.append(f"template={self.template[:16]}")
        if self.route != "none":
            parts.append(f"prefill={self.route}")
        if self.extra_body:
            parts.append(f"extra_body={digest(self.extra_body)[:16]}")
        parts += [f"{key}={value}" for key, value in sorted(self.marks.items())]
        return " ".join(parts)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """As probed."""
        return self._capabilities

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
        """Sample `n` draws at once, each as its own request. See `Model.sample`."""
        if n == 1:
            return [await self._draw(messages, sampling, first_draw, prefill, on_delta)]
        # A group would cancel the finished siblings' results of no one; gather keeps it simple.
        return list(
            await asyncio.gather(
                *(
                    self._draw(messages, sampling, draw, prefill, None)
                    for draw in range(first_draw, first_draw + n)
                )
            )
        )

    async def _draw(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        draw: int,
        prefill: str,
        on_delta: OnDelta | None,
    ) -> Completion:
        path, body = await self._request(messages, sampling, draw, prefill)

        async def call() -> Completion:
            started = time.monotonic()
            if on_delta is None:
                data = await self.endpoint.post(path, body)
            else:
                data = await self._streamed(path, body, on_delta)
            return read_completion(
                data,
                where=self.endpoint.base_url,
                max_tokens=body.get("max_tokens") or body.get("max_completion_tokens"),
                prefill=prefill,
                seconds=time.monotonic() - started,
            )

        return await self.limiter.run(call)

    async def _request(
        self, messages: Sequence[Message], sampling: Sampling, draw: int, prefill: str
    ) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"model": self.name, **self.extra_body}
        for key in ("temperature", "top_p", "max_tokens"):
            if (value := getattr(sampling, key)) is not None:
                body[key] = value
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = draw_seed(sampling.seed, draw)
        body.update(sampling.extra)
        if prefill and self.route == "completions":
            body["prompt"] = join_prefill(await self._prompt(messages), prefill)
            return "/completions", body
        body["messages"] = [message.to_dict() for message in messages]
        if prefill:
            if self.route != "chat":
                raise BadInput(f"{self.name}: this server cannot continue a given beginning")
            body["messages"].append({"role": "assistant", "content": prefill})
            body["add_generation_prompt"] = False
            body["continue_final_message"] = True
        return "/chat/completions", body

    async def _prompt(self, messages: Sequence[Message]) -> str:
        if self.render is None:
            raise BadInput(f"{self.name}: no chat template to render the prompt with")
        key = digest([m.to_dict() for m in messages])
        if key not in self._rendered:
            if len(self._rendered) > 4096:
                self._rendered.clear()
            self._rendered[key] = await self.render(messages)
        return self._rendered[key]

    async def _streamed(
        self, path: str, body: Mapping[str, Any], on_delta: OnDelta
    ) -> Mapping[str, Any]:
        reply = StreamedReply(self.endpoint.base_url, on_delta)
        async with aclosing(self.endpoint.stream(path, body)) as events:
            async for event in events:
                if event is None:
                    return reply.whole()
                reply.take(event)
        # Some servers never say [DONE]; then only a finish_reason tells an end from a cut.
        if not reply.finish:
            raise Garbage(f"{self.endpoint.base_url}: the stream ended before it was done")
        return reply.whole()

    # ------------------------------------------------------------ probes

    async def check_reachable(self) -> list[str]:
        """The names the server lists (empty if it keeps no list). Raises when it cannot serve us.

        Costs no tokens, except for a name that is not on the list: servers with aliases exist,
        so such a name is tried with a one-token call before it is refused.
        """
        try:
            data = await self.endpoint.get("/models")
        except (NotFound, BadInput):
            return []  # no list of models here; the first call will tell
        if not isinstance(data, dict) or not isinstance(data.get("data"), list):
            return []
        names = [
            str(item["id"]) for item in data["data"] if isinstance(item, dict) and "id" in item
        ]
        if names and self.name not in names:
            try:
                await self.sample([Message("user", "Say hello.")], Sampling(max_tokens=1))
            except (NotFound, BadInput) as error:
                raise NotFound(
                    f"{self.endpoint.base_url}: no model {self.name!r} ({error.message})",
                    hint=f"The server lists: {', '.join(sorted(names)[:20])}",
                ) from None
        return names

    async def probe_chat_prefill(self) -> bool:
        """Whether the server really continues a last assistant message, by a counting prompt."""
        prefill = "1 2 3 4 5 6 7 8 9 10 11 12 13"
        trial = OpenAICompatible(self.name, self.endpoint, self.limiter, route="chat")
        try:
            [got] = await trial.sample(
                [Message("user", "Count from 1 to 20, with a space between the numbers.")],
                Sampling(temperature=0, max_tokens=6),
                prefill=prefill,
            )
        except (CallError, BadInput):
            return False
        return got.text.strip().startswith("14")


def join_prefill(prompt: str, prefill: str) -> str:
    """Prompt and prefill as one text; a thought that the template opened is not opened twice."""
    if prefill.startswith(OPEN) and prompt.rstrip().endswith(OPEN):
        return prompt.rstrip().removesuffix(OPEN) + prefill
    return prompt + prefill
