"""`adhere report`: write a run's report again and print its table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from adhere.cli.console import wide_console
from adhere.reporting import summary_table, to_markdown, to_rich, write_report
from adhere.reporting.inputs import read_run


def report(
    run: Annotated[Path, Parameter(help="a run's folder")],
    *,
    format: Annotated[
        Literal["table", "markdown"], Parameter(help="how to print the table")
    ] = "table",
    subset: Annotated[str, Parameter(help="all, unsafe or safe")] = "all",
) -> int:
    """Write a run's report.html again and print its table. Samples and judges nothing."""
    summary, _, _ = read_run(run)
    found = summary_table(summary, subset)
    path = write_report(run)
    if format == "markdown":
        sys.stdout.write(to_markdown(found))
    else:
        console = wide_console()
        console.print(to_rich(found, console.width))
        console.print()
        console.print(summary["headline"], highlight=False)
        console.print(f"Report: {path}", highlight=False, soft_wrap=True)
    return 0
