"""The report of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adhere.errors import disk_error
from adhere.reporting.answers import case_views, weight
from adhere.reporting.inputs import check_summary, read_run
from adhere.reporting.page import (
    ANSWERS,
    MAX_BYTES,
    MOST_FOR_TABLES,
    NO_LIMITS,
    TABLES,
    WHOLE,
    figures,
    page,
)
from adhere.reporting.teaching import choose, choose_all, pick_up

REPORT_NAME = "report.html"


def write_report(run_folder: Path, all_rows: bool = False) -> Path:
    """Read a run folder and write its `report.html` beside the data; returns the path.

    With `all_rows` the page holds every row, whole, and may be of any size.
    The file appears whole or not at all. Raises BadInput that names the file when something is
    missing or broken, and the disk's error when it cannot be written.
    """
    run_folder = Path(run_folder)
    summary, rows, config = read_run(run_folder)
    html = render_report(summary, rows, config, all_rows=all_rows)
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
    *,
    all_rows: bool = False,
) -> str:
    """The page as text: at most `MAX_BYTES` in UTF-8, equal bytes for equal input.

    `all_rows` lifts the limit: every row with its whole texts, all held in memory at once.

    `rows` are read at least twice; an iterator is kept as a list. What does not fit is cut
    step by step, and the page says so wherever it happened: first tables that would fill the page
    alone, then steps and thoughts, then long texts of answers, then answers.
    """
    check_summary(summary)
    if iter(rows) is rows:
        rows = list(rows)
    seed = (summary.get("settings") or {}).get("seed", 0)
    if all_rows:
        choice = choose_all(rows, seed=seed)
        cases = case_views(pick_up(rows, choice.places), choice, summary, WHOLE)
        return page(summary, run_config, figures(summary, NO_LIMITS), NO_LIMITS, choice, cases)
    choice = choose(rows, seed=seed, limit=ANSWERS[0].answers)
    found = pick_up(rows, choice.places)

    bare = ""
    for limits in TABLES:
        drawn = figures(summary, limits)
        bare = page(summary, run_config, drawn, limits, choice.without_cases, ())
        if _size(bare) <= MOST_FOR_TABLES:
            break

    chosen_for = ANSWERS[0].answers
    for answers in ANSWERS:
        if answers.answers != chosen_for:
            chosen_for = answers.answers
            choice = choose(rows, seed=seed, limit=chosen_for)
            found = pick_up(rows, choice.places)
        cases = case_views(found, choice, summary, answers)
        if _size(bare) + weight(cases) > MAX_BYTES:
            continue  # too long before it is written out
        html = page(summary, run_config, drawn, limits, choice, cases)
        if _size(html) <= MAX_BYTES:
            return html
    return bare


def _size(html: str) -> int:
    return len(html.encode("utf-8"))
