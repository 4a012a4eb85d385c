"""What both layouts of SpecBench hold: the rows of a scenario and its spec, read and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.errors import BadInput
from adhere.spec import Specification
from adhere.suites.reading import Pairs

COLUMNS = ("adversarial_prompt", "prompt", "label", "source", "answer")
COMMENT = "prompt_comment"  # read by the official evaluator, in none of the published rows
HALVES = ("unsafe", "safe")

_HALF_PAIR = re.compile("[\ud800-\udfff]")  # from an escape such as "\\ud800"

Wrong = Callable[[str, str], BadInput]  # what was found, what was expected


@dataclass(frozen=True)
class Row:
    """One prompt. `number` is its place in the official order, counted from 0."""

    number: int
    adversarial_prompt: str
    prompt: str
    label: str
    source: str
    answer: str | None  # empty in half of the published safe rows
    comment: str


@dataclass(frozen=True)
class Scenario:
    """One scenario: its key (`Health`), its rows in the official order and its spec."""

    key: str
    rows: tuple[Row, ...]
    spec: Specification
    source: str


Reader = Callable[[], Scenario]


def case_id(key: str, number: int) -> str:
    """The id of a row: `Health-017`."""
    return f"{key}-{number:03d}"


def place(key: str, number: int) -> str:
    """Where a row stands, as an item counted from 1 and by its id."""
    return f"item {number + 1} ({case_id(key, number)})"


def wrong_at(file: str | Path, key: str, number: int) -> Wrong:
    """Errors about one row, which name the file and the row."""

    def wrong(found: str, expected: str) -> BadInput:
        return BadInput.at(file, None, f"{found} at {place(key, number)}", expected)

    return wrong


def one_mapping(value: Any, wrong: Wrong) -> Mapping[str, Any]:
    """A JSON object whose keys stand once each. Raises BadInput."""
    if isinstance(value, Pairs):
        if (key := value.again) is not None:
            raise wrong(f"the key {key!r:.60} twice", "each key once")
        return dict(value)
    if isinstance(value, Mapping):
        return value
    raise wrong(f"{type(value).__name__}", "an object with " + ", ".join(COLUMNS))


def read_row(data: Mapping[str, Any], number: int, wrong: Wrong) -> Row:
    """A row from its columns; others than SpecBench's are errors. Raises BadInput."""
    if missing := [key for key in COLUMNS if key not in data]:
        raise wrong(f"no {missing[0]!r}", "every row with " + ", ".join(COLUMNS))
    if unknown := sorted(str(key) for key in data if key not in (*COLUMNS, COMMENT)):
        raise wrong(f"the column {unknown[0]!r:.60}", f"only {', '.join(COLUMNS)} and {COMMENT}")
    for key in ("adversarial_prompt", "prompt"):
        if not isinstance(data[key], str):
            raise wrong(f"{key} = {data[key]!r:.60}", "text")
        if not data[key].strip():
            raise wrong(f"an empty {key}", "text")
    for key in ("source", "answer", COMMENT):
        if not isinstance(data.get(key), str | None):
            raise wrong(f"{key} = {data[key]!r:.60}", "text, or null where there is none")
    for key in (*COLUMNS, COMMENT):
        if isinstance(data.get(key), str) and _HALF_PAIR.search(data[key]):
            raise wrong(f"half of a surrogate pair in {key}", "text that UTF-8 can hold")
    if data["label"] not in HALVES:
        raise wrong(f"label = {data['label']!r:.60}", "unsafe or safe")
    return Row(
        number,
        data["adversarial_prompt"],
        data["prompt"],
        data["label"],
        data["source"] or "",
        data["answer"],
        data.get(COMMENT) or "",
    )
