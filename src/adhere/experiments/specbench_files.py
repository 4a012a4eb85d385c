"""A run's answers and verdicts in the files of the official SpecBench code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adhere.errors import BadInput
from adhere.experiments.pairing import Run
from adhere.records.run_folder import write_atomic
from adhere.suites.specbench_export import by_arm, official_files


def write_specbench_files(run: Path, out: Path) -> list[Path]:
    """Write `out/MODEL/SCENARIO/METHOD/` for each arm of a run; return those folders.

    A further repeat has `-2`, `-3` behind the method's name. Raises BadInput.
    """
    read = Run(run)
    settings = read.summary["settings"]
    alpha = float(settings["alpha"])
    judge = str((settings.get("judge_facts") or {}).get("model") or settings["judge"])
    rows = [row for arm in read.arms.values() for row in arm]
    folders: dict[Path, tuple[str, str, str, int]] = {}
    files: dict[Path, dict[str, Any]] = {}
    for arm, of_arm in by_arm(rows).items():
        model, suite, method, repeat = arm
        name = method if repeat == 0 else f"{method}-{repeat + 1}"
        folder = out / _safe(model) / _safe(suite) / _safe(name)
        # Upper and lower case are one on some systems.
        if other := next((at for at in folders if _same(at, folder)), None):
            raise BadInput(
                f"{folder}: {arm} and {folders[other]} would share this folder",
                hint="Give models and methods a `name` of letters and digits.",
            )
        folders[folder] = arm
        files[folder] = official_files(of_arm, read.spec, judge, alpha=alpha)
    for folder, made in files.items():  # all mistakes are found before anything is written
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder}: cannot be made ({error.strerror})") from None
        for file, data in made.items():
            write_atomic(folder / file, json.dumps(data, ensure_ascii=True, indent=1) + "\n")
    return list(files)


def _same(a: Path, b: Path) -> bool:
    return str(a).casefold() == str(b).casefold()


def _safe(name: str) -> str:
    """A folder's name: nothing in it can lead out of where it stands."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "unnamed"
