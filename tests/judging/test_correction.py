"""Corrected rates: worked numbers, symmetry, refusals, and coverage of the intervals."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adhere.errors import BadInput
from adhere.judging.calibration import Calibration, Labeled, calibrate
from adhere.judging.correction import (
    NOTHING,
    Corrected,
    Estimate,
    agresti_coull,
    corrected_rate,
    effective_size,
    stratified_rate,
    wilson,
)

TRUST = Path(__file__).parents[2] / "docs" / "judge-trust.md"


@cache
def judge(tp: int, violated: int, tn: int, followed: int) -> Calibration:
    """What `calibrate` makes of these counts (tested below), without making the labels."""
    se = Estimate(tp / violated, *wilson(tp / violated, violated))
    sp = Estimate(tn / followed, *wilson(tn / followed, followed))
    cells = (tp, followed - tn, violated - tp, tn)
    rest = (NOTHING, NOTHING, NOTHING)
    return Calibration(violated + followed, violated, *cells, se, sp, *rest, violated, followed)


def some(rate: Corrected) -> tuple[float, float, float]:
    assert rate.value is not None and rate.low is not None and rate.high is not None
    return rate.value, rate.low, rate.high


def test_the_shortcut_is_what_calibrate_finds() -> None:
    pairs = [Labeled(True, i < 45) for i in range(50)] + [Labeled(False, i < 10) for i in range(50)]
    found, short = calibrate(pairs), judge(45, 50, 40, 50)
    assert found.sensitivity == pytest.approx(short.sensitivity)
    assert found.specificity == pytest.approx(short.specificity)
    assert corrected_rate(30, 100, found)[:3] == pytest.approx(corrected_rate(30, 100, short)[:3])


def test_lang_and_reiczigel_by_hand() -> None:
    # Se 45/50, Sp 40/50, 60 of 100 marked violated; z**2 = 3.841459.
    # A' = 61.920729/103.841459 = 0.596301, Se' = 46/52 = 0.884615, Sp' = 41/52 = 0.788462,
    # J' = 0.673077, P' = 0.384763/0.673077 = 0.571648;
    # Se'(1-Se')/52 = 0.00196290, Sp'(1-Sp')/52 = 0.00320750;
    # d = 7.682918 * (0.571648*0.00196290 - 0.428352*0.00320750) = -0.0019350;
    # variance = 0.00231820 + 0.00064144 + 0.00058853 = 0.00354817, its root 0.0595665;
    # half = 1.959964*0.0595665/0.673077 = 0.1734549.
    found = corrected_rate(60, 100, judge(45, 50, 40, 50))
    assert found.value == pytest.approx(0.4 / 0.7)
    assert found.low == pytest.approx(0.571648 - 0.0019350 - 0.1734549, abs=2e-6)
    assert found.high == pytest.approx(0.571648 - 0.0019350 + 0.1734549, abs=2e-6)
    assert "Rogan-Gladen" in found.method_name and "Lang-Reiczigel" in found.method_name
    # The judge's own error widens it: as if Se and Sp were known, it would be narrower.
    low, high = wilson(0.6, 100)
    assert found.high - found.low > (high - low) / 0.7


def test_following_is_one_minus_violated() -> None:
    found = corrected_rate(60, 100, judge(45, 50, 40, 50))
    value, low, high = some(found)
    assert found.following[:3] == pytest.approx((1 - value, 1 - high, 1 - low))
    assert found.following.method_name == found.method_name
    none = corrected_rate(0, 0, judge(45, 50, 40, 50))
    assert none.following == none


def test_estimates_outside_of_zero_to_one_are_clipped_and_keep_their_doubt() -> None:
    # 12% marked violated, where 20% would be by false positives alone. The published interval
    # ends at 0.02 or so: a certainty that 50 labels cannot give. As wide as around 0, it does not.
    value, low, high = some(corrected_rate(12, 100, judge(45, 50, 40, 50)))
    assert (value, low) == (0, 0) and 0.1 < high < 0.2
    value, low, high = some(corrected_rate(93, 100, judge(45, 50, 40, 50)))  # 0.93 > 0.9
    assert (value, high) == (1, 1) and 0.8 < low < 0.9


def test_no_corrected_rate_where_the_labels_do_not_fit_the_run() -> None:
    few = corrected_rate(2, 100, judge(45, 50, 40, 50))
    assert few[:3] == (None, None, None)
    assert "marked 2% as violated" in few.reason and "fewer than the 20%" in few.reason
    many = corrected_rate(98, 100, judge(35, 50, 40, 50))
    assert many.value is None and "more than the 70%" in many.reason


def test_no_corrected_rate_from_a_judge_that_may_be_guessing() -> None:
    weak = corrected_rate(30, 100, judge(6, 10, 6, 10))  # J = 0.2, from -0.2 or so to 0.6 or so
    assert weak[:3] == (None, None, None)
    assert "not clearly above 0" in weak.reason and "0.20" in weak.reason
    assert corrected_rate(30, 100, judge(2, 20, 3, 20)).value is None  # worse than guessing
    assert corrected_rate(30, 100, judge(60, 100, 60, 100)).value is not None  # the same, surer
    assert "no judged rows" in corrected_rate(0, 0, judge(45, 50, 40, 50)).reason
    one_class = calibrate([Labeled(False, False)] * 20)
    assert "no labels of violated" in corrected_rate(3, 10, one_class).reason
    other_class = calibrate([Labeled(True, True)] * 20)
    assert "no labels of followed" in corrected_rate(3, 10, other_class).reason
    for positive, n in ((11, 10), (-1, 10)):
        with pytest.raises(BadInput, match="positives"):
            corrected_rate(positive, n, judge(45, 50, 40, 50))


counts = st.tuples(st.integers(1, 60), st.floats(0, 1)).map(lambda x: (round(x[0] * x[1]), x[0]))


@settings(max_examples=150, deadline=None)
@given(counts, counts, counts)
def test_bounds_are_ordered_and_the_classes_can_be_swapped(
    violated: tuple[int, int], followed: tuple[int, int], run: tuple[int, int]
) -> None:
    one = corrected_rate(*run, judge(*violated, *followed))
    other = corrected_rate(run[1] - run[0], run[1], judge(*followed, *violated))
    assert (one.value is None) == (other.value is None) == bool(one.reason)
    if one.value is not None:
        value, low, high = some(one)
        assert 0 <= low <= value <= high <= 1 and low < high
        assert one[:3] == pytest.approx(other.following[:3], abs=1e-9)


@given(counts, st.integers(1, 60))
def test_an_effective_size_gives_back_the_sample_size(count: tuple[int, int], more: int) -> None:
    k, n = count
    estimate = Estimate(k / n, *wilson(k / n, n))
    assert effective_size(estimate, n + more) == pytest.approx(n)
    assert effective_size(estimate, n) == pytest.approx(n)
    assert effective_size(estimate, n / 2) == n / 2
    assert effective_size(NOTHING, 0.0) == 0
    assert effective_size(Estimate(0.5, 0.0, 1.0), 10) == 0


def test_strata_by_hand() -> None:
    # 15/20: middle 16.920729/23.841459 = 0.709719, half 1.959964*sqrt(0.206018/23.841459)
    # = 0.182195: from 0.527524 to 0.891914. 2/40: middle 3.920729/43.841459 = 0.089430,
    # half 0.084470: from 0.004960 to 0.173900. Value 0.2*0.75 + 0.8*0.05 = 0.19;
    # below sqrt((0.2*0.222476)**2 + (0.8*0.045040)**2) = 0.057252,
    # above sqrt((0.2*0.141914)**2 + (0.8*0.123900)**2) = 0.103102.
    assert agresti_coull(0.75, 20) == pytest.approx((0.527524, 0.891914), abs=2e-6)
    strata = {"marked violated": (0.2, 20, 15), "marked followed": (0.8, 40, 2)}
    found = stratified_rate(strata)
    assert found[:3] == pytest.approx((0.19, 0.19 - 0.057252, 0.19 + 0.103102), abs=1e-5)
    assert "Agresti-Coull" in found.method_name
    # From 200 cases: 0.2*0.56**2 + 0.8*0.14**2 = 0.0784 between, over 200, times z**2 = 0.0015058.
    wider = stratified_rate(strata, run_n=200)
    assert wider.low == pytest.approx(0.19 - math.sqrt(0.057252**2 + 0.0015058), abs=1e-5)
    assert wider.high == pytest.approx(0.19 + math.sqrt(0.103102**2 + 0.0015058), abs=1e-5)


def test_strata_without_labels_or_width() -> None:
    missing = stratified_rate({"a": (0.9, 30, 3), "b": (0.1, 0, 0)})
    assert missing.value is None and "'b'" in missing.reason and "10%" in missing.reason
    assert stratified_rate({"a": (1.0, 30, 3), "b": (0.0, 0, 0)}).value == pytest.approx(0.1)
    value, low, high = some(stratified_rate({"a": (0.5, 10, 0), "b": (0.5, 10, 0)}))
    assert (value, low) == (0, 0) and 0.1 < high < 0.4
    with pytest.raises(BadInput, match=r"add up to 0\.5"):
        stratified_rate({"a": (0.5, 10, 0)})
    with pytest.raises(BadInput, match="'a'"):
        stratified_rate({"a": (1.0, 10, 11)})
    with pytest.raises(BadInput, match="add up"):
        stratified_rate({})


@given(st.lists(counts, min_size=1, max_size=5), st.data())
def test_strata_bounds(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    raw = [data.draw(st.floats(0.01, 1)) for _ in parts]
    shares = [share / math.fsum(raw) for share in raw]
    strata = {str(i): (w, n, k) for i, (w, (k, n)) in enumerate(zip(shares, parts, strict=True))}
    swapped = {name: (w, n, n - k) for name, (w, n, k) in strata.items()}
    value, low, high = some(stratified_rate(strata))
    assert 0 <= low <= value <= high <= 1 and low < high
    assert stratified_rate(swapped).following[:3] == pytest.approx((value, low, high), abs=1e-9)
    wider = stratified_rate(strata, run_n=50)
    assert wider.low <= low + 1e-12 and wider.high >= high - 1e-12
    # Splitting a stratum in name only does not change the value.
    assert value == pytest.approx(sum(w * k / n for w, n, k in strata.values()))


def binomial(n: int, p: float) -> list[float]:
    """Chances of 0..n successes."""
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def sampler(n: int, p: float, rng: random.Random) -> Callable[[], int]:
    heaped = list(itertools.accumulate(binomial(n, p)))
    return lambda: min(bisect.bisect(heaped, rng.random()), n)


PREVALENCES, RUNS, LABELS = (0.05, 0.2, 0.5, 0.9), (100, 1000), (30, 60, 200)
JUDGES = ((0.98, 0.98), (0.85, 0.85), (0.7, 0.98), (0.98, 0.7), (0.7, 0.7))
ROUNDS = 1000


def simulate(prevalence: float, se: float, sp: float, size: int, n: int) -> tuple[float, ...]:
    """Shares of experiments: with a rate; of those, covered, and covered by the naive interval.

    Naive: the correction as if the calibration had no error of its own.
    """
    rng = random.Random(repr((prevalence, se, sp, size, n)))
    tp, tn = sampler(size, se, rng), sampler(size, sp, rng)
    positive = sampler(n, prevalence * se + (1 - prevalence) * (1 - sp), rng)
    given = covered = naive = 0
    for _ in range(ROUNDS):
        k, calibration = positive(), judge(tp(), size, tn(), size)
        found = corrected_rate(k, n, calibration)
        if found.value is None:
            continue
        given += 1
        _, low, high = some(found)
        covered += low <= prevalence <= high
        rate, other = calibration.sensitivity.value or 0.0, calibration.specificity.value or 0.0
        low, high = ((x + other - 1) / (rate + other - 1) for x in wilson(k / n, n))
        naive += low <= prevalence <= high
    return given / ROUNDS, covered / given, naive / given


def test_the_corrected_interval_covers_and_the_naive_one_does_not() -> None:
    lines = [
        "| judge (Se, Sp) | labels per class | mean coverage | lowest | naive, lowest "
        "| no rate given, most |",
        "|---|---|---|---|---|---|",
    ]
    everywhere: list[float] = []
    naives: list[float] = []
    for (se, sp), size in itertools.product(JUDGES, LABELS):
        cells = [simulate(p, se, sp, size, n) for p in PREVALENCES for n in RUNS]
        given, covered, naive = zip(*cells, strict=True)
        everywhere += covered
        naives += naive
        lines.append(
            f"| {se:.2f}, {sp:.2f} | {size} | {sum(covered) / len(covered):.3f} "
            f"| {min(covered):.3f} | {min(naive):.3f} | {1 - min(given):.1%} |"
        )
    print("\n".join(lines))
    print(f"mean {sum(everywhere) / len(everywhere):.3f}, lowest {min(everywhere):.3f}")
    assert sum(everywhere) / len(everywhere) >= 0.93
    assert min(everywhere) >= 0.90
    assert min(naives) < 0.8
    # The page for users quotes this table; it must be this run's.
    assert "\n".join(lines) in TRUST.read_text("utf-8")


def exact_coverage(
    strata: list[tuple[float, int, float]], interval: Callable[..., tuple[float, float]]
) -> float:
    """Chance that the interval holds the true rate: summed over all outcomes, not simulated."""
    true = sum(share * p for share, _, p in strata)
    chances = [binomial(n, p) for _, n, p in strata]
    total = 0.0
    for outcome in itertools.product(*(range(n + 1) for _, n, _ in strata)):
        chance = math.prod(of[k] for of, k in zip(chances, outcome, strict=True))
        if chance > 1e-9:
            low, high = interval(
                {
                    str(i): (s[0], s[1], k)
                    for i, (s, k) in enumerate(zip(strata, outcome, strict=True))
                }
            )
            total += chance * (low - 1e-12 <= true <= high + 1e-12)
    return total


def post_stratified(strata: dict[str, tuple[float, int, int]]) -> tuple[float, float]:
    return some(stratified_rate(strata))[1:]


def wald(strata: dict[str, tuple[float, int, int]]) -> tuple[float, float]:
    """The textbook interval: normal, from the strata's sample variances."""
    value = sum(w * k / n for w, n, k in strata.values())
    half = 1.96 * math.sqrt(sum(w * w * k / n * (1 - k / n) / n for w, n, k in strata.values()))
    return value - half, value + half


def test_strata_cover_even_when_they_are_small() -> None:
    ours, textbook = [], []
    for share, few, many, right, missed in itertools.product(
        (0.05, 0.3), (5, 20), (5, 10, 30), (0.5, 0.9, 1.0), (0.0, 0.01, 0.02, 0.05, 0.2)
    ):
        strata = [(share, few, right), (1 - share, many, missed)]
        ours.append(exact_coverage(strata, post_stratified))
        textbook.append(exact_coverage(strata, wald))
    print(
        f"strata: mean {sum(ours) / len(ours):.3f}, lowest {min(ours):.3f}; "
        f"textbook: mean {sum(textbook) / len(textbook):.3f}, lowest {min(textbook):.3f}"
    )
    assert min(ours) >= 0.90
    assert sum(ours) / len(ours) >= 0.93
    assert min(textbook) < 0.8


def test_strata_of_a_run_cover_the_population_only_with_its_size() -> None:
    """Simulated: the shares are a run's own, the rate asked for is the population's."""
    rng = random.Random(3)
    with_size, without = [], []
    for n, p, missed in itertools.product((100, 400), (0.3, 0.5), (0.02, 0.1)):
        true = p * 0.95 + (1 - p) * missed
        marked = sampler(n, p, rng)
        found, bad = sampler(40, 0.95, rng), sampler(40, missed, rng)
        hits = [0, 0]
        for _ in range(ROUNDS):
            share = marked() / n
            strata = {"violated": (share, 40, found()), "followed": (1 - share, 40, bad())}
            for i, size in enumerate((n, None)):
                _, low, high = some(stratified_rate(strata, run_n=size))
                hits[i] += low <= true <= high
        with_size.append(hits[0] / ROUNDS)
        without.append(hits[1] / ROUNDS)
    print(f"population: lowest {min(with_size):.3f}; without the size {min(without):.3f}")
    assert min(with_size) >= 0.93
    assert min(without) < 0.9
