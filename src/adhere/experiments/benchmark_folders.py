"""The folder of a benchmark: what it may hold, how its parts' folders are named, and its file.

Names of parts come from suites, which a package or a data set may bring, so they are looked at
before they become paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from adhere.errors import BadInput
from adhere.records.run_folder import RUN_FILE, is_foreign
from adhere.suites import Suite

BENCHMARK_FILE = "benchmark.json"
_NAME = re.compile(r"\w[\w .-]*")
_TAKEN = (BENCHMARK_FILE, "report.html")
_DRAFT = f".{BENCHMARK_FILE}.tmp"  # left by a kill while the first one was written


class Known(NamedTuple):
    """What a benchmark's file says of itself: its name, its seed, and the folder of each part."""

    name: str
    seed: int
    folders: dict[str, Path]


def read_benchmark(folder: Path) -> Known:
    """Read which parts a benchmark has. Raises BadInput, also for a part outside of its folder."""
    file = folder / BENCHMARK_FILE
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        folders = {str(p["name"]): folder / _checked(str(p["folder"])) for p in known["parts"]}
        return Known(str(known["name"]), int(known["seed"]), folders)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(
            f"{file}: cannot be read; expected what `adhere eval` wrote",
            hint="Run the same `adhere eval` again: it writes the file anew.",
        ) from None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(name)
    return name


def check_part_name(name: str) -> None:
    """Refuse the name of a part that cannot be the name of its folder. Raises BadInput."""
    if not _NAME.fullmatch(name) or name.casefold() in _TAKEN:
        raise BadInput(
            f"suite part {name!r}: cannot be the name of a folder; expected letters, digits, "
            "spaces, dots and dashes, beginning with a letter or digit",
            hint="Rename the part in the suite's data.",
        )


def check_folders(out: Path, parts: Sequence[Suite]) -> None:
    """Refuse a folder that holds something else than this plan's run. Writes nothing.

    `parts`: as `read_parts` gives them; of two or more each gets a folder in `out`. Raises
    BadInput.
    """
    if len(parts) < 2:
        if (out / BENCHMARK_FILE).exists():
            raise BadInput(
                f"--out: {out} holds a benchmark of several parts",
                hint="Choose another folder with --out.",
            )
        _check_run_folder(out)
        return
    _check_names([part.name for part in parts])
    if (out / RUN_FILE).exists():
        raise BadInput(
            f"--out: {out} is a run of one part; this plan has {len(parts)}",
            hint="Choose another folder with --out.",
        )
    for part in parts:
        _check_run_folder(out / part.name)
    if (out / BENCHMARK_FILE).exists() or not out.is_dir():
        return
    if not all(_is_run(entry) or entry.name == _DRAFT for entry in out.iterdir()):
        raise _foreign_folder(out)


def _check_names(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        check_part_name(name)
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise BadInput(
                f"suite parts {other!r} and {name!r}: some systems would give both one folder",
                hint="Rename one of them in the suite's data.",
            )


def _check_run_folder(folder: Path) -> None:
    """As a run does when it opens its folder, but without making it."""
    if any(path.is_file() for path in (folder, *folder.parents)):
        raise BadInput(
            f"--out: {folder} is, or lies under, a regular file; expected a folder",
            hint="Choose another folder with --out.",
        )
    if folder.is_dir() and not _is_run(folder):
        raise _foreign_folder(folder)


def _is_run(folder: Path) -> bool:
    """Whether it is a run's folder, or one that a kill left before the run had its first record."""
    return folder.is_dir() and ((folder / RUN_FILE).exists() or not is_foreign(folder))


def _foreign_folder(folder: Path) -> BadInput:
    return BadInput(
        f"--out: {folder} holds other files and is no run folder",
        hint="Choose a new or an empty folder with --out.",
    )
