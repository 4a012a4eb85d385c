"""Gates on a comparison: `sar < -0.02` fails a release whose SAR may have fallen by more than 0.02.

A gate is a non-inferiority test (a superiority test where its margin asks for a gain): it passes
only when the 95% interval of the paired difference B minus A lies wholly on the good side of the
margin, which is a one-sided test at 2.5%. An interval that holds the margin decides nothing, and
a gate that decides nothing does not pass. Where all of several gates must pass, no correction for
their number is needed: each one alone can only make the whole stricter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from adhere.errors import BadInput
from adhere.experiments.differences import (
    AMOUNTS,
    RATES,
    Measure,
    Price,
    column,
    lacking,
    no_number,
)
from adhere.experiments.metrics import Estimate
from adhere.experiments.pairing import Pair, Pairing
from adhere.reporting.formats import MINUS

_EPSILON = 1e-12
_FORM = re.compile(
    r"\s*(?P<measure>[^\s<>=!]+)\s*(?P<operator>[<>=!]+)\s*(?P<number>\S+)"
    r"(?:\s+for\s+(?P<method>\S.*?))?\s*"
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_EXAMPLE = "Example: --fail-if 'sar < -0.02', or 'rule:ID < -0.05 for METHOD'."


class Result(StrEnum):
    """How a gate ended. Only PASSED passes."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Gate:
    """Fails when the difference of `measure` is below (`above`: above) the margin.

    `method` limits it to one method; empty is every method that both runs have.
    """

    text: str
    measure: Measure
    above: bool
    margin: float
    method: str = ""

    def judge(self, estimate: Estimate) -> Result:
        """Passed, failed, or inconclusive when the interval holds the margin or there is none."""
        if estimate.low is None or estimate.high is None:
            return Result.INCONCLUSIVE
        if self.above:
            good = estimate.high <= self.margin + _EPSILON
            bad = estimate.low > self.margin + _EPSILON
        else:
            good = estimate.low >= self.margin - _EPSILON
            bad = estimate.high < self.margin - _EPSILON
        return Result.PASSED if good else Result.FAILED if bad else Result.INCONCLUSIVE


@dataclass(frozen=True)
class GateResult:
    """One gate on one arm. `reason` says in words why; `warning` what could turn it around."""

    gate: Gate
    arm: str
    result: Result
    estimate: Estimate
    n_paired: int
    needed: int | None
    reason: str
    warning: str = ""

    @property
    def passed(self) -> bool:
        """True only for a gate that was decided, and well."""
        return self.result is Result.PASSED


def parse_gate(text: str) -> Gate:
    """Read `MEASURE < NUMBER` or `MEASURE > NUMBER`, optionally `for METHOD`. Raises BadInput."""
    match = _FORM.fullmatch(text.replace(MINUS, "-"))
    if match is None:
        raise _bad(text, "MEASURE < NUMBER or MEASURE > NUMBER", _EXAMPLE)
    measure = _measure(text, match["measure"])
    if match["operator"] not in ("<", ">"):
        raise _bad(text, f"< or > instead of {match['operator']}", _EXAMPLE)
    if not _NUMBER.fullmatch(match["number"]):
        hint = "Write two percentage points as 0.02." if match["number"].endswith("%") else _EXAMPLE
        raise _bad(text, f"a number instead of {match['number']!r}", hint)
    margin = float(match["number"])
    if measure.is_rate and abs(margin) >= 1:
        raise _bad(
            text,
            f"a difference of two rates, between -1 and 1, instead of {match['number']}",
            "Write two percentage points as 0.02.",
        )
    return Gate(
        " ".join(text.split()), measure, match["operator"] == ">", margin, match["method"] or ""
    )


def check_gates(
    gates: Sequence[Gate], pairing: Pairing, *, price: Price | None = None
) -> tuple[GateResult, ...]:
    """Every gate on every arm that it is for. Raises BadInput for an unknown rule or method."""
    return tuple(
        _check(gate, pair, pairing, price) for gate in gates for pair in _pairs_for(gate, pairing)
    )


def _measure(text: str, name: str) -> Measure:
    head, colon, rule = name.partition(":")
    if colon and head == "rule" and rule:
        return Measure("rule", rule)
    known = (*RATES, *AMOUNTS)
    if name not in known:
        near = get_close_matches(name, [*known, "rule:ID"], 1)
        hint = f"Did you mean {near[0]}?" if near else _EXAMPLE
        raise _bad(text, f"one of {', '.join(known)} or rule:ID instead of {name!r}", hint)
    return Measure(name)


def _bad(text: str, expected: str, hint: str) -> BadInput:
    return BadInput(f"--fail-if: found {text!r}; expected {expected}", hint=hint)


def _pairs_for(gate: Gate, pairing: Pairing) -> list[Pair]:
    rules = dict.fromkeys(rule.id for spec in pairing.specs for rule in spec.rules)
    rule = gate.measure.rule
    if rule and rule not in rules:
        near = get_close_matches(rule, rules, 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise _bad(gate.text, "a rule of the spec", f"{hint}Rules: {', '.join(rules)}")
    pairs = [p for p in pairing.pairs if gate.method in ("", p.method, p.name)]
    if not pairs:
        names = ", ".join(dict.fromkeys(p.method for p in pairing.pairs))
        raise _bad(gate.text, "a method that both runs have", f"Methods: {names}")
    return pairs


def _check(gate: Gate, pair: Pair, pairing: Pairing, price: Price | None) -> GateResult:
    found = column(gate.measure, pair, pairing, price=price)
    estimate = found.estimate(pairing.seed)
    n = len(found.values)
    result = gate.judge(estimate)
    needed = None
    if estimate.value is None:
        why = no_number(gate.measure, pairing) or "no prompt has a value in both runs"
        reason = f"{why}; a gate without a number does not pass"
    else:
        inside = f"the 95% interval {interval(estimate, gate.measure)} over {_prompts(n)}"
        margin, side = f"{gate.margin:g}", "above" if gate.above else "below"
        if result is Result.PASSED:
            reason = f"{inside} does not go {side} {margin}"
        elif result is Result.FAILED:
            reason = f"{inside} lies wholly {side} {margin}"
        else:
            needed = found.needed(estimate, gate.margin)
            reason = f"{inside} holds {margin}, so they cannot decide; " + (
                f"about {needed:,} prompts could, if the difference stays what it is"
                if needed
                else "the difference lies on the margin, so no number of prompts would"
            )
    warning = _warning(gate, pair, pairing, result)
    return GateResult(gate, pair.name, result, estimate, n, needed, reason, warning)


def _warning(gate: Gate, pair: Pair, pairing: Pairing, result: Result) -> str:
    """What a pass does not cover: prompts that B was not asked; rows without a value, at worst."""
    if result is Result.PASSED and pair.lost:
        return (
            f"{pair.lost} prompts of A were not asked in B, or not in these words; what B would "
            "have answered to them is not known"
        )
    missing = lacking(gate.measure, pair)
    if result is not Result.PASSED or not missing:
        return ""
    # The worst of B, beside the best of A.
    worst = column(gate.measure, pair, pairing, worst=(0.0, 1.0) if gate.above else (1.0, 0.0))
    estimate = worst.estimate(pairing.seed)
    turned = gate.judge(estimate)
    if turned is Result.PASSED:
        return ""
    rows = "1 row has" if missing == 1 else f"{missing:,} rows have"
    return (
        f"{rows} no verdict; at worst the difference is {interval(estimate, gate.measure)} "
        f"and the gate {'fails' if turned is Result.FAILED else 'is inconclusive'}"
    )


def signed(value: float | None, measure: Measure) -> str:
    """`+0.012` for rates, `+4.5` for tokens, three figures for money; a dash for no number."""
    if value is None:
        return "\N{EN DASH}"
    if measure.is_rate:
        return f"{value:+.3f}"
    return f"{value:+,.1f}" if measure.name == "tokens" else f"{value:+.3g}"


def interval(estimate: Estimate, measure: Measure) -> str:
    """`[-0.020, +0.031]`, or nothing without one."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{signed(estimate.low, measure)}, {signed(estimate.high, measure)}]"


def _prompts(n: int) -> str:
    return "1 prompt" if n == 1 else f"{n:,} prompts"
