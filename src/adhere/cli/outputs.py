"""Files that a command writes where the user says; `-` is standard output."""

from __future__ import annotations

import sys
from pathlib import Path

from adhere.errors import BadInput
from adhere.records.run_folder import write_atomic


def is_stdout(path: Path | None) -> bool:
    """True for `-`."""
    return path is not None and str(path) == "-"


def check_output(option: str, path: Path | None) -> None:
    """Raise BadInput, before any work, where a file could not be written."""
    if path is None or is_stdout(path):
        return
    if str(path).startswith("-"):
        raise BadInput(f"{option}: found {str(path)!r}; expected a file, or - alone")
    if path.is_dir() or not path.parent.is_dir():
        wrong = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise BadInput(f"{option}: {path} {wrong}; expected a file in a folder that is there")


def write_output(path: Path, text: str) -> None:
    """Write a whole file or nothing, or to standard output. Raises DiskFull or BadInput."""
    if is_stdout(path):
        sys.stdout.write(text)
    else:
        write_atomic(path, text)
