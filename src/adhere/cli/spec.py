"""`adhere spec check` and `adhere spec diff`: read spec files, and say what is in them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from adhere.errors import BadInput

if TYPE_CHECKING:
    from adhere.spec import Specification

app = App(name="spec", help="Check, convert and compare spec files.")


@app.command
def check(
    *files: Annotated[Path, Parameter(help="Spec files, or folders of SpecBench scenarios.")],
    to: Annotated[
        Literal["markdown", "yaml", "specbench"] | None,
        Parameter(help="Print the spec in this format instead."),
    ] = None,
    text: Annotated[
        Path | None, Parameter(help="A file with a response, to run the spec's checks on.")
    ] = None,
    response: Annotated[
        str | None, Parameter(help="A response as text, to run the spec's checks on.")
    ] = None,
    prompt: Annotated[str, Parameter(help="The prompt that the response answers.")] = "",
) -> None:
    """Read spec files: their rules, who decides each, and what is likely to be wrong."""
    from adhere.spec import load_spec
    from adhere.spec.formats import read_text

    if not files:
        raise BadInput("no spec file given", hint="Example: adhere spec check spec.md")
    if text is not None and response is not None:
        raise BadInput("--text and --response both give a response", hint="Leave one out.")
    if to is not None and (len(files) > 1 or text is not None or response is not None):
        raise BadInput("--to converts one spec and does nothing else", hint="Give one file.")
    if text is not None:
        response = read_text(text)
    bad: list[BadInput] = []
    for number, file in enumerate(files):
        try:
            spec = load_spec(file)
        except BadInput as error:
            bad.append(error)
            continue
        if to is not None:
            _convert(spec, to)
            continue
        sys.stdout.write("\n" if number else "")
        sys.stdout.write("\n".join(_overview(file, spec)) + "\n")
        rows = _rules(spec) if response is None else _marks(spec, response, prompt)
        sys.stdout.write("\n" + _aligned(rows) + "\n")
    if len(bad) == 1:
        raise bad[0]
    if bad:
        raise BadInput("\n\n".join(map(str, bad)))


@app.command
def diff(before: Path, after: Path, /) -> None:
    """Show what changed from one spec to another.

    Parameters
    ----------
    before
        The older spec file.
    after
        The newer spec file.
    """
    from adhere.spec import diff_specs, load_spec

    lines = diff_specs(load_spec(before), load_spec(after)).lines()
    sys.stdout.write("\n".join(lines or ["no difference"]) + "\n")


def _convert(spec: Specification, to: Literal["markdown", "yaml", "specbench"]) -> None:
    """Print a spec in a format; what the format cannot hold is said on standard error."""
    from adhere.spec import specbench_losses, write_markdown, write_specbench, write_yaml

    write = {"markdown": write_markdown, "yaml": write_yaml, "specbench": write_specbench}[to]
    sys.stdout.write(write(spec))
    losses = specbench_losses(spec) if to == "specbench" else ()
    if losses:
        sys.stderr.write(f"left out, SpecBench has no place for: {', '.join(losses)}\n")


def _overview(file: Path, spec: Specification) -> list[str]:
    """Name, version, counts and warnings."""
    from adhere.spec.review import warnings

    decided = sum(rule.check is not None for rule in spec.rules)
    count = len(spec.rules)
    return [
        f"{file}: {spec.name}, version {spec.version}",
        f"{count} {'rule' if count == 1 else 'rules'}: {len(spec.safety)} safety, "
        f"{len(spec.behavioral)} behavioral; "
        f"{decided} decided by a check, {count - decided} by a judge",
        *(f"warning: {warning}" for warning in warnings(spec)),
    ]


def _rules(spec: Specification) -> list[tuple[str, ...]]:
    """A row for every rule: who decides it, and its text."""
    return [
        (rule.kind, rule.id, "check" if rule.check else "judge", rule.text) for rule in spec.rules
    ]


def _marks(spec: Specification, response: str, prompt: str) -> list[tuple[str, ...]]:
    """A row for every rule: its mark on the response, and why."""
    from adhere.chat import Unscored
    from adhere.spec import decide

    rows: list[tuple[str, ...]] = []
    for rule in spec.rules:
        result = decide(rule, response, prompt)
        if not isinstance(result, Unscored):
            rows.append((result.mark.value, rule.kind, rule.id, result.reason))
        else:
            rows.append(("unscored" if rule.check else "judge", rule.kind, rule.id, result.reason))
    return rows


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows as columns of equal width; the last one is left as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(w) for cell, w in zip(row[:-1], widths[:-1], strict=True)), row[-1]]
        )
        for row in rows
    )
