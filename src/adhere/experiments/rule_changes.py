"""Which method fixes and which breaks each rule, against the baseline, answer by answer.

A pair is one case and repeat that both arms have scored. It counts for a rule where both marks say
that the rule applies; where only one does, the pair is counted apart (`na_changes`). Repeats of a
case are no further cases: a case enters with its rates over its repeats.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adhere.chat import Mark, Outcome
from adhere.experiments.metrics import LEVEL, NOTHING, Estimate
from adhere.spec import Specification

Row = Mapping[str, Any]
Pairs = Sequence[tuple[str, Mapping[str, str], Mapping[str, str]]]  # case, marks before and after
Rates = Mapping[tuple[float, float], int]  # a case's rates before and after, and how many have them

YES, NO, NA = Mark.YES.value, Mark.NO.value, Mark.NA.value
_APPLIES = frozenset((YES, NO))
_Z = 1.959963984540054  # the normal quantile of LEVEL, two-sided


def rule_changes(rows: Sequence[Row], spec: Specification, baseline: str) -> list[dict[str, Any]]:
    """One entry a suite, model, method (other than the baseline) and rule that both decided.

    `fixed` pairs went from NO to YES, `broken` ones from YES to NO; `before` and `after` are the
    rates of YES, `diff` is their difference with its 95% interval (`paired_interval`). `verdict`
    says `fixes` or `breaks` where the interval leaves out 0. `p` is the two-sided exact McNemar
    test (the sign test over cases, where they have repeats), `p_holm` the same adjusted for all
    tests of this list (Holm 1979), and `sure` says that the verdict stands after that.

    In the order of the rows and, within a method, of the spec; rules it does not have come last.
    """
    out = []
    known = {rule.id: place for place, rule in enumerate(spec.rules)}
    for names, pairs in _pairs(rows, baseline):
        repeated = len({case for case, _, _ in pairs}) < len(pairs)
        found = dict.fromkeys(rule for _, before, _ in pairs for rule in before)
        for rule in sorted(found, key=lambda r: known.get(r, len(known))):
            if changes := _changes(pairs, rule, repeated):
                out.append({**names, "baseline": baseline, "rule": rule, **changes})
    _adjust(out)
    return out


def _pairs(rows: Sequence[Row], baseline: str) -> Iterator[tuple[dict[str, str], Pairs]]:
    """Every arm that has a baseline, with its pairs in the order of cases and repeats."""
    arms: dict[tuple[str, str, str], dict[tuple[str, int], Mapping[str, str]]] = {}
    for row in rows:
        marks = arms.setdefault((row["suite"], row["model"], row["method"]), {})
        if row["outcome"] == Outcome.SCORED:
            marks[row["case"], row["repeat"]] = row["marks"]
    for (suite, model, method), ours in arms.items():
        base = arms.get((suite, model, baseline))
        if method == baseline or base is None:
            continue
        names = {"suite": suite, "model": model, "method": method}
        yield names, [(key[0], base[key], ours[key]) for key in sorted(ours.keys() & base.keys())]


def _changes(pairs: Pairs, rule: str, repeated: bool) -> dict[str, Any]:
    """The numbers of one rule, nothing where no pair has two marks of it."""
    marks = Counter((before.get(rule), after.get(rule)) for _, before, after in pairs)
    fixed, broken = marks[NO, YES], marks[YES, NO]
    n = marks[YES, YES] + fixed + broken + marks[NO, NO]
    appeared = marks[NA, YES] + marks[NA, NO]
    vanished = marks[YES, NA] + marks[NO, NA]
    if not n + appeared + vanished + marks[NA, NA]:
        return {}
    cases: Rates = {(a == YES, b == YES): marks[a, b] for a in (YES, NO) for b in (YES, NO)}
    if repeated:
        cases = _rates(pairs, rule)
    n_cases = sum(cases.values())
    difference = paired_interval(cases, n)
    verdict, p = "", None
    if difference.low is not None and difference.high is not None:
        verdict = "fixes" if difference.low > 0 else "breaks" if difference.high < 0 else ""
        up = sum(count for (before, after), count in cases.items() if after > before)
        down = sum(count for (before, after), count in cases.items() if after < before)
        p = sign_test(up, down)
    return {
        "n_paired": n,
        "n_cases": n_cases,
        "fixed": fixed,
        "broken": broken,
        "na_changes": appeared + vanished,
        "applied_before": n + vanished,  # the pairs to which it applied in this arm
        "applied_after": n + appeared,
        "before": sum(b * count for (b, _), count in cases.items()) / n_cases if n else None,
        "after": sum(a * count for (_, a), count in cases.items()) / n_cases if n else None,
        "diff": difference.value,
        "diff_low": difference.low,
        "diff_high": difference.high,
        "p": p,
        "verdict": verdict,
    }


def _rates(pairs: Pairs, rule: str) -> Rates:
    """The rates of each case, over its repeats in which the rule applies to both."""
    marks: dict[str, list[int]] = {}
    for case, before, after in pairs:
        was, now = before.get(rule), after.get(rule)
        if was in _APPLIES and now in _APPLIES:
            found = marks.setdefault(case, [0, 0, 0])
            found[0] += was == YES
            found[1] += now == YES
            found[2] += 1
    return Counter((was / n, now / n) for was, now, n in marks.values())


def _adjust(entries: Sequence[dict[str, Any]]) -> None:
    """Holm's step-down adjustment over all entries that have a test."""
    tested = sorted((e for e in entries if e["p"] is not None), key=lambda e: e["p"])
    least = 0.0
    for place, entry in enumerate(tested):
        least = max(least, min(1.0, entry["p"] * (len(tested) - place)))
        entry["p_holm"] = least
    for entry in entries:
        adjusted = entry.setdefault("p_holm", None)
        entry["sure"] = bool(entry["verdict"]) and adjusted is not None and adjusted <= 1 - LEVEL


def paired_interval(cases: Rates, n_pairs: int, z: float = _Z) -> Estimate:
    """The mean difference of paired rates, after minus before, with an interval.

    With one pair a case this is method 10 of Newcombe (1998, Statistics in Medicine 17, 2635-2650):
    Wilson's score intervals of both rates, put together by the square-and-add rule with the
    correlation of the marks; where their covariance is positive it is 1/2n less, but not below 0.

    With several, the same with what the variance *between cases* allows: Wilson's interval of a
    rate p is that of p (1 - p) / variance cases, not fewer than there are cases, nor more than
    pairs (`n_pairs`); covariance and correlation are those of the cases' rates.
    Nothing without cases. Coverage by simulation: docs/choosing.md.
    """
    n = sum(cases.values())
    if not n:
        return NOTHING
    q = sum(b * count for (b, _), count in cases.items()) / n
    p = sum(a * count for (_, a), count in cases.items()) / n
    var_q = sum((b - q) ** 2 * count for (b, _), count in cases.items()) / n
    var_p = sum((a - p) ** 2 * count for (_, a), count in cases.items()) / n
    both = sum((a - p) * (b - q) * count for (b, a), count in cases.items()) / n
    if both > 0:
        both = max(both - 1 / (2 * n), 0.0)
    phi = both / math.sqrt(var_p * var_q) if var_p * var_q > 1e-18 else 0.0
    (p_low, p_high), (q_low, q_high) = (
        _wilson(rate, _size(rate, variance, n, n_pairs), z)
        for rate, variance in ((p, var_p), (q, var_q))
    )

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    low, high = p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)
    return Estimate(p - q, max(low, -1.0), min(high, 1.0))


def _size(rate: float, variance: float, n: int, n_pairs: int) -> float:
    """How many independent answers a rate is worth."""
    spread = rate * (1 - rate)
    if spread <= 0:
        return n  # all the same: the repeats say nothing about other cases
    return n_pairs if variance * n_pairs <= spread * n else max(spread * n / variance, n)


def _wilson(rate: float, n: float, z: float) -> tuple[float, float]:
    middle = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    size = 1 + z * z / n
    # Rounding must not put an end on the other side of the rate.
    return min((middle - half) / size, rate), max((middle + half) / size, rate)


def sign_test(up: int, down: int) -> float:
    """Two-sided exact p value of `up` against `down`, where either is as likely. 1 without any.

    For pairs that changed it is the exact McNemar test.
    """
    n = up + down
    term = total = 1
    for k in range(min(up, down)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))
