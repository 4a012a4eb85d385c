"""A comparison and its gates as Markdown for a pull request and as JUnit XML for a CI server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from adhere.experiments.comparison import Comparison
from adhere.experiments.differences import Measure
from adhere.experiments.gate import GateResult, Result, interval, signed
from adhere.experiments.metrics import Estimate
from adhere.reporting.formats import one_line

MAX_RULES = 50  # rows of the table of rules; a pull request is no place for more

# A name may hold anything, but must stay a name: no cell border, no tag, no link, no emphasis,
# and no mention of a person.
_MARKDOWN = str.maketrans(
    {**{c: f"\\{c}" for c in "\\|`*_[]~#"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}
)
# Everything but the characters that XML 1.0 allows (section 2.2).
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def verdict(results: Sequence[GateResult]) -> str:
    """One sentence over all gates."""
    if not results:
        return "No gate was set."
    if all(r.passed for r in results):
        return "The gate passed." if len(results) == 1 else f"All {len(results)} gates passed."
    counts = ((sum(r.result is kind for r in results), kind.value) for kind in Result)
    parts = ", ".join(f"{n} {name}" for n, name in counts if n)
    if len(results) == 1:
        return f"The gate did not pass: {parts.removeprefix('1 ')}."
    return f"Not all of {len(results)} gates passed: {parts}."


def to_markdown(
    comparison: Comparison, results: Sequence[GateResult], names: tuple[str, str]
) -> str:
    """Gates, differences, rules that moved and notes. `names` are those of run A and run B."""
    a, b = (cell(name) for name in names)
    lines = [
        f"## adhere: {verdict(results)}",
        "",
        f"Differences are B minus A, paired by prompt, with 95% intervals. A = {a}, B = {b}.",
        "",
    ]
    if results:
        lines += markdown_table(
            ("Gate fails if", "Method", "Result", "Difference", "Prompts", "Why"),
            "lllrrl",
            (
                (
                    r.gate.text,
                    r.arm,
                    r.result.value,
                    _spread(r.estimate, r.gate.measure),
                    f"{r.n_paired:,}",
                    r.reason + (f". Warning: {r.warning}" if r.warning else ""),
                )
                for r in results
            ),
        )
    lines += markdown_table(
        ("Method", "Paired prompts", "Safety", "Behavioral", "SAR"),
        "lrrrr",
        (
            (
                d.name,
                f"{d.n_paired:,}",
                *(
                    _spread(e, Measure(m))
                    for m, e in (("safety", d.safety), ("behavioral", d.behavioral), ("sar", d.sar))
                ),
            )
            for d in comparison.differences
        ),
    )
    moved = [(d.name, *rule) for d in comparison.differences for rule in d.moved]
    if moved:
        lines += ["### Rules that moved", ""]
        lines += markdown_table(
            ("Method", "Rule", "Followed in A", "Followed in B", "Prompts"),
            "llrrr",
            (
                (name, rule, f"{x:.0%}", f"{y:.0%}", f"{n:,}")
                for name, rule, x, y, n in moved[:MAX_RULES]
            ),
        )
        if len(moved) > MAX_RULES:
            lines += [f"Showing {MAX_RULES} of {len(moved):,} rules that moved.", ""]
    lines += [f"- {cell(note, 400)}" for note in comparison.notes]
    return "\n".join(lines).rstrip() + "\n"


def to_junit(comparison: Comparison, results: Sequence[GateResult], names: tuple[str, str]) -> str:
    """One suite an arm, one case a gate; a gate that is inconclusive is a failure of that type."""
    root = ET.Element("testsuites", _counts(results, name="adhere compare"))
    for difference in comparison.differences:
        of_arm = [r for r in results if r.arm == difference.name]
        if not of_arm:
            continue
        suite = ET.SubElement(root, "testsuite", _counts(of_arm, name=difference.name))
        properties = ET.SubElement(suite, "properties")
        for key, name in zip(("A", "B"), names, strict=True):
            ET.SubElement(properties, "property", {"name": key, "value": _xml(name)})
        for result in of_arm:
            case = ET.SubElement(
                suite,
                "testcase",
                {"name": _xml(result.gate.text), "classname": _xml(difference.name), "time": "0"},
            )
            text = _xml(result.reason)
            if not result.passed:
                failure = {"type": result.result.value, "message": text}
                ET.SubElement(case, "failure", failure).text = text
            if result.warning:
                ET.SubElement(case, "system-out").text = _xml(f"Warning: {result.warning}")
        # Rules are told, not counted as cases: a rule that fell would stand there as passed.
        told = [
            f"{rule}: {x:.0%} to {y:.0%} followed (n={n})" for rule, x, y, n in difference.moved
        ]
        if told := [*told, *comparison.notes]:
            ET.SubElement(suite, "system-out").text = _xml("\n".join(told))
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _counts(results: Sequence[GateResult], *, name: str) -> dict[str, str]:
    failures = sum(not r.passed for r in results)
    return {
        "name": _xml(name),
        "tests": str(len(results)),
        "failures": str(failures),
        "errors": "0",
        "skipped": "0",
        "time": "0",
    }


def _spread(estimate: Estimate, measure: Measure) -> str:
    return f"{signed(estimate.value, measure)} {interval(estimate, measure)}".rstrip()


def markdown_table(titles: Sequence[str], aligns: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in lines, its cells escaped; `aligns`: l or r for each column."""
    lines = [titles, [{"l": "---", "r": "---:"}[a] for a in aligns]]
    lines += [[cell(text, 400) for text in row] for row in rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def cell(text: str, limit: int = 200) -> str:
    """A text that stays one cell of a table, whatever it holds."""
    return one_line(text, limit).translate(_MARKDOWN)


def _xml(text: str) -> str:
    """The text with what XML 1.0 forbids replaced."""
    return _NO_XML.sub("\ufffd", text)
