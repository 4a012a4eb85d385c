"""What scores texts: rewards, risks, log-probabilities of given texts, hidden states, comparisons.

The protocols of the models that give numbers, beside `Model`, which gives text. A number that is
not there is None with a reason, or an error; never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from adhere.chat import Message, Model, Usage
from adhere.errors import BadInput

FREE = Usage()


@dataclass(frozen=True)
class Reward:
    """How good an answer is: higher is better, on the reward model's own scale, never NaN.

    `value` is None when this answer could not be scored, and `reason` says why: it is then out of
    the race, and never taken for a bad or a good one.
    """

    value: float | None
    usage: Usage = FREE
    reason: str = ""


@runtime_checkable
class RewardModel(Model, Protocol):
    """A model that scores answers.

    Its `capabilities` hold REWARD; one that cannot also write text raises BadInput in `sample`.
    """

    @property
    def sees(self) -> str:
        """Which conversation it is shown: `asked` (with the spec in it) or `question` (without)."""

    async def rewards(self, messages: Sequence[Message], answers: Sequence[str]) -> list[Reward]:
        """One reward an answer, in order. Raises CallError; a NaN from a server is Garbage."""


@dataclass(frozen=True)
class Risk:
    """How risky an answer is, from 0 to 1, and by which rule. Never NaN.

    `value` is None when the answer could not be scored, and `reason` says why: it then has no
    risk that could be compared with a cap, and is no candidate.
    """

    value: float | None
    by_rule: Mapping[str, float] = field(default_factory=dict)
    usage: Usage = FREE
    reason: str = ""


@runtime_checkable
class RiskModel(Model, Protocol):
    """A judge, guard or classifier that says how risky answers are.

    Its `capabilities` hold RISK; one that cannot also write text raises BadInput in `sample`.
    """

    async def risks(self, messages: Sequence[Message], answers: Sequence[str]) -> list[Risk]:
        """One risk an answer, in order; `messages` are the question without the spec.

        Raises CallError.
        """


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural log-probabilities of the tokens of one text, given what stood before it.

    `tokens` and `logprobs` have equal length; `total` is their sum, `log p(text | before)`. An
    empty text has none and a total of 0.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    usage: Usage = FREE

    @property
    def total(self) -> float:
        """The log-probability of the whole text, in nats."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """The log-probability per token, in nats; 0 for an empty text."""
        return self.total / len(self.logprobs) if self.logprobs else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the journal."""
        return {
            "tokens": list(self.tokens),
            "logprobs": list(self.logprobs),
            "usage": self.usage.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TokenLogprobs:
        """Inverse of `to_dict`."""
        return cls(tuple(data["tokens"]), tuple(data["logprobs"]), Usage.from_dict(data["usage"]))


@runtime_checkable
class TextScorer(Model, Protocol):
    """A model that says how likely given texts are: option scoring, perplexity, log-ratios.

    Its `capabilities` hold TEXT_LOGPROBS.
    """

    async def logprobs(
        self, messages: Sequence[Message], continuations: Sequence[str]
    ) -> list[TokenLogprobs]:
        """One entry a continuation, in order: the text that an answer to `messages` begins with.

        The end of the answer is not scored. Raises CallError or BadInput.
        """


@runtime_checkable
class HiddenStates(Model, Protocol):
    """A model that shows what its layers make of the tokens of an answer.

    Its `capabilities` hold STATES.
    """

    def depth(self) -> int:
        """How many layers it has; see `models.open_weights.states.layer_at` for shares of them."""

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> tuple[int, ...]:
        """The tokens up to where the answer begins, or behind the begun answer."""

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of an answer given as text; `Completion.token_ids` has a sampled one's."""

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself, with its blank; empty for the special tokens."""

    async def states(
        self, prompt_ids: Sequence[int], answer_ids: Sequence[int], layers: Sequence[int]
    ) -> Any:
        """Float32 array [layers asked for, answer tokens, hidden]: states in the order asked for.

        A layer counts as in transformers' `hidden_states`: 0 is the embeddings, k is behind layer
        k, and the last one is behind the final norm too. The state of a token is the one at its
        own place, so it has read that token: the one before it is what predicted it. No layer
        behind the deepest one runs. Raises CallError or BadInput.
        """

    async def last_states(
        self, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> Any:
        """Float32 array [answers, layers asked for, hidden]: states at each answer's last token.

        As `states` has them, for several answers to one prompt at once, and no other token's are
        kept. Raises CallError or BadInput (an answer without tokens has no last one).
        """


@dataclass(frozen=True)
class StatesAt:
    """States to take along while answers are read: of these layers, at one token of each answer.

    `lengths`: one an answer, how many of its tokens have been read there; at least 1.
    """

    layers: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """How a model finds an answer, and how far from a base it is there: means over its tokens.

    With p the model's distribution of a token, q the base's, V tokens in the vocabulary, in nats:
    `nll` is -log p(token), so that `perplexity` is its exponential; `self_certainty` is
    -1/V sum log(V p), which is KL(uniform || p) (Kang et al., arXiv 2502.18581); `gini` is
    1 - sum p^2; `kl` is KL(p || q), `reverse_kl` KL(q || p), and `log_ratio` log p(token) -
    log q(token). The last three are None where no base was given. The prompt's tokens do not
    count; the answer's first one, which the prompt predicts, does.

    `states` and `base_states`: what was to be taken along (`StatesAt`), float32 arrays [layers,
    hidden]; else None.
    """

    tokens: int
    nll: float
    self_certainty: float
    gini: float
    kl: float | None = None
    reverse_kl: float | None = None
    log_ratio: float | None = None
    states: Any = field(default=None, compare=False, repr=False)
    base_states: Any = field(default=None, compare=False, repr=False)

    @property
    def perplexity(self) -> float:
        """The exponential of `nll`; infinite beyond what a number holds."""
        return math.exp(self.nll) if self.nll < _MOST_NATS else math.inf


_MOST_NATS = 700.0


@runtime_checkable
class Comparable(HiddenStates, Protocol):
    """A model that can be laid beside another one, token by token and layer by layer.

    Its `capabilities` hold STATES. The base is another such model, or what is beneath its adapter.
    """

    def tokens_digest(self) -> str:
        """SHA-256 of what turns text into tokens: equal where equal texts have equal tokens."""

    def states_shape(self) -> tuple[int, int]:
        """How many layers it has, and how many numbers a state has."""

    def has_adapter(self) -> bool:
        """Whether it is an adapter over a base."""

    def touches_embeddings(self) -> bool:
        """Whether its adapter changes what the first layer reads (layer 0)."""

    def without_adapter(self) -> Comparable:
        """The base beneath its adapter, in the same memory; without an adapter, the same model."""

    async def compared(
        self,
        prompt_ids: Sequence[int],
        answers: Sequence[Sequence[int]],
        base: Comparable | None = None,
        at: StatesAt | None = None,
    ) -> list[Compared]:
        """One entry an answer, in order: this model's distributions beside those of a base.

        With `at` also the states of both, out of the same passes. Raises CallError, or BadInput: a
        prompt or an answer without tokens, or a base that has logits of other tokens.
        `check_same_tokens` tells that tokens mean the same to both.
        """


def check_same_tokens(student: Comparable, base: Comparable) -> None:
    """Raises BadInput unless equal texts have equal tokens in both models."""
    if student.tokens_digest() != base.tokens_digest():
        raise BadInput(
            f"found two tokenizers: {student.identity} and {base.identity} read texts as other "
            "tokens; expected a base with the tokenizer of the model that is compared with it",
            hint="Name as base the model that training began with. Where the tokenizer got new "
            "tokens in training, save the base again with that tokenizer.",
        )


def check_same_states(student: Comparable, base: Comparable) -> None:
    """Raises BadInput unless both models have as many layers, of states of one length."""
    one, other = student.states_shape(), base.states_shape()
    if one != other:
        raise BadInput(
            f"found models of other shapes: {student.identity} has {one[0]} layers of {one[1]} "
            f"numbers and {base.identity} {other[0]} of {other[1]}; expected equal ones",
            hint="States are alike or not only where one model was made from the other.",
        )
