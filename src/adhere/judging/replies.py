"""Getting a readable reply from a judge: schemas where a server holds to them, and re-asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adhere.chat import Message, Model, Sampling, Usage, assistant, user
from adhere.errors import BadInput, CallError, Overloaded, RateLimited, Timeout
from adhere.judging.parsing import Unreadable
from adhere.models.thinking import OPEN, split_thought
from adhere.prompting import Prompts

T = TypeVar("T")


@dataclass
class Spent:
    """What the calls about one response cost so far."""

    usage: Usage = field(default_factory=Usage)
    reasks: int = 0


async def until_readable(
    opening: Sequence[Message],
    sampling: Sampling,
    read: Callable[[str], T],
    model: Model,
    prompts: Prompts,
    spent: Spent,
    *,
    reasks: int,
) -> T:
    """What `read` makes of the reply; an unreadable one is asked for again with what was wrong.

    Only the last unreadable reply is shown back: a growing conversation would confuse. Raises
    Unreadable after `reasks` further tries, or the CallError of a call.
    """
    messages = list(opening)
    for left in range(reasks, -1, -1):
        [got] = await model.sample(messages, sampling)
        spent.usage += got.usage
        try:
            if got.cut:
                raise Unreadable("it was cut off by the token limit (see judge.reply_tokens)")
            split = split_thought(got.text)
            text = split.answer
            if not split.closed and text.lstrip().startswith(OPEN):
                raise Unreadable("it is a thought that never ended")
            if not text.strip():
                raise Unreadable("it is empty")
            return read(text)
        except Unreadable as problem:
            if not left:
                raise
            spent.reasks += 1
            again = prompts.render("judge/again", problem=str(problem), cut=got.cut)
            messages = [*opening, assistant(got.text[:4000] or "(empty)"), user(again)]
    raise AssertionError("the last try returns or raises")


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
