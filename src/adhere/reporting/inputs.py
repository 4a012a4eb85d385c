"""Reads a run folder for the report. Whatever is missing or broken is named with its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.errors import BadInput

SCHEMA_VERSION = 1
_AGAIN = "Run the same `adhere eval` again: it goes on where it stopped and writes this file."


@dataclass(frozen=True)
class RowsFile:
    """The rows of a results file, read anew on every iteration so that none are held."""

    path: Path

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        try:
            with self.path.open("rb") as lines:
                for at, line in enumerate(lines, 1):
                    if line.strip():
                        yield self._row(at, line)
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def _row(self, at: int, line: bytes) -> Mapping[str, Any]:
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise BadInput.at(self.path, at, "bytes that are not UTF-8", "a JSON row") from None
        except (ValueError, RecursionError):
            found = "half a row" if not line.endswith(b"\n") else "a line that is not JSON"
            raise BadInput.at(self.path, at, found, "one JSON row a line", hint=_AGAIN) from None
        if not isinstance(row, dict):
            raise BadInput.at(self.path, at, f"a JSON {type(row).__name__}", "an object")
        _check_version(self.path, at, row)
        for key, kind, name in _ROW_SHAPES:
            if row.get(key) is not None and not isinstance(row[key], kind):
                found = f"{key!r} as {type(row[key]).__name__}"
                raise BadInput.at(self.path, at, found, name)
        return row


# Only what the report walks into; every other field is shown as it is.
_ROW_SHAPES = (
    ("marks", dict, "an object of marks by rule id"),
    ("mark_reasons", dict, "an object of reasons by rule id"),
    ("deciders", dict, "an object of deciders by rule id"),
    ("usage", dict, "an object of usage by role"),
    ("error", dict, "an object or null"),
    ("steps", list, "a list of steps"),
    ("messages", list, "a list of messages"),
    ("twins", dict, "an object of marks by rule id"),
)


def read_run(folder: Path) -> tuple[Mapping[str, Any], RowsFile, Mapping[str, Any]]:
    """The summary, the rows and the configuration of a run folder. Raises BadInput."""
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: no such run folder",
            hint="Name the folder that `adhere eval --out` wrote.",
        )
    if (folder / "train.json").is_file():
        raise BadInput(
            f"{folder}: is of a training, which is no run of answers",
            hint=f"Its page is {folder / 'report.html'}; `adhere eval --model weights:"
            f"{folder / 'model'}` measures what was trained.",
        )
    summary = _summary(folder / "summary.json")
    rows = folder / "results.jsonl"
    if not rows.is_file():
        raise BadInput(f"{rows}: no such file", hint=_AGAIN)
    return summary, RowsFile(rows), _config(folder / "run.yaml")


def check_summary(summary: Mapping[str, Any], name: str | Path = "summary.json") -> None:
    """Raise BadInput unless the summary has the shape that the report walks through."""
    _check_version(name, None, summary)
    if summary.get("kind") == "choices":
        raise BadInput(
            f"{name}: is of a run of multiple-choice suites, which has no spec and no marks",
            hint="`adhere report FOLDER` shows such a run.",
        )
    if (kind := summary.get("kind")) is not None and "rows" not in summary:
        raise BadInput(
            f"{name}: is of a run of kind {kind!r}, which has no report of this form",
            hint="Its summary.json has its numbers, its folder its own pages.",
        )
    wanted = (("spec", Mapping, "an object"), ("rows", list, "a list of objects"))
    wanted_too = (
        ("settings", Mapping, "an object"), ("spent", Mapping, "an object"),
        ("rules", list, "a list of objects"), ("models", list, "a list of objects"),
        ("undecided_rules", list, "a list of rule ids"),
        ("judges", list, "a list of objects"), ("failures", list, "a list of objects"),
        ("judge_trust", Mapping, "an object"), ("edits", Mapping, "an object"),
        ("rule_changes", list, "a list"), ("until_ci", Mapping, "an object"),
        ("games", list, "a list of objects"),
    )  # fmt: skip
    for key, kind, expected in (*wanted, *wanted_too):
        value = summary.get(key)
        if value is None and (key, kind, expected) in wanted_too:
            continue
        if not isinstance(value, kind):
            found = f"no {key!r}" if value is None else f"{key!r} as {type(value).__name__}"
            raise BadInput.at(name, None, found, expected, hint=_AGAIN)
        if expected == "a list of objects" and not all(isinstance(v, Mapping) for v in value):
            raise BadInput.at(name, None, f"{key!r} with other things in it", expected)
    rules = summary["spec"].get("rules") or []
    if not isinstance(rules, list) or not all(isinstance(r, Mapping) for r in rules):
        raise BadInput.at(name, None, "spec rules of another shape", "a list of objects")


def _summary(path: Path) -> Mapping[str, Any]:
    try:
        summary = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise BadInput.at(path, line, "broken JSON", "a whole summary", hint=_AGAIN) from None
    if not isinstance(summary, dict):
        raise BadInput.at(path, None, f"a JSON {type(summary).__name__}", "an object", hint=_AGAIN)
    check_summary(summary, path)
    return summary


def _config(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(_read(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        raise BadInput.at(path, line, "broken YAML", "the run's configuration") from None
    if not isinstance(config, dict):
        raise BadInput.at(path, None, "no mapping", "the run's configuration", hint=_AGAIN)
    return config


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput.at(path, None, "bytes that are not UTF-8", "UTF-8 text") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> BadInput:
    if isinstance(error, FileNotFoundError):
        return BadInput(f"{path}: no such file", hint=_AGAIN)
    return BadInput(f"{path}: could not read: {error.strerror}")


def _check_version(path: str | Path, line: int | None, data: Mapping[str, Any]) -> None:
    version = data.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise BadInput.at(
            path, line, f"schema_version {version!r}", f"{SCHEMA_VERSION}",
            hint="The run was written by another version of adhere; use that one, or run again.",
        )  # fmt: skip
