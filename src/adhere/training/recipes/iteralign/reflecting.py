"""How a policy answers again under rules: the steps of one revision.

* `answer` (what the released script does, told by messages): the rules stand behind the question,
  the bad answer is not shown;
* `critique`: the policy criticizes its bad answer by the rules, then writes it anew;
* `one_by_one`: it revises by one rule after the other, in an order that seed and failure decide
  (as the paper is reported to do);
* `published`: the rules are put, as one text, at the end of the prompt's head, before its last
  segment; segments are parted by blank lines. A prompt without a blank line has no head: the rules
  then stand before it.

The row that is trained on has the plain prompt: what the rules brought is to come without them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adhere.chat import Completion, Message, Model, Sampling, user
from adhere.judging.questions import conversation
from adhere.methods.base import read_answer
from adhere.prompting import Prompts
from adhere.training.recipes.iteralign.failures import Failure
from adhere.training.recipes.iteralign.plan import Way

CRITIQUE_TOKENS = 200


def spliced(prompt: str, constitution: str) -> str:
    """The prompt with a constitution at the end of its head, as the released script puts it.

    Everything before the last blank line, a blank, the constitution, a blank line, the rest.
    """
    segments = prompt.split("\n\n")
    head = "\n\n".join(segments[:-1])
    return f"{head} {constitution}\n\n{segments[-1]}"


def in_order(rules: Sequence[str], failure: Failure, seed: int) -> list[str]:
    """The rules in an order of their own for each failure."""
    own = random.Random(f"{seed}\n{failure.id}")  # noqa: S311
    return own.sample(list(rules), len(rules))


@dataclass(frozen=True)
class Step:
    """What is asked next of the policy: which step it is, the messages, and how to sample."""

    name: str
    messages: list[Message]
    sampling: Sampling


def next_step(
    way: Way,
    failure: Failure,
    rules: Sequence[str],
    done: Sequence[str],
    sampling: Sampling,
    templates: Prompts,
) -> Step | None:
    """The next step of a revision whose steps so far came to `done`; None when it is whole.

    For `one_by_one` the rules are in the order in which they are gone through.
    """
    if way == "answer":
        return None if done else Step("answer", _again(failure, rules, templates), sampling)
    if way == "published":
        text = spliced(failure.case.messages[-1].text, " ".join(rules))
        messages = [*failure.case.messages[:-1], user(text)]
        return None if done else Step("answer", messages, sampling)
    if way == "critique":
        return _critique_step(failure, rules, done, sampling, templates)
    if len(done) >= len(rules):
        return None
    latest = done[-1] if done else failure.answer
    messages = _revise(failure, latest, rules[len(done) : len(done) + 1], "", templates)
    return Step(f"rule {len(done) + 1}", messages, sampling)


def _critique_step(
    failure: Failure,
    rules: Sequence[str],
    done: Sequence[str],
    sampling: Sampling,
    templates: Prompts,
) -> Step | None:
    if not done:
        text = templates.render(
            "iteralign/critique",
            question=conversation(failure.case),
            answer=failure.answer,
            rules=rules,
        )
        short = min(sampling.max_tokens or CRITIQUE_TOKENS, CRITIQUE_TOKENS)
        return Step("critique", [user(text)], sampling.but(max_tokens=short))
    if len(done) == 1:
        messages = _revise(failure, failure.answer, rules, done[0], templates)
        return Step("revision", messages, sampling)
    return None


def _again(failure: Failure, rules: Sequence[str], templates: Prompts) -> list[Message]:
    messages = list(failure.case.messages)
    text = templates.render("iteralign/answer_again", question=messages[-1].text, rules=list(rules))
    return [*messages[:-1], user(text)]


def _revise(
    failure: Failure, answer: str, rules: Sequence[str], critique: str, templates: Prompts
) -> list[Message]:
    text = templates.render(
        "iteralign/revise", question=conversation(failure.case), answer=answer, rules=list(rules),
        critique=critique,
    )  # fmt: skip
    return [user(text)]


async def take(step: Step, model: Model, draw: int) -> tuple[Completion, str, dict[str, Any]]:
    """Ask the policy for a step; the completion, its text, and what a row keeps of it.

    Raises CallError; Truncated for a thought that was cut.
    """
    [got] = await model.sample(step.messages, step.sampling, first_draw=draw)
    text, _ = read_answer(got)
    return got, text, {"name": step.name, "text": text, "finish_reason": got.finish_reason}
