"""The report of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from adhere.errors import disk_error
from adhere.reporting.inputs import check_summary, read_run
from adhere.reporting.page import LADDER, MAX_BYTES, Figures, figures, page
from adhere.reporting.teaching import Choice, choose, pick_up

REPORT_NAME = "report.html"


def write_report(run_folder: Path) -> Path:
    """Read a run folder and write its `report.html` beside the data; returns the path.

    The file appears whole or not at all. Raises BadInput that names the file when something is
    missing or broken, and the disk's error when it cannot be written.
    """
    run_folder = Path(run_folder)
    summary, rows, config = read_run(run_folder)
    html = render_report(summary, rows, config)
    target = run_folder / REPORT_NAME
    # The process id keeps two reports of one run from writing into each other's draft.
    draft = run_folder / f".{REPORT_NAME}.{os.getpid()}.tmp"
    try:
        with draft.open("wb") as out:
            out.write(html.encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise disk_error(error, target) from error
    return target


def render_report(
    summary: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    run_config: Mapping[str, Any],
) -> str:
    """The page as text: at most `MAX_BYTES` in UTF-8, equal bytes for equal input.

    `rows` are read at least twice; an iterator is kept as a list. What does not fit is cut step
    by step, long texts first, then rows, and the page says so wherever it happened.
    """
    check_summary(summary)
    if iter(rows) is rows:
        rows = list(rows)
    seed = (summary.get("settings") or {}).get("seed", 0)

    @cache
    def chosen(limit: int) -> tuple[Choice, dict[int, Any]]:
        choice = choose(rows, seed=seed, limit=limit)
        return choice, pick_up(rows, choice.places)

    @cache
    def drawn(limit: int, suites: int) -> Figures:
        return figures(summary, limit, suites)

    html = ""
    for limits in LADDER:
        plots = drawn(limits.lines, limits.suites)
        html = page(summary, run_config, *chosen(limits.answers), plots, limits)
        if len(html.encode("utf-8")) <= MAX_BYTES:
            break
    return html
