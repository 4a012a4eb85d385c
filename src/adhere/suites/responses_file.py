"""Answers that exist already, for `adhere judge`: JSON lines of a prompt and its response.

Each line has `prompt` and `response`, or OpenAI `messages` whose last one is by the assistant.
Optional keys: `id`, `label`, `reference`, `judged_prompt` (as in a prompts file), and `model` and
`method`, which name the line in the tables. Several answers to one prompt are welcome: of the
same model and method they count as repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.chat import Case, Message, digest, messages_from, user
from adhere.errors import BadInput
from adhere.suites.base import Suite
from adhere.suites.reading import json_lines, parse_object

KEYS = (
    "prompt", "response", "messages", "id", "label", "reference", "judged_prompt", "model",
    "method",
)  # fmt: skip
GIVEN = "given"
_EXAMPLE = 'For example: {"prompt": "My head hurts.", "response": "Rest and drink water."}'


@dataclass(frozen=True)
class GivenAnswer:
    """One answer, and whose it is."""

    case: Case
    text: str
    model: str
    method: str
    repeat: int


@dataclass(frozen=True)
class Responses:
    """All answers of a file; `suite` holds the prompts, each once."""

    suite: Suite
    answers: tuple[GivenAnswer, ...]


def load_responses(path: str | Path) -> Responses:
    """Read a responses file. Raises BadInput that names the file and line of the first mistake."""
    path = Path(path)
    cases: dict[str, Case] = {}
    answers: list[GivenAnswer] = []
    repeats: dict[tuple[str, str, str], int] = {}
    for number, text, _ in json_lines(path):
        data = parse_object(path, number, text, '{"prompt": ..., "response": ...}')
        case, response = _read(path, number, data)
        known = cases.setdefault(case.id, case)
        if known != case:
            raise BadInput.at(
                path,
                number,
                f"the id {case.id!r} of another prompt (or with another label or reference)",
                "one prompt an id",
            )
        who = data.get("model") or GIVEN, data.get("method") or GIVEN
        repeat = repeats.get((case.id, *who), 0)
        repeats[case.id, *who] = repeat + 1
        answers.append(GivenAnswer(case, response, *who, repeat))
    if not answers:
        raise BadInput(f"{path}: found no answers; expected one JSON object a line", hint=_EXAMPLE)
    return Responses(Suite(path.stem, tuple(cases.values())), tuple(answers))


def _read(path: Path, number: int, data: Mapping[str, Any]) -> tuple[Case, str]:
    def wrong(found: str, expected: str) -> BadInput:
        return BadInput.at(path, number, found, expected, hint=_EXAMPLE)

    if unknown := sorted(set(data) - set(KEYS)):
        raise wrong(f"the key {unknown[0]!r}", "only " + ", ".join(KEYS))
    for key in ("prompt", "response", "label", "reference", "judged_prompt", "model", "method"):
        if not isinstance(data.get(key, ""), str | None):
            raise wrong(f"{key} = {data[key]!r:.60}", "text")
    messages: tuple[Message, ...]
    if "messages" in data:
        if "prompt" in data or "response" in data:
            raise wrong('"messages" beside "prompt" or "response"', "one or the other")
        try:
            messages = messages_from(data["messages"])
        except (ValueError, TypeError) as error:
            raise wrong(str(error), "a list of OpenAI messages") from None
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise wrong("messages that do not end with an answer", "a last one by 'assistant'")
        messages, response = messages[:-1], messages[-1].text
        if all(message.role != "user" for message in messages):
            raise wrong("messages without a question", "one by 'user'")
    else:
        if not (data.get("prompt") or "").strip():
            raise wrong("no prompt", '"prompt" and "response", or "messages"')
        if not isinstance(data.get("response"), str):
            raise wrong("no response", '"prompt" and "response", or "messages"')
        messages, response = (user(data["prompt"]),), data["response"]
    given = data.get("id")
    if given is not None and (not isinstance(given, str | int) or str(given).strip() == ""):
        raise wrong(f"id = {given!r:.60}", "text or a whole number")
    case_id = str(given) if given is not None else digest([m.to_dict() for m in messages])[:10]
    label, reference = data.get("label") or "", data.get("reference")
    return Case(case_id, messages, label, reference, data.get("judged_prompt")), response
