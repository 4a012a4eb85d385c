"""One try of the teacher at one row: it is asked with the spec in view, and read without mercy.

Three ways to get a thought that is closed (`form`): models that think do it between think tags;
others are asked for two parts, whose first tag is given to them where the server takes a begun
answer; and `forced` begins the thought, closes it when `think_tokens` are spent (at the end of its
last whole sentence), and asks for the answer in a second call.

Servers do not tell whether the closing tag ended a forced thought or the model its turn. Only one
that ends with a sentence, or holds the tag, counts as closed by the model; the text stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from adhere.chat import Capability, Completion, Message, Model, Outcome, user
from adhere.errors import AdhereError, BadInput
from adhere.experiments.answering import kept
from adhere.methods.base import DRAWS_PER_REPEAT
from adhere.models.thinking import CLOSE, OPEN
from adhere.training.recipes.deliberative.composing import Composition
from adhere.training.recipes.deliberative.inputs import DistillInputs
from adhere.training.recipes.deliberative.plan import Form
from adhere.training.recipes.deliberative.prompts import Prompt
from adhere.training.recipes.deliberative.reading import (
    ANSWER,
    REASONING,
    Taught,
    Unread,
    read_parts,
    read_tags,
    to_last_sentence,
    why_unusable,
)

Facts = dict[str, Any]
Asked = Literal["think", "parts", "forced"]


def form_of(form: Form, model: Model) -> Asked:
    """The form in which a teacher is asked. Raises BadInput for a thought it cannot be given."""
    if form == "auto":
        return "think" if Capability.THINKS in model.capabilities else "parts"
    if form == "forced" and Capability.PREFILL not in model.capabilities:
        raise BadInput(
            f"{model.identity}: found no way to begin its answer, which form forced needs",
            hint="Use --form parts (or think, for a model that thinks by itself); docs/models.md "
            "says which servers take a begun answer.",
        )
    return form


def teacher_messages(
    inputs: DistillInputs, prompt: Prompt, composed: Composition, form: Literal["think", "parts"]
) -> list[Message]:
    """The conversation as the teacher gets it: its last user message within the task."""
    messages = list(prompt.case.messages)
    last = max(i for i, message in enumerate(messages) if message.role == "user")
    spec = inputs.spec
    messages[last] = user(
        inputs.templates.render(
            "deliberative/teach",
            question=messages[last].text,
            name=spec.name,
            description=spec.description,
            fallback=spec.fallback or "",
            full=composed.full,
            short=composed.short,
            categories=list(composed.known),
            form=form,
            think_words=inputs.plan.think_words,
            reasoning=REASONING,
            answer=ANSWER,
        )
    )
    return messages


async def teach(
    inputs: DistillInputs, prompt: Prompt, model: Model, *, repeat: int, number: int
) -> tuple[Facts, AdhereError | None]:
    """Try `number` (from 0) at a row. A later try is a later draw of the same request.

    Facts: `draw`, `form`, `reply` (as it came), `finish_reason`, `tokens` (that the teacher wrote)
    and `thought`, `answer`, `close`; a try of no use has `refused` (a key of `REASONS`) and
    `detail` instead. The error is that of a failed call, with which the row fails. Raises DiskFull,
    Stopped.
    """
    draw = repeat * DRAWS_PER_REPEAT + number
    form = form_of(inputs.plan.form, model)
    facts: Facts = {"draw": draw, "form": form, "reply": "", "finish_reason": "", "tokens": 0}
    composed = inputs.composed(prompt)
    work = _forced if form == "forced" else _at_once
    made, outcome, reason, error = await kept(work(inputs, prompt, composed, model, draw, form))
    if made is None:
        if outcome in (Outcome.FILTERED, Outcome.TRUNCATED):
            refused = "filtered" if outcome is Outcome.FILTERED else "not_closed"
            return {**facts, "refused": refused, "detail": reason}, None
        return facts, error
    read, told = made
    facts |= told
    if isinstance(read, Taught):
        asked = "\n".join(m.text for m in prompt.case.messages)
        found = why_unusable(read, asked, inputs.task)
        taught = {"thought": read.thought, "answer": read.answer, "close": read.close}
        if found is None:
            return {**facts, **taught}, None
        read = found
    return {**facts, "refused": read.reason, "detail": read.detail}, None


Made = tuple[Taught | Unread, Mapping[str, Any]]


async def _at_once(
    inputs: DistillInputs,
    prompt: Prompt,
    composed: Composition,
    model: Model,
    draw: int,
    form: Asked,
) -> Made:
    parts = form == "parts"
    begun = f"<{REASONING}>\n" if parts and Capability.PREFILL in model.capabilities else ""
    asked = teacher_messages(inputs, prompt, composed, "parts" if parts else "think")
    sampling = inputs.plan.sampling.sampling()
    if parts:  # small models go on behind the last tag until the limit cuts what was whole
        sampling = sampling.but(stop=(*sampling.stop, f"</{ANSWER}>"))
    [got] = await model.sample(asked, sampling, first_draw=draw, prefill=begun)
    read = read_parts(got, begun) if parts else read_tags(got)
    return read, {**_told(got), "reply": begun + _whole(got)}


async def _forced(
    inputs: DistillInputs,
    prompt: Prompt,
    composed: Composition,
    model: Model,
    draw: int,
    form: Asked,
) -> Made:
    thinks = Capability.THINKS in model.capabilities
    opening, closing = (OPEN, CLOSE) if thinks else (f"<{REASONING}>", f"</{REASONING}>")
    asked = teacher_messages(inputs, prompt, composed, "think" if thinks else "parts")
    own, most = inputs.plan.sampling.sampling(), inputs.plan.think_tokens
    first = own.but(stop=(*own.stop, closing), max_tokens=most)
    [got] = await model.sample(asked, first, first_draw=draw, prefill=f"{opening}\n")
    # A server that ignores the stop must not smuggle an answer into the thought.
    said, closed, _ = (got.reasoning or got.text).partition(closing)
    cut = got.cut and not closed
    thought = to_last_sentence(said.strip()) if cut else said.strip()
    by_model = bool(closed) or (not cut and thought == to_last_sentence(thought))
    if not thought:
        reason = "not_closed" if cut else "empty_thought"
        return Unread(reason, "no whole sentence before the token limit" if cut else ""), {
            **_told(got), "reply": _whole(got)
        }  # fmt: skip
    begun = f"{opening}\n{thought}\n{closing}\n\n" + ("" if thinks else f"<{ANSWER}>\n")
    stop = own.stop if thinks else (*own.stop, f"</{ANSWER}>")
    left = inputs.plan.sampling.max_tokens - most
    [end] = await model.sample(
        asked, own.but(stop=stop, max_tokens=left), first_draw=draw, prefill=begun
    )
    told = {
        "reply": begun + _whole(end),
        "finish_reason": end.finish_reason,
        "tokens": got.usage.completion_tokens + end.usage.completion_tokens,
    }
    answer = end.text.split(f"</{ANSWER}>")[0].strip()
    if not answer:
        return Unread("no_answer"), told
    if end.cut:
        return Unread("cut", "by the token limit"), told
    return Taught(thought, answer, "model" if by_model else "method"), told


def _told(got: Completion) -> Facts:
    return {"finish_reason": got.finish_reason, "tokens": got.usage.completion_tokens}


def _whole(got: Completion) -> str:
    return f"{OPEN}\n{got.reasoning}\n{CLOSE}\n\n{got.text}" if got.reasoning else got.text
