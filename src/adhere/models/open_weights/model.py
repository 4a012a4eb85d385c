"""`OpenWeights`: a model in this process, that samples, scores texts and shows its insides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from adhere.chat import Capability, Completion, Message, OnDelta, Sampling, digest
from adhere.errors import BadInput
from adhere.gathering import all_of
from adhere.models.limiter import Limiter
from adhere.models.open_weights.attaching import adapts_embeddings
from adhere.models.open_weights.candidates import compare, last_states_of
from adhere.models.open_weights.engine import Engine
from adhere.models.open_weights.sampling import check_sampling
from adhere.models.open_weights.tokens import ChatTokens
from adhere.models.openai_compatible import draw_seed
from adhere.models.prefill import opens_thought
from adhere.models.probing import MOST_LOGPROBS, template_kwargs
from adhere.models.replies import split_off_thought, with_opened_thought
from adhere.models.thinking import CLOSE
from adhere.scorers import Comparable, Compared, StatesAt, TokenLogprobs


class OpenWeights:
    """A language model in this process. Open it with `models/open_weights/connect.py`.

    `weights` and `adapter` are the hashes that its identity names, `thought_opened` overrules what
    the rendered prompt shows; see `OpenAICompatible` for the rest. Without an `adapter`, what the
    engine may have of one is switched off.
    """

    scores_together = True  # texts to one prompt share the reading of it

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokens: ChatTokens,
        limiter: Limiter,
        *,
        weights: str,
        adapter: str = "",
        capabilities: frozenset[Capability],
        extra_body: Mapping[str, Any] | None = None,
        marks: Mapping[str, str] | None = None,
        thought_end: str = CLOSE,
        thought_opened: bool | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.tokens = tokens
        self.limiter = limiter
        self.weights = weights
        self.adapter = adapter
        self.capabilities = capabilities
        self.extra_body = dict(extra_body or {})
        self.marks = dict(marks or {})
        self.thought_end = thought_end
        self.thought_opened = thought_opened

    @cached_property
    def identity(self) -> str:
        """Everything that decides what is sampled and scored; where the folder lies does not."""
        parts = [f"weights:{self.name}", f"weights={self.weights[:16]}"]
        if self.adapter:
            parts.append(f"adapter={self.adapter[:16]}")
        parts += [f"template={self.tokens.template.digest[:16]}", f"dtype={self.engine.net.dtype}"]
        if self.extra_body:
            parts.append(f"extra_body={digest(self.extra_body)[:16]}")
        parts += [f"{key}={value}" for key, value in sorted(self.marks.items())]
        return " ".join(parts)

    def without_adapter(self) -> OpenWeights:
        """The base beneath the adapter, in the same memory, with the template and tokenizer in use.

        Where the adapter brings neither of its own, this is what opening the base alone gives, and
        has its identity.
        """
        return OpenWeights(
            self.name,
            self.engine,
            self.tokens,
            self.limiter,
            weights=self.weights,
            capabilities=self.capabilities,
            extra_body=self.extra_body,
            marks=self.marks,
            thought_end=self.thought_end,
            thought_opened=self.thought_opened,
        )

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
        """See `Model.sample`. The draws are written together; `on_delta` gets the text whole."""
        merged = {k: v for k, v in self.extra_body.items() if k != "chat_template_kwargs"}
        sampling = sampling.but(extra={**merged, **sampling.extra})
        check_sampling(self.name, sampling)
        if prefill and Capability.PREFILL not in self.capabilities:
            raise BadInput(f"{self.name}: a begun answer was switched off (`prefill: none`)")
        prompt = self.tokens.prompt(messages, prefill, template_kwargs(sampling.extra))
        draws = range(first_draw, first_draw + n)
        found = await all_of([self._draw(prompt, sampling, draw, prefill) for draw in draws])
        if on_delta is not None and n == 1 and found[0].text:
            on_delta(found[0].text)
        return found

    async def _draw(self, prompt: str, sampling: Sampling, draw: int, prefill: str) -> Completion:
        seed = None if sampling.seed is None else draw_seed(sampling.seed, draw)
        got = await self.limiter.run(
            lambda: self.engine.write(
                self.tokens, prompt, sampling, seed, adapter=bool(self.adapter)
            )
        )
        # A method that stops at the common mark reads the thought itself.
        if CLOSE in sampling.stop:
            return got
        if self.thought_end != CLOSE:
            got = split_off_thought(got, self.thought_end)
        opened = self.thought_opened
        if not prefill and (opens_thought(prompt) if opened is None else opened):
            got = with_opened_thought(got)
        return got

    async def most_logprobs(self) -> int:
        """How many log-probabilities a token a probe asks for: as of servers that give many.

        `Sampling.top_logprobs` may ask for more here, up to `MOST_TOP_LOGPROBS`.
        """
        return MOST_LOGPROBS[0] if Capability.LOGPROBS in self.capabilities else 0

    async def can_score_texts(self) -> bool:
        """Whether it says how likely a given text is. It does."""
        return Capability.TEXT_LOGPROBS in self.capabilities

    async def logprobs(
        self, messages: Sequence[Message], continuations: Sequence[str]
    ) -> list[TokenLogprobs]:
        """See `TextScorer.logprobs`. The prompt is read once for all continuations."""
        groups: dict[str, list[int]] = {}
        for place, text in enumerate(continuations):
            groups.setdefault(self.tokens.prompt_before(messages, text), []).append(place)
        found: dict[int, TokenLogprobs] = {}
        for prompt, places in groups.items():
            scored = await self.limiter.run(
                partial(
                    self.engine.score,
                    self.tokens,
                    prompt,
                    [continuations[i] for i in places],
                    adapter=bool(self.adapter),
                )
            )
            found.update(zip(places, scored, strict=True))
        return [found[place] for place in range(len(continuations))]

    def depth(self) -> int:
        """See `HiddenStates.depth`."""
        return self.engine.layers

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> tuple[int, ...]:
        """See `HiddenStates.prompt_ids`."""
        return tuple(self.tokens.encode_prompt(self.tokens.prompt(messages, prefill)))

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """See `HiddenStates.answer_ids`."""
        return tuple(self.tokens.encode_text(text))

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """See `HiddenStates.token_texts`."""
        return [self.tokens.content_text(i) for i in ids]

    async def states(
        self, prompt_ids: Sequence[int], answer_ids: Sequence[int], layers: Sequence[int]
    ) -> Any:
        """See `HiddenStates.states`. Answers to one prompt that are asked for together share it."""
        return await self.limiter.run(
            lambda: self.engine.states(prompt_ids, answer_ids, layers, adapter=bool(self.adapter))
        )

    async def last_states(
        self, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> Any:
        """See `HiddenStates.last_states`. The prompt is read once for all answers."""
        on = bool(self.adapter)
        return await self.limiter.run(
            lambda: last_states_of(self.engine, on, prompt_ids, answers, layers)
        )

    # ------------------------------------------------------------ beside a base

    def tokens_digest(self) -> str:
        """See `Comparable.tokens_digest`."""
        return self.tokens.digest

    def states_shape(self) -> tuple[int, int]:
        """See `Comparable.states_shape`."""
        return self.engine.layers, self.engine.net.hidden

    def has_adapter(self) -> bool:
        """See `Comparable.has_adapter`."""
        return bool(self.adapter)

    def touches_embeddings(self) -> bool:
        """See `Comparable.touches_embeddings`."""
        return bool(self.adapter) and adapts_embeddings(self.engine.net)

    async def compared(
        self,
        prompt_ids: Sequence[int],
        answers: Sequence[Sequence[int]],
        base: Comparable | None = None,
        at: StatesAt | None = None,
    ) -> list[Compared]:
        """See `Comparable.compared`. Each model reads the prompt once for all answers."""
        if base is not None and not isinstance(base, OpenWeights):
            raise BadInput(
                f"{self.name}: found {base.identity} as its base; expected open weights in this "
                "process",
                hint="Open it as weights:NAME (docs/open-weights.md).",
            )
        other = (base.engine, bool(base.adapter)) if base is not None else None
        return await self.limiter.run(
            lambda: compare(self.engine, bool(self.adapter), prompt_ids, answers, other, at)
        )
