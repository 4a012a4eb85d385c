"""Reading what a teacher wrote: a closed thought and an answer behind it, or the reason why not.

Every refusal has a word of `REASONS`, and nothing is guessed: a thought that was not closed might
hold the answer, and an answer with a mark of the layout in it would be trained on with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adhere.chat import Completion
from adhere.models.thinking import CLOSE, OPEN, plain_thought, split_thought
from adhere.training.recipes.deliberative.leaks import find_echo, find_leak

REASONING, ANSWER = "reasoning", "answer"  # the tags of the form `parts`

# A word for files and tables, and what it means.
REASONS: Mapping[str, str] = {
    "not_closed": "the thought was never closed",
    "no_thought": "there is an answer and no thought",
    "empty_thought": "the thought is empty",
    "no_answer": "nothing stands behind the thought",
    "cut": "the token limit ended the answer",
    "filtered": "a content filter withheld it",
    "markup": "a mark of the layout stands where text should",
    "leaks": "it speaks of rules, a prompt or instructions as given to it",
    "echoes": "it repeats the words of the teacher's task",
    "repeats": "the answer repeats the thought",
    "violates": "the answer violates a rule, by the spec's checks",
    "unsafe": "the guard calls it unsafe",
    "low_rating": "the least of its ratings is below the threshold",
    "unscored": "the filter could not decide",
    "duplicate": "the same thought and answer stand there already",
}

# What may stand in no text that is trained on: think tags, the layout's, and special tokens.
_MARKUP = re.compile(
    rf"</?\s*(?:think|thinking|thought|reflection|{REASONING}|{ANSWER}|message)(?:-\w+)?\s*>"
    # ASCII bars or full-width ones, on both sides or on one
    r"|<[|｜][^|｜<>\n]{1,40}[|｜]>|<[|｜]/?\w{1,40}>|</?\w{1,40}[|｜]>"
    r"|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|<</?SYS>>|\[/?(?:INST|THINK)\]",
    re.IGNORECASE,
)
# What a model puts behind an answer of its own: <end>, words in brackets, a tag that was begun.
# Only at the end of a line or a text, for code and mathematics hold such things elsewhere.
_LEFT_OVER = re.compile(
    r"</?(?:start|begin|end|stop|output|response|reply|user|assistant|system)\s*/?>[ \t]*$"
    r"|<[a-z][\w',.;-]*(?: [\w',.;-]+){2,}>\s*\Z|<\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
_PARTS = re.compile(
    rf"\s*<{REASONING}>(?P<thought>.*?)</{REASONING}>(?:\s*<{ANSWER}>)?(?P<answer>.*)\Z",
    re.DOTALL | re.IGNORECASE,
)
_END = re.compile(rf"</{ANSWER}>\s*\Z", re.IGNORECASE)
_SENTENCE = re.compile(r".*[.!?:;…][\"')\]*_]*(?=\s|\Z)", re.DOTALL)
_SHORTEST = 40  # characters; an answer as short as this may well stand in its thought
_MOST_SHARED = 0.8  # share of a longer answer's words that may stand in the thought as a run


@dataclass(frozen=True)
class Taught:
    """A thought and an answer. `close`: who closed the thought, `model` or `method`."""

    thought: str
    answer: str
    close: str = "model"


@dataclass(frozen=True)
class Unread:
    """Why there is no row. `reason` is a key of `REASONS`."""

    reason: str
    detail: str = ""


def read_tags(got: Completion) -> Taught | Unread:
    """Thought and answer of a model that marks its thought by tags, or whose server splits it.

    A server that splits shows a thought that the limit cut as a thought and no text. Where the
    model itself ended its turn there, nothing tells that from an answer left out: `no_answer`.
    """
    if got.reasoning:
        if _only_thought(got):
            return Unread("not_closed", _why_open(got))
        return _whole(got.reasoning, got.text, got)
    split = split_thought(got.text)
    if not split.closed:
        begun = got.text.lstrip().startswith(OPEN)
        if not begun and not got.cut:
            return Unread("no_thought" if got.text.strip() else "no_answer")
        return Unread("not_closed", _why_open(got))
    if got.text.count(CLOSE) > 1:
        return Unread("markup", f"{got.text.count(CLOSE)} closing tags of a thought")
    return _whole(plain_thought(split.thought), split.answer, got)


def read_parts(got: Completion, begun: str = "") -> Taught | Unread:
    """Thought and answer of the two parts that were asked for. `begun`: the text's given beginning.

    The end of the answer's part may be missing where the model stopped by itself.
    """
    text = begun + split_thought(got.text).answer
    found = _PARTS.match(text)
    if found is None:
        if re.search(rf"<{REASONING}>", text, re.IGNORECASE):
            return Unread("not_closed", _why_open(got))
        if _only_thought(got):
            return Unread("not_closed", "the token limit ended the model's own thought")
        return Unread("no_thought" if text.strip() else "no_answer")
    answer = found["answer"]
    ended = _END.search(answer)
    return _whole(found["thought"], answer[: ended.start()] if ended else answer, got,
                  cut=got.cut and ended is None)  # fmt: skip


def to_last_sentence(thought: str) -> str:
    """A thought that the token limit cut, up to its last whole sentence; empty if it has none."""
    found = _SENTENCE.match(thought)
    return found.group(0).rstrip() if found else ""


def why_unusable(taught: Taught, prompt: str, task: str = "") -> Unread | None:
    """What is wrong with a thought and an answer that were read, or None.

    `prompt` is all that the user wrote, `task` what the teacher was told beside rules and prompt.
    """
    for where, text in (("thought", taught.thought), ("answer", taught.answer)):
        if found := _MARKUP.search(text):
            return Unread("markup", f"{found.group(0)!r} in the {where}")
        left = _LEFT_OVER.search(text)
        if left and left.group(0).strip().casefold() not in prompt.casefold():
            return Unread("markup", f"{left.group(0).strip()!r} in the {where}")
    for where, text in (("thought", taught.thought), ("answer", taught.answer)):
        if leak := find_leak(text, prompt, thought=where == "thought"):
            return Unread("leaks", f"{leak!r} in the {where}")
        if echo := find_echo(text, task):
            return Unread("echoes", f"{echo!r} in the {where}")
    if shared := _repeated(taught):
        return Unread("repeats", shared)
    return None


def _whole(
    thought: str, answer: str, got: Completion, *, cut: bool | None = None
) -> Taught | Unread:
    thought, answer = thought.strip(), answer.strip()
    if got.cut if cut is None else cut:
        return Unread("cut" if answer else "no_answer", "by the token limit")
    if not thought:
        return Unread("empty_thought" if answer else "no_answer")
    return Taught(thought, answer) if answer else Unread("no_answer")


def _only_thought(got: Completion) -> bool:
    """Whether the token limit came while the model still thought: by its server, or by its tag."""
    if not got.cut:
        return False
    if got.reasoning:
        return not got.text.strip()
    return got.text.lstrip().startswith(OPEN) and CLOSE not in got.text


def _why_open(got: Completion) -> str:
    return "the token limit ended it" if got.cut else "the model stopped within it"


def _repeated(taught: Taught) -> str:
    """In words, how an answer repeats its thought: one holds the other, or most of it; or ""."""
    thought, answer = " ".join(taught.thought.split()), " ".join(taught.answer.split())
    if thought.casefold() == answer.casefold():
        return "they are the same"
    if len(thought) >= _SHORTEST and thought.casefold() in answer.casefold():
        return "the answer holds the whole thought"
    words = answer.casefold().split()
    said = f" {thought.casefold()} "
    run = int(len(words) * _MOST_SHARED)
    if len(answer) < _SHORTEST or run < 1:
        return ""
    # A draft of the answer inside the thought is the answer told twice; a sentence of it is not.
    if any(f" {' '.join(words[i : i + run])} " in said for i in range(len(words) - run + 1)):
        return f"{_MOST_SHARED:.0%} of the answer or more stands in the thought in one piece"
    return ""
