"""A user's own prompts: JSON lines with `prompt` or `messages`.

Optional keys: `id`, `label` (`safe` and `unsafe` make subsets of the tables), `reference` (a good
answer) and `judged_prompt` (what a judge sees instead of the prompt, for attacked prompts).
`category` and `note`, which only distilling reads, are left aside. The whole file is read and
checked before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adhere.chat import Case, Message, digest, messages_from, user
from adhere.errors import BadInput
from adhere.suites.base import Suite
from adhere.suites.reading import json_lines, parse_object

KEYS = ("prompt", "messages", "id", "label", "reference", "judged_prompt")
OF_DISTILLING = ("category", "note")  # a file that was distilled on is evaluated on as it is
EXAMPLE = '{"prompt": "..."}'
_HINT = "Nothing was run."


def load_prompts(path: str | Path) -> Suite:
    """Read a prompts file. Raises BadInput that names the file and line of the first mistake."""
    path = Path(path)
    cases: list[Case] = []
    lines: dict[str, int] = {}
    prompts: dict[str, int] = {}
    for number, text, _ in json_lines(path, hint="Give a JSONL file with --prompts."):
        data = parse_object(path, number, text, EXAMPLE, hint=_HINT)
        data = {key: value for key, value in data.items() if key not in OF_DISTILLING}
        case = read_case(path, number, data)
        asked = digest([m.to_dict() for m in case.messages])
        if asked in prompts:
            # Two copies would share their draws: one answer, counted as two.
            raise BadInput.at(
                path,
                number,
                f"the same prompt as in line {prompts[asked]}",
                "each prompt once",
                hint="For several answers to each prompt use --repeats.",
            )
        if case.id in lines:
            raise BadInput.at(
                path,
                number,
                f"the id {case.id!r}, which line {lines[case.id]} has too",
                "an id once",
            )
        prompts[asked] = number
        lines[case.id] = number
        cases.append(case)
    if not cases:
        raise BadInput(
            f"{path}: found no prompts; expected one JSON object a line",
            hint='For example: {"prompt": "My head hurts. What can I do?", "label": "safe"}',
        )
    return Suite(path.stem, tuple(cases))


def read_case(path: Path, number: int, data: dict[str, Any], *, also: Sequence[str] = ()) -> Case:
    """The case of one line. Raises BadInput.

    `also`: keys that the caller has taken out of the line before, which the error names too.
    """

    def wrong(found: str, expected: str) -> BadInput:
        return BadInput.at(path, number, found, expected, hint=_HINT)

    if unknown := sorted(set(data) - set(KEYS)):
        raise wrong(f"the key {unknown[0]!r}", "only " + ", ".join((*KEYS, *also)))
    if ("prompt" in data) == ("messages" in data):
        raise wrong(
            'both "prompt" and "messages"' if "prompt" in data else f"the keys {sorted(data)}",
            'either "prompt" or "messages"',
        )
    for key in ("prompt", "label", "reference", "judged_prompt"):
        if not isinstance(data.get(key, ""), str | None):
            raise wrong(f"{key} = {data[key]!r:.60}", "text")
    messages: tuple[Message, ...]
    if "prompt" in data:
        if not data["prompt"] or not data["prompt"].strip():
            raise wrong("an empty prompt", "text")
        messages = (user(data["prompt"]),)
    else:
        if not isinstance(data["messages"], list) or not data["messages"]:
            raise wrong('"messages" that is no list', "a list of OpenAI messages")
        try:
            messages = messages_from(data["messages"])
        except ValueError as error:
            raise wrong(str(error), "OpenAI messages with role and content") from None
        if messages[-1].role != "user":
            raise wrong(f"a last message by {messages[-1].role!r}", "one by 'user'")
    given = data.get("id")
    if given is not None and (not isinstance(given, str | int) or str(given).strip() == ""):
        raise wrong(f"id = {given!r:.60}", "text or a whole number")
    case_id = str(given) if given is not None else digest([m.to_dict() for m in messages])[:10]
    return Case(
        case_id,
        messages,
        data.get("label") or "",
        data.get("reference"),
        data.get("judged_prompt"),
    )
