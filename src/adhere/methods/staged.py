"""One thought in several stages, grown by prefill: the engine of `align3` and `more_think`.

A stage appends words of the method's to the thought so far and lets the model go on thinking until
it closes the thought (`stop="</think>"`); what it wrote stays, without the white space behind it.
Two ways lead out of the thought:

* the model closes it (published): the last stage runs without a stop and holds the rest of the
  thought, the closing tag and the answer;
* the method closes it (`forced`): every stage has a limit of tokens, then the method writes the
  closing tag itself and asks for the answer in one more call.

As published, no stage looks at how the one before it ended: one that the token limit cut simply
goes on (`cut_stages` counts them), and each has the request's full limit. A token budget of the
request's own is shared by the calls still to come, in equal parts; what one leaves the others may
use. The paper counts the prompt of the first call only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from adhere.chat import Answer, Capability, Completion, Message, Sampling
from adhere.errors import Truncated
from adhere.methods.base import Calls, read_answer
from adhere.models.thinking import CLOSE, plain_thought, split_thought

Close = Literal["auto", "model", "forced"]
FORCED = "forced close"  # the variant that tables show


def is_forced(close: Close, capabilities: frozenset[Capability]) -> bool:
    """Whether the method closes the thought: chosen, or by `auto` for a model that does not."""
    return close == "forced" or (close == "auto" and Capability.THINKS not in capabilities)


class Stage(NamedTuple):
    """A stage: its name, and what is appended to the thought before the model goes on."""

    name: str
    words: str


@dataclass
class Thought:
    """A thought under way. `text` is the prefill of the next call; `facts` go into the answer."""

    calls: Calls
    asked: Sequence[Message]
    facts: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    stages: int = 0
    cut_stages: int = 0

    async def go_on(self, stage: Stage, *, most: int | None = None, to_come: int = 1) -> None:
        """Run one stage that stops where the model closes the thought.

        `most`: a limit of tokens for it; `to_come`: calls that share what is left of a budget.
        """
        own = self.calls.request.sampling
        sampling = own.but(stop=(*own.stop, CLOSE), max_tokens=most or own.max_tokens)
        got = await self._call(stage, shared(self.calls, sampling, to_come))
        # A server with a reasoning parser hands the thought over apart from the text. One that
        # ignores the stop must not smuggle an answer into the thought.
        self.text += (got.reasoning or got.text).split(CLOSE)[0].rstrip()
        self.cut_stages += got.cut

    async def closed_by_model(self, stage: Stage) -> Answer:
        """The last stage of the published form: thought, closing tag, answer."""
        got = await self._call(stage, self.calls.request.sampling)
        text, thought, closed = _read_end(self.text, got)
        return self._answer(text, thought, got, close="model", closed=closed)

    async def closed_by_method(self) -> Answer:
        """Close the thought and ask for the answer."""
        thought = plain_thought(self.text)
        self.text += f"\n{CLOSE}\n\n"
        got = await self._sample("answer", self.calls.request.sampling)
        text, _ = read_answer(got)
        return self._answer(text.lstrip("\n"), thought, got, close="forced", closed=True)

    async def _call(self, stage: Stage, sampling: Sampling) -> Completion:
        self.text += stage.words
        got = await self._sample(stage.name, sampling)
        self.stages += 1
        return got

    async def _sample(self, step: str, sampling: Sampling) -> Completion:
        first = not self.calls.steps
        return await self.calls.sample(
            self.asked, sampling, step=step, prefill=self.text, paper_prompt=first
        )

    def _answer(
        self, text: str, thought: str, got: Completion, *, close: str, closed: bool
    ) -> Answer:
        how = {"close": close, "closed": closed, "cut_stages": self.cut_stages}
        return self.calls.answer(
            text, thought=thought, finish_reason=got.finish_reason, facts={**self.facts, **how}
        )


async def run_stages(
    calls: Calls,
    asked: Sequence[Message],
    stages: Sequence[Stage],
    facts: Mapping[str, Any],
    *,
    stage_tokens: int | None,
) -> Answer:
    """Run the stages and answer. `stage_tokens`: a stage's limit, and the method closes.

    None: the published form, in which the model closes the thought in the last stage.
    """
    thought = Thought(calls, asked, dict(facts))
    inner = stages[:-1] if stage_tokens is None else stages
    to_come = len(stages) + (stage_tokens is not None)
    for number, stage in enumerate(inner):
        await thought.go_on(stage, most=stage_tokens, to_come=to_come - number)
    if stage_tokens is None:
        return await thought.closed_by_model(stages[-1])
    return await thought.closed_by_method()


def shared(calls: Calls, sampling: Sampling, to_come: int) -> Sampling:
    """The sampling with at most an equal part of the budget left, for `to_come` calls in turn."""
    budget = calls.request.budget.tokens
    if budget is None:
        return sampling
    left = budget - calls.completion_tokens
    part = max(1, left // to_come)
    return sampling.but(max_tokens=min(sampling.max_tokens or part, part))


def _read_end(before: str, got: Completion) -> tuple[str, str, bool]:
    """Answer, thought, and whether the model closed the thought, of the published last stage.

    A continuation that never closes the thought is, by the published rule, all answer; the row
    says so. One that the token limit cut inside the thought is no answer at all.
    """
    split = split_thought(got.text)
    if split.closed:
        return split.answer, plain_thought(before + split.thought), True
    if got.reasoning and got.text:
        return got.text, plain_thought(before + got.reasoning), True
    if got.cut or got.reasoning:
        raise Truncated("the token limit ended the thought before an answer began")
    return got.text, plain_thought(before), False
