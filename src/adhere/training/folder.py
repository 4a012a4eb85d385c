"""A training is its folder.

    train.json        what it is (its identity) and, at the end, what came of it
    train.jsonl       a line per optimizer step and per look at the held-out pairs
    checkpoints/      what a resume starts from (`checkpoints.py`)
    model/            the adapter or model that is left (`saving.py`)

One training writes at a time (a lock on `.lock`, freed by the system when the process dies). A
start in a folder of another training is refused by the fields that differ. A line is on disk
before the checkpoint of its step is, and a resume cuts off the lines behind its checkpoint: each
step has one line, however often the training was killed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTaken

from adhere import __version__
from adhere.errors import BadInput, disk_error
from adhere.records.run_folder import dump_json, write_atomic
from adhere.training.plan import OPERATIONAL, TrainPlan
from adhere.training.steps import OF_PAIRS, StepLog

SCHEMA_VERSION = 1
RECORD_FILE = "train.json"
LOG_FILE = "train.jsonl"
CHECKPOINTS = "checkpoints"
MODEL = "model"
LOCK_FILE = ".lock"
# Settings that came later, with what all trainings before them had: a record without one has that.
_LATER: Mapping[str, Any] = {"template_kwargs": {}}
ROWS = "rows"  # the run that distilled the rows, where the training had it made
# What a new folder holds before its record.
_OWN = (LOCK_FILE, f".{RECORD_FILE}.tmp", ROWS)


class TrainFolder:
    """A training's folder, opened for writing. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Make the folder if need be and lock it. Raises BadInput, DiskFull."""
        self.path = path
        try:
            check_free(path)
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / LOCK_FILE, timeout=0)
            self._lock.acquire()
        except LockTaken:
            raise BadInput(
                f"{path}: another adhere process is training here",
                hint="Wait for it to end, or choose another folder with --out.",
            ) from None
        except ValueError:
            raise BadInput(f"--out: {str(path)!r:.100} is no path") from None
        except (FileExistsError, NotADirectoryError):
            raise BadInput(
                f"--out: {path} is, or lies under, a regular file; expected a folder",
                hint="Choose another folder with --out.",
            ) from None
        except OSError as error:
            raise disk_error(error, path) from None

    def __enter__(self) -> TrainFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    # ------------------------------------------------------------ what training it is

    def check(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Compare what is known of a training with the folder's record, which is returned.

        Fields that only one of the two has are let pass. Raises BadInput that names all others
        that differ.
        """
        record = self._read()
        if record is None:
            return None
        before, identity = {**_LATER, **record["identity"]}, {**_LATER, **identity}
        differing = [
            f"{name}: the training has {before[name]!r:.80}, this is {identity[name]!r:.80}"
            for name in identity
            if name in before and before[name] != identity[name]
        ]
        if differing:
            raise BadInput(
                f"{self.path} is a training with another identity:\n  " + "\n  ".join(differing),
                hint="Choose another folder with --out for the new training, or restore the old "
                "settings to go on.",
            )
        return record

    def claim(self, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Make the folder that of a training, or check that it is; the record."""
        record = self.check(identity)
        if record is None:
            record = {
                "schema_version": SCHEMA_VERSION,
                "adhere_version": __version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "identity": dict(identity),
            }
        self._write({**record, "facts": dict(facts)})
        return record

    def finish(self, result: Mapping[str, Any]) -> None:
        """Put down that the training is done, and what came of it."""
        self._write({**(self._read() or {}), "result": dict(result)})

    def _write(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=1, ensure_ascii=True, allow_nan=False)
        write_atomic(self.path / RECORD_FILE, text + "\n")

    def _read(self) -> dict[str, Any] | None:
        return read_record(self.path)

    # ------------------------------------------------------------ its lines

    def append(self, log: StepLog) -> None:
        """Put down a line, on disk before this returns. Raises DiskFull."""
        path = self.path / LOG_FILE
        line = dump_json(log.as_json()) + "\n"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, path) from None

    def cut_back(self, step: int | None) -> list[StepLog]:
        """Drop the lines behind a step, all with None, and any torn one; those that stay."""
        path = self.path / LOG_FILE
        kept = [] if step is None else [log for log in read_logs(path) if log.step <= step]
        write_atomic(path, "".join(dump_json(log.as_json()) + "\n" for log in kept))
        return kept


def read_record(path: Path) -> dict[str, Any] | None:
    """What a training's record says, None where there is none. Raises BadInput."""
    file = path / RECORD_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: cannot be read ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("identity"), dict):
        raise BadInput(f"{file}: is damaged; expected a record written by adhere")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise BadInput(
            f"{file}: found schema version {record.get('schema_version')!r:.40}; expected "
            f"{SCHEMA_VERSION}",
            hint="It was made by another version of adhere; choose another --out.",
        )
    return record


def read_logs(path: Path) -> list[StepLog]:
    """The lines of a train.jsonl, up to the first that is torn. None for a missing file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    return list(_logs(text))


def _logs(text: str) -> Iterator[StepLog]:
    names = {field.name for field in fields(StepLog)}
    for line in text.splitlines(keepends=True):
        try:
            told = json.loads(line)
            if not any(name in told for name in OF_PAIRS):
                told.update(dict.fromkeys(OF_PAIRS, math.nan))
            log = StepLog(**{name: told[name] for name in names})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if not line.endswith("\n"):
            return
        yield log


def check_free(path: Path) -> None:
    """Raises BadInput for a folder with files that are no training's."""
    if not path.is_dir() or (path / RECORD_FILE).exists():
        return
    if any(entry.name not in _OWN for entry in path.iterdir()):
        raise BadInput(
            f"--out: {path} holds other files and is no training's folder",
            hint="Choose a new or an empty folder with --out.",
        )


def identity_of(plan: TrainPlan, **found: Any) -> dict[str, Any]:
    """What makes a training this one: its settings that matter, and what they were found to mean.

    Not where files lie: the rows and the base are here by their digests.
    """
    settings = plan.model_dump(mode="json")
    return {
        **{
            name: value
            for name, value in settings.items()
            if name not in OPERATIONAL and (name not in _LATER or value != _LATER[name])
        },
        **json.loads(json.dumps(found)),
    }
