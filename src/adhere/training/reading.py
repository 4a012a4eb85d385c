"""From a file of preference pairs to rows: JSON lines or Parquet, in the layouts that TRL knows.

Of one pair, each of these says the same:

    {"prompt": [{"role": "user", "content": "Hi"}],
     "chosen": [{"role": "assistant", "content": "Hello!"}],
     "rejected": [{"role": "assistant", "content": "What?"}]}
    {"chosen":   [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
     "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "What?"}]}
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}

The first is explicit. In the second the prompt is what both conversations begin with (a string
`prompt` beside it has to be among its user messages). The third is one user message. `id` is
optional, and all other keys are kept as extras (but for `messages` beside the second: there some
sets repeat a conversation). `exporting.py` writes the first.

A file of rows with one answer to learn (`completions.py`) is read here too, by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from adhere.chat import Message, assistant, digest, user
from adhere.errors import BadInput
from adhere.suites.reading import json_lines, parse_object, unreadable
from adhere.training.completions import HINT as COMPLETION_HINT
from adhere.training.completions import completion_row, is_completion
from adhere.training.conversations import (
    NOT_TAKEN,
    check_prompt,
    check_taken,
    check_text,
    messages,
)
from adhere.training.row_errors import RowError
from adhere.training.rows import CompletionRow, PreferenceRow, TrainRow
from adhere.training.tokenizing import OnBadRow, SetAside

R = TypeVar("R", bound=TrainRow)

SIDES = ("chosen", "rejected")
_OF_AN_ANSWER = ("tool_calls", "reasoning_content", "reasoning", "thinking")
JSON_COLUMN = b"adhere.json"  # marks a Parquet column of JSON text

_HINT = (
    'For example: {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", '
    '"content": "Hello!"}], "rejected": [{"role": "assistant", "content": "What?"}]}'
)


class RowsRead(NamedTuple, Generic[R]):
    """Rows in file order, and those that cannot be used."""

    rows: list[R]
    set_aside: list[SetAside]


def read_rows(path: Path) -> list[PreferenceRow]:
    """All preference pairs of a file, by its suffix Parquet or JSON lines.

    Raises BadInput that names the file, the line (for Parquet the number of the row) and what was
    expected for the first row that cannot be used.
    """
    return read_usable_rows(path).rows


def read_usable_rows(path: Path, on_bad_row: OnBadRow = "stop") -> RowsRead[PreferenceRow]:
    """As `read_rows`; with `skip`, rows that cannot be used are set aside with the reason.

    Those are rows with equal or empty answers, wrong roles or types, tools, images, or a pair that
    stands there already. What makes the whole file doubtful stops in either case: broken JSON,
    missing columns, an id that two rows have, no row that can be used.
    """
    return _read(path, on_bad_row, completions=False)


def read_training_rows(
    path: Path, on_bad_row: OnBadRow = "stop", *, learns: bool = False
) -> RowsRead[PreferenceRow] | RowsRead[CompletionRow]:
    """Preference pairs, or rows with one answer to learn: whichever the first row is.

    `learns`: the second are expected, and errors say so. Raises BadInput as `read_usable_rows`,
    and for a file of both.
    """
    return _read(path, on_bad_row, completions=None, learns=learns)


def _read(
    path: Path, on_bad_row: OnBadRow, *, completions: bool | None, learns: bool = False
) -> RowsRead[Any]:
    """All rows of one kind; None: of the kind of the first."""
    read: RowsRead[Any] = RowsRead([], [])
    given: dict[str, int] = {}
    seen: dict[str, int] = {}
    number = 0
    for number, data in _objects(path):
        if completions is None:
            completions = is_completion(data) or (learns and not any(s in data for s in SIDES))
        _check_keys(path, number, data, completions)
        ident = _given_id(path, number, data)
        if ident and ident in given:
            raise BadInput.at(
                path, number, f"the id {ident!r:.60} of line {given[ident]}", "each id once"
            )
        if ident:
            given[ident] = number
        try:
            row = (completion_row if completions else _row)(data, ident, number)
            if row.id in seen:
                what = "row" if completions else "pair"
                raise RowError(
                    f"the {what} of line {seen[row.id]} again",
                    f"each {what} once",
                    "Give each its own id if both are to count.",
                )
        except RowError as error:
            if on_bad_row == "stop":
                raise error.at(path, number) from None
            read.set_aside.append(SetAside(ident, number, str(error)))
            continue
        seen[row.id] = number
        read.rows.append(row)
    if not read.rows:
        found = (
            f"all {len(read.set_aside)} rows cannot be used; line {read.set_aside[0].line}: "
            f"{read.set_aside[0].reason}"
            if number
            else "found no rows; expected "
            + ("rows with one answer to learn" if learns else "preference pairs")
        )
        hint = COMPLETION_HINT if completions or learns else _HINT
        if learns and not number:
            hint = "A run that kept no row leaves an empty file; rejected.jsonl beside it says why."
        raise BadInput(f"{path}: {found}", hint=hint)
    return read


def _check_keys(path: Path, number: int, data: Mapping[str, Any], completions: bool) -> None:
    """Raises BadInput for a row of another kind than its file, or of none."""
    keys = f"the keys {', '.join(map(repr, data))}"
    if completions:
        if not is_completion(data):
            raise BadInput.at(
                path,
                number,
                f"{keys:.200}",
                "prompt and completion, or messages" + (", as in the rows before" * (number > 1)),
                hint="A file has rows with one answer to learn, or preference pairs; not both.",
            )
    elif missing := [side for side in SIDES if side not in data]:
        raise BadInput.at(
            path,
            number,
            f"no {' and no '.join(missing)} among {keys:.200}",
            "prompt, chosen and rejected",
            hint=_HINT,
        )


def rows_digest(rows: Iterable[PreferenceRow]) -> str:
    """SHA-256 over what the rows say, in order; extras and lines left out."""
    return digest([[row.id, *_said(row.prompt, row.chosen, row.rejected)] for row in rows])


def why_unusable(row: PreferenceRow) -> str:
    """Why `read_rows` would refuse a row of these words, or nothing if it would take it."""
    try:
        _check(row.prompt, row.chosen, row.rejected)
    except RowError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------- one row


def _given_id(path: Path, number: int, data: Mapping[str, Any]) -> str:
    ident = data.get("id")
    if ident is None:
        return ""
    if isinstance(ident, bool) or not isinstance(ident, str | int) or not str(ident).strip():
        raise BadInput.at(path, number, f"id = {ident!r:.60}", "text or a whole number, or no id")
    return str(ident)


def _row(data: Mapping[str, Any], ident: str, number: int) -> PreferenceRow:
    check_taken(data)
    lead = _lead(data)
    chosen, rejected = (_whole(lead, side, data[side]) for side in SIDES)
    common = 0
    for a, b in zip(chosen[:-1], rejected[:-1], strict=False):
        if a != b:
            break
        common += 1
    for side, whole in zip(SIDES, (chosen, rejected), strict=True):
        _check_answer(side, whole[common:])
    prompt, texts = tuple(chosen[:common]), (chosen[-1].text, rejected[-1].text)
    if isinstance(data.get("prompt"), str) and not lead:
        _check_stated(data["prompt"], prompt)
    _check(prompt, *texts)
    taken = {"id", "prompt", *SIDES, *NOT_TAKEN}
    if not lead:
        taken.add("messages")  # beside whole conversations, the chosen one once more
    extras = {k: v for k, v in data.items() if k not in taken}
    return PreferenceRow(
        ident or digest(_said(prompt, *texts))[:16], prompt, *texts, extras, number
    )


def _said(prompt: Sequence[Message], chosen: str, rejected: str) -> list[Any]:
    return [[message.to_dict() for message in prompt], chosen, rejected]


def _lead(data: Mapping[str, Any]) -> list[Message]:
    """The prompt as it is given beside the answers; none where they are whole conversations."""
    prompt = data.get("prompt")
    whole = [isinstance(data[side], list) and len(data[side]) > 1 for side in SIDES]
    if prompt is None or (isinstance(prompt, str) and all(whole)):
        if not all(whole):
            raise RowError(
                "no prompt", "a prompt, or whole conversations in chosen and rejected", _HINT
            )
        return []
    if isinstance(prompt, str):
        return [user(prompt)]
    lead = messages("prompt", prompt, _HINT)
    for side in SIDES:
        given = data[side]
        if isinstance(given, list) and len(given) > 1 and given[: len(prompt)] == prompt:
            raise RowError(
                f"{side} that begins with the prompt again",
                "the answer alone in chosen and rejected",
                "Leave prompt out where chosen and rejected hold whole conversations.",
            )
    return lead


def _whole(lead: list[Message], side: str, given: Any) -> list[Message]:
    if isinstance(given, str):
        return [*lead, assistant(given)]
    return [*lead, *messages(side, given, _HINT)]


def _check_answer(side: str, rest: Sequence[Message]) -> None:
    if len(rest) > 1:
        raise RowError(
            f"{len(rest)} messages of {side} behind what both sides begin with",
            "one answer to the same prompt",
        )
    last = rest[0]
    if last.role != "assistant":
        raise RowError(f"a last message of {side} by {last.role!r:.40}", "one by 'assistant'")
    for key in _OF_AN_ANSWER:
        if last.tool_calls if key == "tool_calls" else last.extra.get(key):
            raise RowError(f"{side} with {key}", "an answer of text alone")
    check_text(side, last)


def _check_stated(stated: str, prompt: Sequence[Message]) -> None:
    said = {message.text.strip() for message in prompt if message.role == "user"}
    if stated.strip() not in said:
        raise RowError(
            f"a prompt ({stated!r:.60}) that no user message of both conversations says",
            "the same prompt in all columns",
            "Leave prompt out where chosen and rejected hold whole conversations.",
        )


def _check(prompt: Sequence[Message], chosen: str, rejected: str) -> None:
    """Raises RowError for words that make no preference pair."""
    check_prompt(prompt)
    for side, text in zip(SIDES, (chosen, rejected), strict=True):
        if not text.strip():
            raise RowError(f"an empty answer ({side})", "text")
        check_text(side, assistant(text))
    if chosen == rejected:
        raise RowError("chosen and rejected that are equal", "two different answers")


# ---------------------------------------------------------------- files


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".parquet":
        yield from _parquet_objects(path)
        return
    for number, text, _ in json_lines(path, hint="Give rows with --pairs (or --rows)."):
        yield number, parse_object(path, number, text, '{"prompt": ...}', hint=_HINT)


def parquet_library() -> tuple[Any, Any]:
    """`pyarrow` and its Parquet module. Raises BadInput without them."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise BadInput(
            "Parquet needs the package pyarrow, which is not installed",
            hint="pip install 'adhere[parquet]', or use JSON lines.",
        ) from None


def _parquet_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file by number. A null of a whole column is a key that is not there."""
    arrow, parquet = parquet_library()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            nested = {
                field.name for field in file.schema_arrow if JSON_COLUMN in (field.metadata or {})
            }
            for batch in file.iter_batches(batch_size=500):
                for row in batch.to_pylist():
                    number += 1
                    data = {k: v for k, v in row.items() if v is not None or k in SIDES}
                    for key in nested & data.keys():
                        wrapped = f'{{"value": {data[key]}}}'
                        data[key] = parse_object(path, number, wrapped, "...")["value"]
                    yield number, data
    except (OSError, arrow.ArrowException) as error:
        raise unreadable(path, error, "Expected a Parquet file of preference pairs.") from None
