"""Conversations of hh-rlhf (Ganguli et al., arXiv 2209.07858; Bai et al., 2204.05862) as prompts.

Each is one text of turns, `Human:` and `Assistant:` behind blank lines: under `transcript` in the
red-team attempts (38,961), under `chosen` and `rejected` in the pairs, whose shared beginning is
the conversation. `turns` says which prompts one of them gives: `all`, one for each turn of the
person with what was said before it (IterAlign's released pool of 132,715 prompts has 3.4 for each
transcript, so it was most likely made so); `first`; or `last`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from adhere.chat import Case, Message, assistant, digest, user
from adhere.errors import BadInput
from adhere.suites.attacks import ATTACK, Attack, AttackConfig, drawn, needed, prompt_of
from adhere.suites.base import Suite
from adhere.suites.choices import Wrong, at_item, at_line, mapping
from adhere.suites.reading import LARGEST_FILE, Pairs, parse_pairs, read_bytes, too_large
from adhere.suites.safety_specs import attack_spec

KEYS = ("transcript", "chosen")
_EXAMPLE = '{"transcript": "\\n\\nHuman: ...\\n\\nAssistant: ..."}'
_HINT = "The repository anthropics/hh-rlhf has red_team_attempts.jsonl.gz: give path=FILE"
_TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant):")


class HHConfig(AttackConfig):
    """Options of `hh_rlhf`."""

    turns: Literal["all", "first", "last"] = Field(
        "all", description="a prompt for each turn of the person, or for one of them"
    )
    form: Literal["messages", "transcript"] = Field(
        "messages",
        description="transcript: one message with the text as it is, ending in `Assistant:` (as "
        "IterAlign's released script asks)",
    )


class HHRlhf:
    """The conversations up to turns of the person. Equal prompts count once."""

    name: ClassVar[str] = "hh_rlhf"
    Config: ClassVar[type[HHConfig]] = HHConfig
    measures: ClassVar[str] = ATTACK

    def __init__(self, config: HHConfig | None = None) -> None:
        """Take the options."""
        self.config = config or HHConfig()

    def load(self) -> list[Suite]:
        """One suite. Raises BadInput."""
        config = self.config
        file = needed(config.path, self.name, "the conversations", _HINT)
        found: list[tuple[Attack, tuple[Message, ...]]] = []
        seen: set[str] = set()
        again = 0
        for number, (row, wrong) in enumerate(_rows(file)):
            for turn, messages in enumerate(_prompts(_text(row, wrong), config.turns, wrong)):
                mark = digest([m.to_dict() for m in messages])
                if mark in seen:
                    again += 1
                    continue
                seen.add(mark)
                name = f"hh-{number:05d}-{turn}"
                found.append((Attack(messages[-1].text, name, len(found), wrong), messages))
        taken = {attack.number for attack in drawn([a for a, _ in found], config, str(file))}
        shown: Callable[[Sequence[Message]], tuple[Message, ...]] = (
            transcript_of if config.form == "transcript" else tuple
        )
        cases = tuple(Case(a.group, shown(m), a.label) for a, m in found if a.number in taken)
        notes = (f"{again} prompts stood there a second time",) if again else ()
        spec = attack_spec(config.scored_by)
        return [Suite(self.name, cases, spec, str(file), notes=notes, harmful=True)]


def turns_of(text: str) -> list[Message]:
    """The turns of a transcript, empty ones left out. Raises ValueError for a text without any.

    What stands before the first label is none of theirs, and is left out too.
    """
    marks = list(_TURN.finditer(text))
    if not marks:
        raise ValueError("no turn that begins with Human: or Assistant:")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    out: list[Message] = []
    for mark, end in zip(marks, ends, strict=True):
        said = text[mark.end() : end].strip()
        if said:
            out.append(user(said) if mark.group(1) == "Human" else assistant(said))
    return out


def transcript_of(turns: Sequence[Message]) -> tuple[Message, ...]:
    """The turns as one message in the layout of the data, with an open turn of the assistant."""
    names = {"user": "Human", "assistant": "Assistant"}
    said = "".join(f"\n\n{names[turn.role]}: {turn.text}" for turn in turns)
    return (user(f"{said}\n\nAssistant:"),)


def _prompts(text: str, which: str, wrong: Wrong) -> list[tuple[Message, ...]]:
    """The conversation up to each turn of the person that `which` names."""
    try:
        turns = turns_of(text)
    except ValueError as problem:
        raise wrong(str(problem), _EXAMPLE) from None
    places = [i for i, turn in enumerate(turns) if turn.role == "user"]
    if not places:
        raise wrong("no turn of the person", _EXAMPLE)
    wanted = {"all": places, "first": places[:1], "last": places[-1:]}[which]
    return [tuple(turns[: place + 1]) for place in wanted]


def _text(row: Mapping[str, Any], wrong: Wrong) -> str:
    """The conversation of a row; of a pair what both sides begin with."""
    key = next((key for key in KEYS if key in row), None)
    if key is None:
        raise wrong("neither 'transcript' nor 'chosen'", _EXAMPLE)
    text = prompt_of(row, key, wrong)
    if key != "chosen" or "rejected" not in row:
        return text
    other = prompt_of(row, "rejected", wrong)
    same = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), None)
    shared = text if same is None else text[:same]
    cut = shared.rfind("\n\nAssistant:")
    return shared[:cut] if cut > 0 else text


def _rows(file: Path) -> Iterator[tuple[dict[str, Any], Wrong]]:
    """The rows of a list or of JSON lines, packed or not. Raises BadInput."""
    raw = read_bytes(file)
    if file.suffix.lower() == ".gz":
        raw = _unpacked(file, raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"bytes that are no UTF-8 ({error.reason})"
        raise BadInput.at(file, None, found, "UTF-8 text") from None
    if text.lstrip().startswith("["):
        for number, item in enumerate(_parsed(text, at_item(file, 0))):
            wrong = at_item(file, number)
            yield mapping(item, wrong, _EXAMPLE), wrong
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            wrong = at_line(file, number)
            item = _parsed(line, wrong)
            if not isinstance(item, Pairs):
                raise wrong(type(item).__name__, _EXAMPLE)
            yield mapping(item, wrong, _EXAMPLE), wrong


def _parsed(text: str, wrong: Wrong) -> Any:
    try:
        return parse_pairs(text)
    except (ValueError, RecursionError):
        raise wrong("broken JSON", _EXAMPLE) from None


def _unpacked(file: Path, raw: bytes) -> bytes:
    """What a gzip file holds, all of its members, of at most 64 MB."""
    out = b""
    try:
        while raw:
            reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
            out += reader.decompress(raw, LARGEST_FILE + 1 - len(out))
            if len(out) > LARGEST_FILE or reader.unconsumed_tail:
                raise too_large(file, len(out))
            if not reader.eof:
                raise BadInput.at(file, None, "a gzip file that was cut off", "a whole one")
            raw = reader.unused_data
    except zlib.error as error:
        raise BadInput.at(file, None, f"broken gzip ({error})", "a gzip file") from None
    return out
