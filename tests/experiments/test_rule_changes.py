"""Which rules a method fixes and breaks: pairs, intervals, tests, and many of them at once."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adhere.experiments.rule_changes import paired_interval, rule_changes, sign_test
from adhere.spec import Rule, Specification

SPEC = Specification("x", (Rule("short", "behavioral", "s"), Rule("dose", "safety", "d")))
MARKS = {"Y": "YES", "N": "NO", "-": "NA"}


def rows(method: str, rule: str, marks: str, *, repeats: int = 1, **changes) -> list[dict]:
    """One row a letter; with repeats the first letters are of the first case."""
    return [
        {
            "suite": "prompts", "model": "m", "method": method, "case": f"c{at // repeats:03d}",
            "repeat": at % repeats, "outcome": "scored",
            "marks": {rule: MARKS[letter]} if letter != "." else {},
        } | changes
        for at, letter in enumerate(marks)
    ]  # fmt: skip


def changes(before: str, after: str, **options) -> dict:
    found = rule_changes(
        rows("vanilla", "short", before, **options) + rows("new", "short", after, **options),
        SPEC,
        "vanilla",
    )
    assert len(found) == 1
    return found[0]


def table(kept: int, fixed: int, broken: int, unmet: int):
    cells = {(1.0, 1.0): kept, (0.0, 1.0): fixed, (1.0, 0.0): broken, (0.0, 0.0): unmet}
    return paired_interval(cells, sum(cells.values()))


# ---------------------------------------------------------------- counting


def test_pairs_are_counted_by_what_became_of_them():
    found = changes("YYNNN--YN.", "YNYYN-YN-Y")
    assert {k: found[k] for k in ("suite", "model", "method", "baseline", "rule")} == {
        "suite": "prompts", "model": "m", "method": "new", "baseline": "vanilla", "rule": "short",
    }  # fmt: skip
    assert (found["n_paired"], found["n_cases"]) == (6, 6)
    assert (found["fixed"], found["broken"]) == (2, 2)
    assert (found["before"], found["after"], found["diff"]) == (0.5, 0.5, 0.0)
    # NA to YES and NO to NA; NA to NA and a rule without a mark are no change of it.
    assert found["na_changes"] == 2
    assert (found["applied_before"], found["applied_after"]) == (7, 7)
    assert found["verdict"] == ""


def test_only_scored_rows_are_paired_and_by_case_and_repeat():
    base = rows("vanilla", "short", "NNN")
    ours = rows("new", "short", "YYY")
    ours[0]["outcome"] = "truncated"
    base[1]["outcome"] = "unscored"
    (found,) = rule_changes([*base, *ours[::-1]], SPEC, "vanilla")
    assert (found["n_paired"], found["fixed"]) == (1, 1)
    for row in ours:
        row["repeat"] = 1
    assert rule_changes(base + ours, SPEC, "vanilla") == []


def test_each_arm_has_the_baseline_of_its_own_model_and_suite():
    data = rows("vanilla", "short", "NN") + rows("new", "short", "YN")
    data += rows("vanilla", "short", "YY", model="other") + rows(
        "new", "short", "YN", model="other"
    )
    data += rows("new", "short", "YN", suite="elsewhere")  # no baseline there
    found = rule_changes(data, SPEC, "vanilla")
    assert [(e["model"], e["fixed"], e["broken"]) for e in found] == [("m", 1, 0), ("other", 0, 1)]
    assert rule_changes(data, SPEC, "absent") == []
    assert rule_changes([], SPEC, "vanilla") == []


def test_rules_come_in_the_order_of_the_spec_then_those_it_does_not_have():
    data = []
    for method in ("vanilla", "new"):
        for row in rows(method, "x", "Y"):
            row["marks"] = {"own": "YES", "dose": "NA", "short": "NO"}
            data.append(row)
    found = rule_changes(data, SPEC, "vanilla")
    assert [e["rule"] for e in found] == ["short", "dose", "own"]
    dose = found[1]
    assert (dose["n_paired"], dose["before"], dose["diff"], dose["p"]) == (0, None, None, None)
    assert (dose["p_holm"], dose["verdict"], dose["sure"]) == (None, "", False)


def test_the_order_of_rows_changes_nothing():
    rng = random.Random(1)
    data = [
        row
        for method in ("vanilla", "a", "b")
        for row in rows(method, "short", "".join(rng.choices("YN-", k=60)), repeats=3)
    ]
    found = rule_changes(data, SPEC, "vanilla")
    mixed = data[:]
    rng.shuffle(mixed)
    again = rule_changes(mixed, SPEC, "vanilla")
    assert sorted(again, key=lambda e: e["method"]) == sorted(found, key=lambda e: e["method"])


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # The published formula over the Wilson limits of statsmodels 0.15; (14, 5, 0, 22) is the
        # example of Altman and others (2000, table 6.2).
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((14, 5, 0, 22), 0.0115, 0.2265),
        ((1, 1, 7, 12), -0.5069, -0.0256),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((53, 0, 1, 0), -0.0977, 0.0496),
        ((0, 29, 0, 0), 0.8346, 1.0),
    ],
)
def test_worked_values_of_one_pair_a_case(cells, low, high):
    found = table(*cells)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    kept, fixed, broken, unmet = cells
    assert found.value == pytest.approx((fixed - broken) / sum(cells))
    mirrored = table(kept, broken, fixed, unmet)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-12)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_an_interval_holds_its_value_and_stays_within_bounds(cells):
    found = table(*cells)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_repeats_that_always_agree_are_worth_one():
    once = changes("YYNNNYYN" * 5, "YNYYNYYY" * 5)
    again = changes(
        "".join(2 * c for c in "YYNNNYYN" * 5), "".join(2 * c for c in "YNYYNYYY" * 5), repeats=2
    )
    assert again["n_paired"] == 2 * once["n_paired"]
    assert again["n_cases"] == once["n_cases"]
    for key in ("before", "after", "diff", "diff_low", "diff_high", "p"):
        assert again[key] == pytest.approx(once[key]), key


def test_repeats_that_vary_like_cases_are_worth_more_than_one_but_no_more_than_pairs():
    rng = random.Random(3)
    marks = ["".join(rng.choices("YN", k=400)) for _ in range(2)]
    apart, together = changes(*marks), changes(*marks, repeats=4)
    width = [e["diff_high"] - e["diff_low"] for e in (apart, together)]
    assert together["n_cases"] == 100
    assert width[1] == pytest.approx(width[0], rel=0.15)
    even = paired_interval({(0.5, 0.5): 50}, 100)  # no variance at all between the cases
    assert even.high - even.low == pytest.approx(2 * 0.1357, rel=0.01)  # sqrt(2) times Wilson's 100


def test_repeats_that_do_not_apply_leave_the_case_its_others():
    found = changes("YN-NNN", "NY-YYY", repeats=3)
    # Case 0: Y to N and N to Y, one NA pair. Case 1: three times N to Y.
    assert (found["n_paired"], found["n_cases"], found["fixed"], found["broken"]) == (5, 2, 4, 1)
    assert (found["before"], found["after"], found["diff"]) == (0.25, 0.75, 0.5)
    assert found["p"] == 1.0  # one case up, one the same


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_interval_holds_as_often_as_it_says(repeats):
    rng = random.Random(f"coverage {repeats}")
    held = 0
    for _ in range(600):
        cases: dict[tuple[float, float], int] = {}
        for _ in range(40):
            easy = rng.random() < 0.5  # what makes a case's arms and repeats alike
            rates = []
            for p in (0.9, 0.95) if easy else (0.3, 0.65):
                rates.append(sum(rng.random() < p for _ in range(repeats)) / repeats)
            cases[rates[0], rates[1]] = cases.get((rates[0], rates[1]), 0) + 1
        found = paired_interval(cases, 40 * repeats)
        held += found.low <= 0.2 <= found.high
    assert held / 600 >= 0.95 - 3 * (0.95 * 0.05 / 600) ** 0.5


# ---------------------------------------------------------------- tests


def test_worked_values_of_the_exact_test():
    assert sign_test(2, 12) == pytest.approx(212 / 2**14)
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0
    assert sign_test(700, 800) == pytest.approx(0.0105593, rel=1e-5)


def test_verdicts_follow_the_interval():
    up = changes("N" * 10 + "Y" * 20, "Y" * 30)
    assert (up["verdict"], up["sure"]) == ("fixes", True)
    assert up["diff_low"] > 0
    down = changes("Y" * 30, "N" * 10 + "Y" * 20)
    assert down["verdict"] == "breaks"
    # The score interval leaves 0 out, the exact test has 0.0625: a verdict, but not sure.
    unsure = changes("Y" * 14 + "N" * 27, "Y" * 19 + "N" * 22)
    assert (unsure["verdict"], unsure["p"], unsure["sure"]) == ("fixes", 0.0625, False)


def test_holm_counts_all_tests_of_the_list():
    """p 0.002, 0.031, 0.031 and 1: times 4, 3, 2 and 1, never falling."""
    data = rows("vanilla", "short", "N" * 10 + "Y" * 20)
    for method, fixed in (("a", 10), ("b", 6), ("c", 6), ("d", 0)):
        data += rows(method, "short", "Y" * fixed + "N" * (10 - fixed) + "Y" * 20)
    found = {e["method"]: e for e in rule_changes(data, SPEC, "vanilla")}
    assert [found[m]["p"] for m in "abcd"] == [2 / 2**10, 2 / 2**6, 2 / 2**6, 1.0]
    expected = [4 * 2 / 2**10, 3 * 2 / 2**6, 3 * 2 / 2**6, 1.0]
    assert [found[m]["p_holm"] for m in "abcd"] == pytest.approx(expected)
    assert [found[m]["verdict"] for m in "abcd"] == ["fixes", "fixes", "fixes", ""]
    assert [found[m]["sure"] for m in "abcd"] == [True, False, False, False]


def test_thirty_rules_ten_methods_1500_cases_take_about_a_second():
    rng = random.Random(1)
    ids = [f"r{i}" for i in range(30)]
    pool = [dict(zip(ids, rng.choices(["YES", "YES", "NO", "NA"], k=30), strict=True))
            for _ in range(200)]  # fmt: skip
    data = [
        {"suite": "s", "model": "m", "method": f"m{m}", "case": f"c{c}", "repeat": 0,
         "outcome": "scored", "marks": rng.choice(pool)}
        for m in range(11) for c in range(1500)
    ]  # fmt: skip
    began = time.process_time()
    assert len(rule_changes(data, SPEC, "m0")) == 300
    assert time.process_time() - began < 2  # 0.6 s where nothing else runs
