"""A run's rows in formats of other tools: a Parquet table, and logs of Inspect (`inspect_logs.py`).

The table has one row a row of `results.jsonl` and always the same columns with the same types.
What is nested (marks, deciders, reasons, steps, messages, usage by role, facts) is one column of
JSON text each, which every reader can open, whatever it thinks of nested types:

    DuckDB   SELECT method, avg(score), count(*) FILTER (marks->>'no-bomb' = 'NO')
             FROM 'run.parquet' WHERE outcome = 'scored' GROUP BY method;
    pandas   rows = pd.read_parquet("run.parquet"); marks = rows["marks"].map(json.loads)

Tokens, calls and seconds stand in columns of their own too, summed over the roles; those of a
judge model (`judge_...`) apart. What an older run did not record is null.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from adhere.errors import BadInput, disk_error
from adhere.records.run_folder import dump_json
from adhere.reporting.inputs import read_run
from adhere.reporting.inspect_logs import whole_text, write_inspect_log

__all__ = ["write_inspect_log", "write_parquet"]

BATCH = 500  # rows held at once

_TEXTS = ("suite", "case", "label", "model", "method", "variant", "prompt", "text", "thought",
          "outcome", "reason", "finish_reason")  # fmt: skip
_FLAGS = ("oracle", "judged", "cut", "refused", "empty")
_NUMBERS = ("score", "safety", "behavioral", "seconds")
_NESTED = ("marks", "deciders", "mark_reasons", "twins", "messages", "steps", "usage",
           "paper_usage", "judge_usage", "facts")  # fmt: skip
_TOKENS = ("prompt_tokens", "cached_prompt_tokens", "completion_tokens", "calls")

# Column, type, and how a row fills it. The order is the table's; new columns go to the end.
_COLUMNS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Any]], ...] = (
    *((name, "string", lambda row, name=name: row.get(name)) for name in _TEXTS),
    ("repeat", "int32", lambda row: row.get("repeat")),
    *((name, "bool", lambda row, name=name: row.get(name)) for name in _FLAGS),
    *((name, "double", lambda row, name=name: row.get(name)) for name in _NUMBERS),
    ("error_kind", "string", lambda row: (row.get("error") or {}).get("kind")),
    ("error_message", "string", lambda row: (row.get("error") or {}).get("message")),
    *((name, "int64", lambda row, name=name: _used(row, name)) for name in _TOKENS),
    *((f"judge_{key}", "int64", lambda row, key=key: _judged(row).get(key)) for key in _TOKENS),
    ("judge_seconds", "double", lambda row: _judged(row).get("seconds")),
    ("judge_reasks", "int32", lambda row: row.get("judge_reasks")),
    *((name, "json", lambda row, name=name: row.get(name)) for name in _NESTED),
    ("reference", "string", lambda row: row.get("reference")),
    ("judged_prompt", "string", lambda row: row.get("judged_prompt")),
    ("judged_cut", "bool", lambda row: row.get("judged_cut")),
    *(
        (f"error_{k}", t, lambda row, k=k: (row.get("error") or {}).get(k))
        for k, t in (("role", "string"), ("retry", "bool"), ("fatal", "bool"))
    ),
)


def write_parquet(folder: Path, path: Path) -> int:
    """Write all rows of a run as one Parquet file; returns how many. A row at a time is read.

    Raises BadInput without pyarrow, for a broken run or a path that is no `.parquet`; DiskFull.
    """
    arrow, parquet = _pyarrow()
    if path.suffix != ".parquet":
        raise BadInput(f"{path}: found the suffix {path.suffix!r}; expected .parquet")
    summary, rows, _ = read_run(folder)
    kinds = {"json": arrow.string(), "string": arrow.string(), "bool": arrow.bool_(),
             "int32": arrow.int32(), "int64": arrow.int64(), "double": arrow.float64()}  # fmt: skip
    schema = arrow.schema(
        [(name, kinds[kind]) for name, kind, _ in _COLUMNS],
        metadata={
            "adhere.run": str(summary.get("name") or folder.name),
            "adhere.schema_version": str(summary.get("schema_version", 1)),
            "adhere.spec": dump_json({k: v for k, v in summary["spec"].items() if k != "rules"}),
        },
    )
    temporary = path.with_name(f".{path.name}.tmp")
    count = 0
    try:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            each = iter(rows)
            while batch := list(islice(each, BATCH)):
                writer.write_table(_table(arrow, batch, schema, rows.path, count))
                count += len(batch)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise BadInput(
            "Parquet needs the package pyarrow, which is not installed",
            hint="pip install 'adhere[parquet]'",
        ) from None


def _table(
    arrow: Any,
    rows: Sequence[Mapping[str, Any]],
    schema: Any,
    source: Path,
    before: int,
) -> Any:
    """A batch as a table. Raises BadInput that names the row and column of a wrong type."""
    arrays = []
    for name, kind, read in _COLUMNS:
        fill = _json if kind == "json" else _plain
        try:
            values = [fill(read(row)) for row in rows]
            arrays.append(arrow.array(values, schema.field(name).type))
        except _WRONG:
            wanted = "JSON" if kind == "json" else kind
            for number, row in enumerate(rows, before + 1):
                try:
                    arrow.array([fill(read(row))], schema.field(name).type)
                except _WRONG:
                    found = f"{name!r} as {row.get(name)!r:.60}"
                    raise BadInput(
                        f"{source}: row {number}: found {found}; expected {wanted}"
                    ) from None
            raise
    return arrow.table(arrays, schema=schema)


# What a value of another type raises; the exceptions of pyarrow are among these.
_WRONG = (ValueError, TypeError, AttributeError, OverflowError, NotImplementedError)


def _plain(value: Any) -> Any:
    return whole_text(value) if isinstance(value, str) else value


def _json(value: Any) -> str | None:
    return None if value is None else dump_json(value)


def _used(row: Mapping[str, Any], name: str) -> int:
    return sum(used.get(name, 0) for used in (row.get("usage") or {}).values())


def _judged(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return row.get("judge_usage") or {}
