"""Getting a readable reply from a judge: schemas where a server holds to them, and re-asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adhere.chat import Completion, Message, Model, Sampling, Usage, assistant, user
from adhere.errors import BadInput, CallError, Overloaded, RateLimited, Timeout
from adhere.judging.parsing import Compat, Unreadable
from adhere.models.thinking import OPEN, Split, split_thought
from adhere.prompting import Prompts

T = TypeVar("T")


@dataclass
class Spent:
    """What the calls about one response cost so far."""

    usage: Usage = field(default_factory=Usage)
    reasks: int = 0


_SHOWN_BACK = 4000  # characters of an unreadable reply
_CUT = "it was cut off by the token limit (see judge.reply_tokens)"


async def until_readable(
    opening: Sequence[Message],
    sampling: Sampling,
    read: Callable[[str], T],
    model: Model,
    prompts: Prompts,
    spent: Spent,
    *,
    reasks: int,
    compat: Compat = "strict",
    again: str = "judge/again",
) -> T:
    """What `read` makes of the reply; an unreadable one is asked for again.

    Strict: with what was wrong. Only the last unreadable reply is shown back: a growing
    conversation would confuse. `again` is the template of that. Official: the same prompt again,
    each time as a new draw. Raises Unreadable after `reasks` further tries, or the CallError of a
    call.
    """
    messages, before, draw = list(opening), None, 0
    for attempt in range(reasks + 1):
        # The very same conversation again is another draw: a journal would give the last one back.
        draw = draw + 1 if messages == before else 0
        before = messages
        [got] = await model.sample(messages, sampling, first_draw=draw)
        spent.usage += got.usage
        try:
            return _read_reply(got, read, compat)
        except Unreadable as problem:
            if attempt == reasks:
                raise
            spent.reasks += 1
            if compat == "strict":
                said = prompts.render(again, problem=str(problem), cut=got.cut)
                messages = [*opening, assistant(_behind_thought(got)), user(said)]
    raise AssertionError("the last try returns or raises")


def _behind_thought(got: Completion) -> str:
    """The reply as it is shown back: without its thought, which would only lead astray again."""
    split = split_thought(got.text)
    if _is_only_thought(split):
        return "(empty)"
    return split.answer.strip()[:_SHOWN_BACK] or "(empty)"


def _read_reply(got: Completion, read: Callable[[str], T], compat: Compat) -> T:
    """What `read` makes of the reply behind its thought. Raises Unreadable.

    The published code looks neither at why a reply ended nor for a thought that never did.
    """
    if got.cut and compat == "strict":
        raise Unreadable(_CUT)
    split = split_thought(got.text)
    if compat == "strict" and _is_only_thought(split):
        raise Unreadable("it is a thought that never ended")
    try:
        if not split.answer.strip():
            raise Unreadable("it is empty")
        return read(split.answer)
    except Unreadable:
        if got.cut:  # which is then why
            raise Unreadable(_CUT) from None
        raise


def _is_only_thought(split: Split) -> bool:
    return not split.closed and split.answer.lstrip().startswith(OPEN)


def response_format(form: Mapping[str, Any]) -> dict[str, Any]:
    """The request field by which OpenAI-compatible servers hold a reply to a JSON schema."""
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": dict(form)},
        }
    }


async def offers_schema(model: Model) -> bool:
    """Whether the server holds a reply to a schema: it must answer what no model would say.

    Raises CallError when the server cannot be asked (a dead key, an unknown model, overload).
    """
    word = "violet-47"
    form = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": [word]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    question = [user("What is two and two?")]
    try:
        [got] = await model.sample(
            question, Sampling(temperature=0, max_tokens=64, extra=response_format(form))
        )
    except CallError as error:
        # A server in trouble has not said no: taken for a no, it would change who judges.
        if error.fatal or isinstance(error, (RateLimited, Overloaded, Timeout)):
            raise
        return False
    except BadInput:
        return False
    return word in got.text and got.text.strip().startswith("{")
