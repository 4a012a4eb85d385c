"""Reading data files: JSON lines and whole JSON files, with the place of the first mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adhere.errors import BadInput

LONGEST_LINE = 4 * 1024 * 1024
LARGEST_FILE = 64 * 1024 * 1024


class Pairs(list[tuple[str, Any]]):
    """The keys and values of one JSON object as they stand there, keys that stand twice too."""

    @property
    def again(self) -> str | None:
        """The first key that stands twice."""
        seen: set[str] = set()
        for key, _ in self:
            if key in seen:
                return key
            seen.add(key)
        return None


def json_lines(path: Path, *, hint: str = "") -> Iterator[tuple[int, str, bool]]:
    """Number, text, and whether it is whole, of each line that is not blank. Raises BadInput.

    `hint` says what to do about a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(raw) > LONGEST_LINE:
                    raise BadInput.at(
                        path, number, "a line of more than 4 MB", "one JSON object a line"
                    )
                if not raw.strip():
                    continue
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise BadInput.at(
                        path, number, f"bytes that are no UTF-8 ({error.reason})", "UTF-8 text"
                    ) from None
                yield number, text, raw.endswith(b"\n")
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise unreadable(path, error, hint) from None


def parse_object(
    path: Path, number: int, text: str, example: str, *, hint: str = ""
) -> dict[str, Any]:
    """The JSON object on one line. Raises BadInput."""
    try:
        data: Any = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        found = f"broken JSON ({error})"
        raise BadInput.at(path, number, found, "one JSON object a line", hint=hint) from None
    if not isinstance(data, dict):
        raise BadInput.at(
            path, number, type(data).__name__, f"an object such as {example}", hint=hint
        )
    return data


def read_json(path: Path) -> Any:
    """What a JSON file of at most 64 MB holds; its objects as `Pairs`. Raises BadInput."""
    raw = read_bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput.at(
            path, line, f"bytes that are no UTF-8 ({error.reason})", "UTF-8 text"
        ) from None
    try:
        return parse_pairs(text)
    except json.JSONDecodeError as error:
        raise BadInput.at(
            path, error.lineno, f"broken JSON ({error.msg}, column {error.colno})", "valid JSON"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadInput.at(path, None, f"broken JSON ({reason})", "valid JSON") from None


def parse_pairs(text: str) -> Any:
    """What a JSON text holds; its objects as `Pairs`. Raises ValueError and RecursionError."""
    return json.loads(text, object_pairs_hook=Pairs, parse_constant=_no_number)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of at most 64 MB. Reads no more than that. Raises BadInput."""
    check_size(path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if len(raw) > LARGEST_FILE:  # it has no size of its own, or grew
        raise too_large(path, len(raw))
    return raw


def check_size(path: Path) -> None:
    """Raise BadInput for a file above 64 MB, or one that is not there."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if size > LARGEST_FILE:
        raise too_large(path, size)


def too_large(path: Path, size: int) -> BadInput:
    """The error for a file that is larger than any data set of this kind."""
    return BadInput.at(
        path, None, f"a file of {size / 2**20:,.0f} MB or more", "at most 64 MB",
        hint="Is this the right file?",
    )  # fmt: skip


def unreadable(path: Path, error: Exception, hint: str = "") -> BadInput:
    """The error for a file that cannot be opened."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return BadInput(f"{path}: cannot be read ({reason})", hint=hint)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
