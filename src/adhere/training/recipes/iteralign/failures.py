"""Failures: bad answers with their prompts, as red-teaming writes them and others read them.

    {"id": ..., "prompt": ... or "messages": [...], "answer": ..., "reason": ..., "rules": [...]}

`reason` says why the answer is bad, `rules` the ids of the rules that it breaks, where those are
known; both may be missing, so that a file of one's own is soon made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.chat import Case, digest
from adhere.errors import BadInput
from adhere.suites.prompts_file import read_case
from adhere.suites.reading import json_lines, parse_object

FAILURES_FILE = "failures.jsonl"
_ALSO = ("answer", "reason", "rules")
_EXAMPLE = '{"prompt": "...", "answer": "a bad one"}'
_HINT = "`adhere data redteam` writes such a file. Nothing was run."


@dataclass(frozen=True)
class Failure:
    """A bad answer to a case, and why it is bad.

    `like`: the failure after whose pattern the case's prompt was written, if it was.
    """

    id: str
    case: Case
    answer: str
    reason: str = ""
    rules: tuple[str, ...] = ()
    like: str = ""


def failure_line(failure: Failure) -> dict[str, Any]:
    """A line of the file."""
    messages = failure.case.messages
    plain = len(messages) == 1 and messages[0].role == "user"
    asked: dict[str, Any] = (
        {"prompt": messages[0].text} if plain else {"messages": [m.to_dict() for m in messages]}
    )
    if failure.case.judged_prompt:
        asked["judged_prompt"] = failure.case.judged_prompt
    return {
        "id": failure.id,
        **asked,
        "answer": failure.answer,
        "reason": failure.reason,
        "rules": list(failure.rules),
        **({"like": failure.like} if failure.like else {}),
    }


def read_failures(path: Path) -> tuple[Failure, ...]:
    """Read a file, or the folder that has it. Raises BadInput that quotes no prompt and no answer.

    An empty file is no error here: a policy may have made no mistake.
    """
    file = path / FAILURES_FILE if path.is_dir() else path
    found: list[Failure] = []
    lines: dict[str, int] = {}
    for number, text, _ in json_lines(file, hint=_HINT):
        data = parse_object(file, number, text, _EXAMPLE, hint=_HINT)

        def wrong(found: str, expected: str, number: int = number) -> BadInput:
            return BadInput.at(file, number, found, expected, hint=_HINT)

        answer, reason = data.pop("answer", None), data.pop("reason", None)
        rules = data.pop("rules", None)
        if not isinstance(answer, str) or not answer.strip():
            raise wrong("no text in 'answer'", "the bad answer")
        if not isinstance(reason, str | None):
            raise wrong("no text in 'reason'", "why the answer is bad")
        if rules is not None and (
            not isinstance(rules, list) or not all(isinstance(r, str) for r in rules)
        ):
            raise wrong("no list of ids in 'rules'", "ids of rules")
        case = read_case(file, number, data, also=_ALSO)
        if any(not isinstance(m.content, str) or m.tool_calls for m in case.messages):
            raise wrong("messages with more than text", "plain text, which is trained on")
        if case.id in lines:
            raise wrong(f"the id of line {lines[case.id]} again", "each id once")
        lines[case.id] = number
        found.append(Failure(case.id, case, answer, reason or "", tuple(rules or ())))
    return tuple(found)


def failures_digest(failures: Sequence[Failure]) -> str:
    """SHA-256 over what failures say, in order."""
    return digest([failure_line(failure) for failure in failures])
