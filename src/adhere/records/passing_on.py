"""What a journal passes on from the model that it records, and does not record.

Hidden states are arrays, much larger than the text that they are of, and a comparison with a base
is made of them. The model in this process computes both again for nothing but time. They cost no
call and no written token, so no meter counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adhere.chat import Capability, Message, Model
from adhere.errors import BadInput
from adhere.scorers import Comparable, Compared, HiddenStates, StatesAt


class PassesOn:
    """The part of a journal that is `HiddenStates` and `Comparable`, where its model is.

    All that asks for states raises BadInput when the model shows none.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def identity(self) -> str:
        """The recorded model's."""
        return self.model.identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The recorded model's, also those that it is found to have later."""
        return self.model.capabilities

    # ------------------------------------------------------------ hidden states

    def depth(self) -> int:
        """See `HiddenStates.depth`."""
        return self.shows().depth()

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> tuple[int, ...]:
        """See `HiddenStates.prompt_ids`."""
        return self.shows().prompt_ids(messages, prefill)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """See `HiddenStates.answer_ids`."""
        return self.shows().answer_ids(text)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """See `HiddenStates.token_texts`."""
        return self.shows().token_texts(ids)

    async def states(
        self, prompt_ids: Sequence[int], answer_ids: Sequence[int], layers: Sequence[int]
    ) -> Any:
        """See `HiddenStates.states`; computed each time."""
        return await self.shows().states(prompt_ids, answer_ids, layers)

    async def last_states(
        self, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> Any:
        """See `HiddenStates.last_states`; computed each time."""
        return await self.shows().last_states(prompt_ids, answers, layers)

    def shows(self) -> HiddenStates:
        """The recorded model, as one that shows its states. Raises BadInput."""
        if Capability.STATES not in self.capabilities or not isinstance(self.model, HiddenStates):
            raise BadInput(
                f"{self.identity}: this model does not show its hidden states",
                hint="Open weights in this process do: weights:NAME (docs/open-weights.md).",
            )
        return self.model

    # ------------------------------------------------------------ beside a base

    def tokens_digest(self) -> str:
        """See `Comparable.tokens_digest`."""
        return self.compares().tokens_digest()

    def states_shape(self) -> tuple[int, int]:
        """See `Comparable.states_shape`."""
        return self.compares().states_shape()

    def has_adapter(self) -> bool:
        """See `Comparable.has_adapter`; False for a model that is not one of ours to switch off."""
        return isinstance(self.model, Comparable) and self.model.has_adapter()

    def touches_embeddings(self) -> bool:
        """See `Comparable.touches_embeddings`."""
        return self.compares().touches_embeddings()

    async def compared(
        self,
        prompt_ids: Sequence[int],
        answers: Sequence[Sequence[int]],
        base: Comparable | None = None,
        at: StatesAt | None = None,
    ) -> list[Compared]:
        """See `Comparable.compared`; computed each time."""
        beneath = base.compares() if isinstance(base, PassesOn) else base
        return await self.compares().compared(prompt_ids, answers, beneath, at)

    def compares(self) -> Comparable:
        """The recorded model, as one that can be laid beside a base. Raises BadInput."""
        shown = self.shows()
        if not isinstance(shown, Comparable):
            raise BadInput(
                f"{self.identity}: this model cannot be compared with a base",
                hint="Open weights in this process can: weights:NAME (docs/open-weights.md).",
            )
        return shown
