"""`adhere report`: write a run's report again and print its table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from adhere.cli.console import wide_console
from adhere.reporting import headline, summary_table, to_markdown, to_rich, write_report
from adhere.reporting.inputs import read_run


def report(
    run: Annotated[Path, Parameter(help="a run's folder")],
    *,
    format: Annotated[
        Literal["table", "markdown"], Parameter(help="how to print the table")
    ] = "table",
    subset: Annotated[str, Parameter(help="all, unsafe or safe")] = "all",
    all_rows: Annotated[
        bool, Parameter(negative=(), help="put every row on the page, whatever its size")
    ] = False,
    parquet: Annotated[
        Path | None, Parameter(help="also write all rows to this Parquet file")
    ] = None,
    inspect: Annotated[
        Path | None,
        Parameter(
            help="also write the run as Inspect logs, one a method, into this folder (or one "
            ".eval or .json file, where the run has one method)"
        ),
    ] = None,
) -> int:
    """Write a run's report.html again and print its table. Samples and judges nothing."""
    summary, _, _ = read_run(run)
    found = summary_table(summary, subset)
    written = [("Report", write_report(run, all_rows=all_rows))]
    if parquet is not None:
        from adhere.reporting.exports import write_parquet

        write_parquet(run, parquet)
        written.append(("Parquet", parquet))
    if inspect is not None:
        from adhere.reporting.exports import write_inspect_log

        written += [("Inspect log", path) for path in write_inspect_log(run, inspect)]
    lines = [f"{what}: {path} ({_size(path)})" for what, path in written]
    if format == "markdown":
        sys.stdout.write(to_markdown(found))
        sys.stderr.writelines(f"{line}\n" for line in lines)
        return 0
    console = wide_console()
    console.print(to_rich(found, console.width))
    console.print()
    for line in (headline(summary), *lines):
        console.print(line, highlight=False, markup=False, soft_wrap=line in lines)
    return 0


def _size(path: Path) -> str:
    """The size of a file, in megabytes from one on."""
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{max(round(size / 1e3), 1)} kB"
