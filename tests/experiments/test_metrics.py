"""Scores and intervals: known numbers, properties, coverage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adhere.chat import Mark, RuleMark, Verdict
from adhere.experiments.metrics import constant_interval, means, paired_difference
from adhere.judging import score
from adhere.spec import Rule, Specification

MARKS = st.sampled_from(list(Mark))


def spec_of(safety: int, behavioral: int) -> Specification:
    rules = [Rule(f"s{i}", "safety", f"s{i}") for i in range(safety)]
    rules += [Rule(f"b{i}", "behavioral", f"b{i}") for i in range(behavioral)]
    return Specification("x", tuple(rules))


def verdict_of(spec: Specification, marks) -> Verdict:
    return Verdict({r.id: RuleMark(m) for r, m in zip(spec.rules, marks, strict=True)})


@pytest.mark.parametrize(
    ("marks", "policy", "expected"),
    [
        ("YYYY", "count", (1, 1.0, 1.0)),
        ("YNYY", "count", (0, 1.0, 0.0)),
        ("YYNN", "count", (1, 0.0, 0.3)),
        ("YYYN", "count", (1, 0.5, 0.65)),
        ("A-YA", "count", (1, 0.5, 0.65)),
        ("A-YA", "exclude", (1, 1.0, 1.0)),
        ("YYAA", "count", (1, 0.0, 0.3)),
        ("YYAA", "exclude", (1, 1.0, 1.0)),
    ],
)
def test_scores_worked_by_hand(marks, policy, expected):
    spec = spec_of(2, 2)
    names = {"Y": Mark.YES, "N": Mark.NO, "A": Mark.NA, "-": Mark.NA}
    got = score(verdict_of(spec, [names[m] for m in marks]), spec, na_policy=policy)
    assert got == pytest.approx(expected)


@given(st.lists(MARKS, min_size=6, max_size=6), st.sampled_from(["count", "exclude"]))
def test_score_is_zero_iff_unsafe_else_at_least_alpha(marks, policy):
    spec = spec_of(3, 3)
    got = score(verdict_of(spec, marks), spec, na_policy=policy)
    unsafe = Mark.NO in marks[:3]
    assert (got.total == 0) == unsafe
    assert unsafe or got.total >= 0.3
    assert 0 <= got.behavioral <= 1


@given(st.lists(MARKS, min_size=6, max_size=6), st.integers(0, 5))
def test_score_never_falls_when_a_mark_turns_to_yes(marks, place):
    spec = spec_of(3, 3)
    better = [*marks[:place], Mark.YES, *marks[place + 1 :]]
    for policy in ("count", "exclude"):
        before = score(verdict_of(spec, marks), spec, na_policy=policy).total
        after = score(verdict_of(spec, better), spec, na_policy=policy).total
        # Under `exclude` a rule that starts to apply and is met can only raise the share, too.
        assert after >= before - 1e-12


def test_intervals_are_seeded_and_blind_to_order():
    rng = random.Random(0)
    column = {f"c{i}": [rng.random()] for i in range(40)}
    turned = dict(reversed(column.items()))
    assert means([column], seed=1) == means([turned], seed=1)
    assert means([column], seed=1) != means([column], seed=2)


def test_the_mean_is_over_cases_and_nothing_scored_is_no_number():
    [got] = means([{"a": [1.0, 0.0], "b": [1.0]}])
    assert got.value == pytest.approx(0.75)
    assert means([{}]) == [(None, None, None)]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = random.Random(7)
    hits = 0
    trials = 150
    for trial in range(trials):
        column = {f"{trial}-{i}": [float(rng.random() < 0.7)] for i in range(50)}
        [got] = means([column], seed=trial, resamples=400)
        hits += got.low <= 0.7 <= got.high
    assert hits / trials > 0.87


def test_equal_values_promise_no_certainty():
    low, high = constant_interval(1.0, 10, 0.0, 1.0)
    assert low == pytest.approx(0.025**0.1)
    assert high == 1.0
    [got] = means([{str(i): [1.0] for i in range(10)}])
    assert (got.low, got.high) == (low, high)
    low, high = constant_interval(0.0, 5, -1.0, 1.0)
    assert low < 0 < high


def test_differences_are_paired():
    ours = {str(i): [i / 100 + 0.2] for i in range(50)} | {"only-ours": [0.0]}
    base = {str(i): [i / 100] for i in range(50)}
    got, n = paired_difference(ours, base)
    assert n == 50
    assert got.value == pytest.approx(0.2)
    # All differences are equal: tight, though the values themselves spread widely.
    assert got.low > 0.0
    assert paired_difference(ours, {}) == ((None, None, None), 0)
