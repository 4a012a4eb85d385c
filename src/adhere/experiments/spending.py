"""When a run stops by itself: tokens, money, wall time.

Before a call begins its cost is reserved: the longest answer it may give, and the prompt as the
calls so far suggest. A call that would not fit waits until others have come back with less than
they had reserved; when nothing is in flight any more it raises Stopped. So a limit on tokens or
money is kept to within the error of guessing one prompt's length, whatever the concurrency.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adhere.chat import Message, Sampling, Usage
from adhere.errors import BadInput, Stopped
from adhere.experiments.plan import StopPlan
from adhere.experiments.pricing import Prices

_CHARS_PER_TOKEN = 3.0  # of a prompt, until calls have told better
_GO_ON = "Run the same command again with a higher limit; it goes on from here."


@dataclass
class SpendLimit:
    """The `Meter` of a run: lets calls begin while they fit. One for all models of a run."""

    plan: StopPlan
    prices: Prices | None
    spent: dict[str, Usage]  # by model identity; grows with each call
    labels: dict[str, str] = field(default_factory=dict)  # model identity to its label
    _reserved: dict[int, Usage] = field(default_factory=dict)
    _who: dict[int, str] = field(default_factory=dict)
    _next: int = 0
    _chars: int = 0
    _prompt_tokens: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _started: float = field(default_factory=time.monotonic)

    @property
    def active(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.plan.tokens, self.plan.cost))

    def check_prices(self, label: str) -> None:
        """Refuse a limit on money for a model without a price. Raises BadInput."""
        if self.plan.cost is not None and self._money(label, Usage()) is None:
            raise BadInput(
                f"stop.cost: the price file names no price for {label!r}",
                hint="Add it under `models:` (0 is a price too); see docs/prices.md.",
            )

    def check_time(self) -> None:
        """Raise Stopped when the wall time is over."""
        limit = self.plan.seconds
        if limit is not None and time.monotonic() - self._started >= limit:
            raise deadline_over(limit)

    @asynccontextmanager
    async def call(
        self, identity: str, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncIterator[Callable[[Usage], None]]:
        """See `Meter.call`."""
        self.check_time()
        chars = sum(len(message.text) for message in messages)
        if not self.active:
            yield lambda usage: None
            return
        ticket = await self._admit(identity, chars, sampling)
        want = self._reserved[ticket]
        try:
            yield lambda usage: self._count(identity, chars, usage, want)
        finally:
            self._reserved.pop(ticket, None)
            self._who.pop(ticket, None)
            async with self._changed:
                self._changed.notify_all()

    async def _admit(self, identity: str, chars: int, sampling: Sampling) -> int:
        async with self._changed:
            while True:
                self.check_time()
                per_token = self._chars / self._prompt_tokens if self._prompt_tokens else 0.0
                prompt = int(chars / (per_token or _CHARS_PER_TOKEN)) + 8
                want = Usage(prompt_tokens=prompt, completion_tokens=sampling.max_tokens or 0)
                over = self._over(identity, want)
                # The first call goes alone: it tells how many tokens a character is here.
                alone = bool(self._reserved) and not self._prompt_tokens
                if not over and not alone:
                    ticket = self._next
                    self._next += 1
                    self._reserved[ticket] = want
                    self._who[ticket] = identity
                    return ticket
                if not self._reserved:
                    raise Stopped(f"stopped: {over}", hint=_GO_ON)
                await self._changed.wait()

    def _over(self, identity: str, want: Usage) -> str:
        """Why a call does not fit, or nothing."""
        held = [*((self._who[t], u) for t, u in self._reserved.items()), (identity, want)]
        if self.plan.tokens is not None:
            spent = sum(u.prompt_tokens + u.completion_tokens for u in self.spent.values())
            held_tokens = sum(u.prompt_tokens + u.completion_tokens for _, u in held)
            if spent + held_tokens > self.plan.tokens:
                return (
                    f"{spent:,} of at most {self.plan.tokens:,} tokens are spent, and one more "
                    "call might not fit"
                )
        if self.plan.cost is not None:
            money = self.money()
            more = sum(self._money(self._label(who), usage) or 0.0 for who, usage in held)
            if money + more > self.plan.cost:
                return (
                    f"{money:.4f} of at most {self.plan.cost:g} {self.currency} is spent, and one "
                    "more call might not fit"
                )
        return ""

    def money(self) -> float:
        """What was spent so far, over the models that have a price."""
        return sum(self._money(self._label(who), used) or 0.0 for who, used in self.spent.items())

    @property
    def currency(self) -> str:
        """Of the price file."""
        return self.prices.currency if self.prices else ""

    def _money(self, label: str, usage: Usage) -> float | None:
        return self.prices.cost(label, usage) if self.prices else None

    def _label(self, identity: str) -> str:
        return self.labels.get(identity, identity)

    def _count(self, identity: str, chars: int, usage: Usage, want: Usage) -> None:
        if not usage.prompt_tokens and not usage.completion_tokens:
            usage = want  # a server that counts nothing is taken at what was reserved
        self.spent[identity] = self.spent.get(identity, Usage()) + usage
        if usage.prompt_tokens:
            self._chars += chars
            self._prompt_tokens += usage.prompt_tokens


def deadline_over(seconds: float) -> Stopped:
    """What stops a run when its time is over."""
    return Stopped(f"stopped: the deadline of {seconds:g} s is over", hint=_GO_ON)


def money_spent(
    spent: Mapping[str, Usage], labels: Mapping[str, str], prices: Prices | None
) -> float | None:
    """Money for what was spent by model identity; None when any of them has no price."""
    if prices is None:
        return None
    costs = [prices.cost(labels.get(who, who), used) for who, used in spent.items()]
    return sum(c for c in costs if c is not None) if None not in costs else None
