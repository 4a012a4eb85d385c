"""The confidence sequence: its definition, what it promises, its order, blocks and stopping."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adhere.experiments import sequential
from adhere.experiments.sequential import Sequence, blocks, looked_at, shuffled

UNIT = st.floats(0, 1, allow_nan=False)


def filled(values, *args, **options) -> Sequence:
    sequence = Sequence(*args, **options)
    for value in values:
        sequence.add(value)
    return sequence


def capitals(values, m: float, *, aim=None, most=None, level=0.95) -> tuple[float, float]:
    """K+ and K- of one m, straight from the definition."""
    price = 2 * math.log(2 / (1 - level))
    up = down = 1.0
    total, squares = 0.5, 0.25
    for n, x in enumerate(values):
        variance = squares / (n + 1)
        horizon = (n + 1) * math.log(n + 2) if aim is None else price * variance / aim**2
        bet = math.sqrt(price / (variance * min(horizon, most or math.inf)))
        up *= 1 + min(bet, 0.5 / m) * (x - m)
        down *= 1 - min(bet, 0.5 / (1 - m)) * (x - m)
        total += x
        squares += (x - total / (n + 2)) ** 2
    return up, down


@pytest.mark.parametrize("options", [{}, {"aim": 0.1}, {"aim": 0.01, "most": 25}])
@pytest.mark.parametrize(
    "draw",
    [lambda r: float(r.random() < 0.3), lambda r: 1.0, lambda r: 0.0, lambda r: r.betavariate(8, 2)],
)  # fmt: skip
def test_it_holds_just_what_no_bet_has_ruled_out(options, draw):
    rng = random.Random(5)
    values = [draw(rng) for _ in range(31)]  # before the first block nothing is intersected
    low, high = filled(values, **options).interval
    for step in range(1, 400):
        m = step / 400
        if min(abs(m - low), abs(m - high)) < 1e-5:
            continue
        assert (low < m < high) == all(k < 40 for k in capitals(values, m, **options)), m


def test_known_ends():
    assert Sequence().interval == (0.0, 1.0)
    # All values 1: every bet is at its cap c / m with c = 1/2, so K+ = (1/2 + 1 / 2m) ** n; the
    # exact bound of Clopper and Pearson, for one n fixed before, is higher.
    low, high = filled([1.0] * 31).interval
    assert high == 1
    assert low == pytest.approx(1 / (2 * 40 ** (1 / 31) - 1), abs=1e-5)
    assert low < 0.025 ** (1 / 31)


@settings(max_examples=40, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=120), st.sampled_from([None, 0.05, 0.2]))
def test_ends_are_in_order_mirror_and_scale(values, aim):
    low, high = filled(values, aim=aim).interval
    assert 0 <= low <= high <= 1
    mirrored = filled([1 - v for v in values], aim=aim).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-5)
    wide = filled([6 * v - 2 for v in values], -2.0, 4.0, aim=aim and 6 * aim)
    assert wide.interval == pytest.approx((6 * low - 2, 6 * high - 2), abs=1e-4)
    assert wide.mean == pytest.approx(6 * sum(values) / len(values) - 2, abs=1e-9)


def test_when_it_is_read_changes_nothing():
    rng = random.Random(2)
    values = [rng.random() for _ in range(200)]
    read, unread = Sequence(aim=0.1), Sequence(aim=0.1)
    for value in values:
        read.add(value)
        assert read.interval
        unread.add(value)
    assert read.interval == unread.interval
    assert read.n == 200
    assert read.half_width == pytest.approx((read.interval[1] - read.interval[0]) / 2)


def test_blocks_narrow_and_never_widen():
    rng = random.Random(3)
    sequence = Sequence()
    last = (0.0, 1.0)
    for end in blocks(800):
        while sequence.n < end:
            sequence.add(float(rng.random() < 0.4))
        low, high = sequence.interval
        assert last[0] <= low <= 0.4 <= high <= last[1]
        last = (low, high)
    assert last[1] - last[0] < 0.25


def test_values_that_contradict_the_past_leave_no_empty_interval():
    low, high = filled([0.0] * 300 + [1.0] * 900, aim=0.02).interval
    assert low <= high
    # The first block alone had ruled out what the whole shows: the whole is what is told.
    assert filled([0.0] * 300, aim=0.02).interval[1] < low


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_values_outside_of_the_bounds_are_refused(value):
    sequence = Sequence()
    with pytest.raises(ValueError, match="outside of"):
        sequence.add(value)
    assert sequence.n == 0
    with pytest.raises(ValueError, match="outside of"):
        looked_at({"a": [0.5, value]}, 0.1)


@pytest.mark.parametrize(
    "options",
    [{"low": 1.0, "high": 0.0}, {"low": math.nan}, {"level": 1.0}, {"aim": 0.0}, {"aim": math.nan},
     {"most": 0}],
)  # fmt: skip
def test_odd_settings_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Sequence(**options)


# ---------------------------------------------------------------- the promise

DRAWS = {
    "rate 0.02": (0.02, lambda r: float(r.random() < 0.02)),
    "rate 0.5": (0.5, lambda r: float(r.random() < 0.5)),
    "rate 0.9": (0.9, lambda r: float(r.random() < 0.9)),
    "sar": (0.455, lambda r: 0.0 if r.random() < 0.3 else 0.3 + 0.07 * r.randrange(11)),
    "beta": (0.8, lambda r: r.betavariate(8, 2)),
}
RUNS = 150


def _ordinary(values: list[float]) -> tuple[float, float]:
    n, mean = len(values), sum(values) / len(values)
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean - half, mean + half


@pytest.mark.parametrize("name", DRAWS)
def test_who_stops_when_it_is_narrow_is_still_right(name):
    mean, draw = DRAWS[name]
    rng = random.Random(f"coverage {name}")
    held = 0
    for _ in range(RUNS):
        sequence = Sequence(aim=0.1, most=600)
        for end in blocks(600):
            while sequence.n < end:
                sequence.add(draw(rng))
            if sequence.half_width <= 0.1:
                break
        held += sequence.interval[0] <= mean <= sequence.interval[1]
    assert held / RUNS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / RUNS)


def test_who_looks_until_it_misses_seldom_finds_it_unlike_with_an_ordinary_interval():
    rng = random.Random("ever")
    missed = [0, 0]
    for _ in range(RUNS):
        sequence, values = Sequence(aim=0.1), []
        ever = [False, False]
        for end in blocks(500):
            while sequence.n < end:
                values.append(float(rng.random() < 0.5))
                sequence.add(values[-1])
            for which, ends in enumerate((sequence.interval, _ordinary(values))):
                ever[which] |= not ends[0] <= 0.5 <= ends[1]
        missed = [m + e for m, e in zip(missed, ever, strict=True)]
    assert missed[0] / RUNS <= 0.05 + 3 * math.sqrt(0.95 * 0.05 / RUNS)
    assert missed[1] / RUNS > 0.15  # so the measure above can fail


def test_bets_made_for_the_target_reach_it_sooner():
    rng = random.Random(4)
    values = [float(rng.random() < 0.5) for _ in range(1500)]

    def stops(**options) -> int:
        sequence = Sequence(**options)
        for value in values:
            sequence.add(value)
            if sequence.n % 50 == 0 and sequence.half_width <= 0.08:
                return sequence.n
        return 1500

    assert stops(aim=0.08) < 0.75 * stops()


# ---------------------------------------------------------------- order, blocks, stopping


def test_the_order_is_of_names_and_seed_alone():
    names = [f"c{i}" for i in range(50)]
    order = shuffled(names, 7)
    assert sorted(order) == sorted(names)
    assert order == shuffled(names[::-1], 7) != shuffled(names, 8)
    assert order != names
    assert shuffled([], 7) == []
    # Pinned: a resumed run must go on in the order in which it began.
    assert shuffled(["a", "b", "c", "d", "e"], 7) == ["a", "b", "c", "e", "d"]


@pytest.mark.parametrize(
    ("n", "ends"),
    [(0, []), (1, [1]), (32, [32]), (33, [32, 33]), (100, [32, 48, 72, 100]),
     (300, [32, 48, 72, 108, 162, 243, 300])],
)  # fmt: skip
def test_blocks_grow_to_the_end(n, ends):
    assert blocks(n) == ends


def test_blocks_from_one_and_odd_numbers():
    assert blocks(10, 1) == [1, 2, 3, 4, 6, 9, 10]
    for n, first in ((-1, 32), (5, 0)):
        with pytest.raises(ValueError, match="expected"):
            blocks(n, first)


def test_all_arms_must_be_known_well_enough():
    rng = random.Random(1)
    known = [0.65] * 200
    vague = [rng.random() for _ in range(40)]
    found = looked_at({"a": known}, 0.1)
    assert found.reached
    assert found.n == 200
    both = looked_at({"a": known, "b": vague}, 0.1)
    assert not both.reached
    assert both.n == 40
    assert both.intervals["a"] == found.intervals["a"]
    assert both.half_widths["b"] > 0.1 >= both.half_widths["a"]
    low, high = both.intervals["b"]
    assert both.half_widths["b"] == pytest.approx((high - low) / 2)
    assert filled(vague, aim=0.1).interval == (low, high)


def test_nothing_is_not_known_well():
    assert looked_at({}, 0.1).reached is False
    none = looked_at({"a": []}, 0.5)
    assert none.intervals == {"a": (0.0, 1.0)}
    assert none.n == 0
    assert looked_at({"a": []}, 0.1).reached is False


def test_paired_differences_have_bounds_of_their_own():
    found = looked_at({"a": [-0.5, 0.5] * 60}, 0.2, low=-1, high=1)
    low, high = found.intervals["a"]
    assert -1 < low < 0 < high < 1
    with pytest.raises(ValueError, match="outside of"):
        looked_at({"a": [-0.5]}, 0.2)


def test_ten_arms_of_1500_cases_take_well_under_two_seconds():
    rng = random.Random(1)
    arms = {f"m{i}": [rng.random() for _ in range(1500)] for i in range(10)}
    began = time.process_time()
    looked_at(arms, 0.02)
    assert time.process_time() - began < 2


def test_roots_are_found_from_the_ruled_out_side():
    assert sequential._root(lambda m: 0.3 - m, 0.0, 1.0) == pytest.approx(0.3, abs=1e-5)
    steep = sequential._root(lambda m: (0.7 - m) * (1e6 if m > 0.7 else 1e-6), 0.0, 1.0)
    assert 0.7 - 1e-4 < steep <= 0.7
    assert sequential._root(lambda m: -1 - m, 0.0, 1.0) == 0.0
    assert sequential._root(lambda m: 1.0, 0.0, 0.6) == 0.6
