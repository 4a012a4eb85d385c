"""`adhere compare`: two runs, paired prompt by prompt, and gates on what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adhere.cli.outputs import check_output, is_stdout, write_output
from adhere.errors import EXIT_DONE, EXIT_GATE, BadInput
from adhere.experiments.comparison import Comparison, compare_runs
from adhere.experiments.gate import GateResult, check_gates, parse_gate
from adhere.experiments.gate_report import to_junit, to_markdown, verdict
from adhere.experiments.metrics import Estimate


def compare(
    run_a: Annotated[Path, Parameter(help="the run to compare with")],
    run_b: Annotated[Path, Parameter(help="the run to compare")],
    *,
    fail_if: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="a gate: MEASURE < NUMBER or MEASURE > NUMBER, optionally `for METHOD`. Measures: "
            "sar, safety, behavioral, rule:ID, refused, empty, tokens, cost. May be repeated",
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="write tables for a pull request here (- is standard output)",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="write the gates as JUnit XML here (- is standard output)",
        ),
    ] = None,
    prices: Annotated[Path | None, Parameter(help="a price file, for gates on cost")] = None,
    gap_to: Annotated[
        Path | None,
        Parameter(
            help="a third run, of what is aimed at: say which share of the gap between the first "
            "run and this one the second run closed, and nothing else"
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        Parameter(
            help="a third run, of the teacher: show teacher, student (the second run) and base "
            "(the first) in one table with the alignment gap, and no other comparison"
        ),
    ] = None,
    html: Annotated[
        Path | None, Parameter(help="with --teacher: write that table as a page here")
    ] = None,
    json: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="with --teacher: write its numbers here (- is standard output)",
        ),
    ] = None,
    quiet: Annotated[
        bool, Parameter(negative=(), help="print only the gates that did not pass")
    ] = False,
) -> int:
    """Compare two runs, paired prompt by prompt: what B has more (or less) than A.

    Methods are matched by their name, and by model when a run has several. An interval that
    holds zero is no difference that these prompts can show.

    A gate (--fail-if) passes only when the whole 95% interval of the difference lies on the good
    side of the number. Exit code 0: all gates passed; 1: one failed or could not be decided.

    For example:
      adhere compare runs/baseline runs/new --fail-if 'sar < -0.02' --fail-if 'refused > 0.05'
      adhere compare runs/baseline runs/new --fail-if 'safety < -0.01 for align3' --junit gate.xml
      adhere compare runs/before runs/trained --gap-to runs/stronger
      adhere compare runs/base runs/student --teacher runs/teacher --html gap.html
    """
    others = {
        "--fail-if": fail_if,
        "--markdown": markdown,
        "--junit": junit,
        "--prices": prices,
        "--quiet": quiet,
    }
    beside = [name for name, given in others.items() if given]
    if teacher is not None:
        wrong = [name for name in beside if name != "--markdown"]
        if gap_to is not None or wrong:
            other = "--gap-to" if gap_to is not None else wrong[0]
            raise BadInput(
                f"--teacher: found {other} beside it; expected --markdown, --html or --json alone"
            )
        from adhere.cli.alignment_table import show_alignment

        show_alignment(run_a, run_b, teacher, markdown=markdown, html=html, json_file=json)
        return EXIT_DONE
    if html is not None or json is not None:
        name = "--html" if html is not None else "--json"
        raise BadInput(f"{name}: found no --teacher beside it; expected one")
    if gap_to is not None:
        return _gap(run_a, run_b, gap_to, beside)
    gates = [parse_gate(text) for text in fail_if or ()]
    _check_outputs(markdown, junit, gates=bool(gates))
    price = None
    if prices is not None:
        from adhere.experiments.pricing import read_prices

        price = read_prices(prices).cost
    elif any(gate.measure.name == "cost" for gate in gates):
        raise BadInput(
            "--fail-if: found a gate on cost without prices",
            hint="Give a price file with --prices, or gate on tokens.",
        )
    found = compare_runs(run_a, run_b)
    results = check_gates(gates, found.pairing, price=price)
    names = str(run_a), str(run_b)
    if markdown is not None:
        write_output(markdown, to_markdown(found, results, names))
    if junit is not None:
        write_output(junit, to_junit(found, results, names))
    taken = quiet or any(is_stdout(path) for path in (markdown, junit))
    if not taken:
        _show(found, names)
    # Standard output may be a file for another program; then people read the other stream.
    _show_gates(results, Console(stderr=taken, highlight=False, emoji=False), passed_too=not quiet)
    return EXIT_DONE if all(r.passed for r in results) else EXIT_GATE


def _gap(before: Path, after: Path, target: Path, others: list[str]) -> int:
    """Print the share of the gap that was closed, a line for each suite and method."""
    if others:
        raise BadInput(f"--gap-to: found {others[0]} beside it; expected it alone")
    from adhere.experiments.gap_runs import gaps_of_runs

    console = Console(highlight=False, emoji=False)
    for line in gaps_of_runs(before, after, target):
        console.print(f"{line.suite}, {line.method}:", markup=False, soft_wrap=True)
        console.print(f"  {line.found}", markup=False, soft_wrap=True)
    return EXIT_DONE


def _check_outputs(markdown: Path | None, junit: Path | None, *, gates: bool) -> None:
    check_output("--markdown", markdown)
    check_output("--junit", junit)
    if junit is not None and not gates:
        raise BadInput("--junit: found no gate to write", hint="Give one with --fail-if.")
    if is_stdout(markdown) and is_stdout(junit):
        raise BadInput(
            "--markdown and --junit both go to standard output", hint="Give one of them a file."
        )


def _show(found: Comparison, names: tuple[str, str]) -> None:
    console = Console(highlight=False, emoji=False)
    title = f"B minus A, 95% intervals\nA = {escape(names[0])}\nB = {escape(names[1])}"
    table = Table(title=title, title_justify="left")
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
        if one.moved:
            console.print(f"\nRules that moved with {escape(one.name)}:")
            for rule, x, y, n in one.moved:
                console.print(f"  {escape(rule):<28} {x:4.0%} to {y:4.0%} followed  (n={n})")
    for note in found.notes:
        console.print(f"\nNote: {note}", markup=False)


def _show_gates(results: tuple[GateResult, ...], console: Console, *, passed_too: bool) -> None:
    shown = [r for r in results if passed_too or not r.passed]
    if not shown:
        return
    console.print()
    for result in shown:
        lines = [f"Gate {result.result.value}: {result.gate.text}  ({result.arm})", result.reason]
        if result.warning:
            lines.append(f"Warning: {result.warning}")
        console.print("\n  ".join(lines), markup=False, soft_wrap=True)
    console.print(verdict(results), markup=False, soft_wrap=True)


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return "\N{EN DASH}"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]".replace("[", "\\[")
