"""The table of `adhere compare --teacher`: teacher, student and base, and the gaps between them."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adhere.cli.console import wide_console
from adhere.cli.outputs import check_output, is_stdout, write_output
from adhere.errors import BadInput
from adhere.experiments.alignment_gap import AlignmentGap, AlignmentLine, alignment_gaps
from adhere.experiments.alignment_report import closed, to_facts, to_markdown, to_page
from adhere.experiments.metrics import Estimate

_DASH = "\N{EN DASH}"
_WIDE = 170


def show_alignment(
    base: Path,
    student: Path,
    teacher: Path,
    *,
    markdown: Path | None = None,
    html: Path | None = None,
    json_file: Path | None = None,
) -> None:
    """Print a table for each suite that all three runs have; write files. Raises BadInput."""
    files = {"--markdown": markdown, "--html": html, "--json": json_file}
    for option, path in files.items():
        check_output(option, path)
    streams = [option for option, path in files.items() if is_stdout(path)]
    if len(streams) > 1:
        raise BadInput(
            f"{' and '.join(streams)} all go to standard output", hint="Give all but one a file."
        )
    found = alignment_gaps(base, student, teacher)
    if markdown is not None:
        write_output(markdown, to_markdown(found))
    if html is not None:
        write_output(html, to_page(found, [str(base), str(student), str(teacher)]))
    if json_file is not None:
        write_output(json_file, json.dumps(to_facts(found), indent=1) + "\n")
    if not streams:
        console = _console()
        for one in found:
            _show(one, console)


def _console() -> Console:
    """As wide as the table needs where it is no terminal: a log must not lose its numbers."""
    console = wide_console()
    if not console.is_terminal:
        console.width = _WIDE
    return console


def _show(found: AlignmentGap, console: Console) -> None:
    title = (
        f"{escape(found.suite)}: shares with 95% intervals; gap = teacher's SAR minus this one's"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("", "arm", "scored", "safety", "behavioral", "SAR", "refused", "gap (cases)"):
        left = heading in ("", "arm")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for line in found.lines:
        table.add_row(
            line.role,
            escape(f"{line.method} on {line.model}"),
            f"{line.scored} of {line.rows}",
            *(
                escape(_told(e, ".2f"))
                for e in (line.safety, line.behavioral, line.sar, line.refused)
            ),
            escape(_gap(line)),
        )
    console.print(table)
    for text in closed(found):
        console.print(text, markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)


def _gap(line: AlignmentLine) -> str:
    if line.gap.value is None:
        return _DASH
    return f"{_told(line.gap, '+.2f')} ({line.n_paired})"


def _told(estimate: Estimate, form: str) -> str:
    value, low, high = estimate
    if value is None or low is None or high is None:
        return _DASH
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
