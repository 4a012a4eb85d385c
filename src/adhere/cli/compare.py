"""`adhere compare`: two runs, paired prompt by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adhere.experiments.comparison import compare_runs
from adhere.experiments.metrics import Estimate


def compare(
    run_a: Annotated[Path, Parameter(help="the run to compare with")],
    run_b: Annotated[Path, Parameter(help="the run to compare")],
) -> int:
    """Compare two runs, paired prompt by prompt: what B has more (or less) than A.

    Methods are matched by their name, and by model when a run has several. An interval that
    holds zero is no difference that these prompts can show.
    """
    found = compare_runs(run_a, run_b)
    console = Console(highlight=False)
    table = Table(title=f"B minus A, 95% intervals\nA = {run_a}\nB = {run_b}", title_justify="left")
    for heading in ("method", "paired prompts", "safety", "behavioral", "SAR"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for one in found.differences:
        table.add_row(
            escape(one.name),
            str(one.n_paired),
            *(_signed(e) for e in (one.safety, one.behavioral, one.sar)),
        )
    console.print(table)
    for one in found.differences:
        moved = {r: (x, y, n) for r, (x, y, n) in one.rules.items() if x != y}
        if moved:
            console.print(f"\nRules that moved with {escape(one.name)}:")
            for rule, (x, y, n) in sorted(moved.items(), key=lambda item: item[1][0] - item[1][1]):
                console.print(f"  {escape(rule):<28} {x:4.0%} to {y:4.0%} followed  (n={n})")
    for note in found.notes:
        console.print(f"\nNote: {note}", markup=False)
    return 0


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return "\N{EN DASH}"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]".replace("[", "\\[")
