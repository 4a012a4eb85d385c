"""Which rows are shown, where labels go, what the rule map counts."""

from __future__ import annotations

import itertools

import pytest

from adhere.reporting.axes import rate_axis, token_axis
from adhere.reporting.frontier import frontier_plot, non_dominated
from adhere.reporting.grid import interval_bar
from adhere.reporting.placement import Box, Mark, place
from adhere.reporting.plots import adherence_plot
from adhere.reporting.rules_map import rules_maps
from adhere.reporting.teaching import MAX_ROWS, choose, choose_all, pick_up
from reporting import judged_samples
from reporting import report_samples as samples


def row(case, method, score=1.0, outcome="scored", marks=None, **more):
    return {
        "suite": "s", "case": case, "model": "m", "method": method, "outcome": outcome,
        "score": score if outcome == "scored" else None, "marks": marks or {},
    } | more  # fmt: skip


# ---------------------------------------------------------------- teaching rows


def test_disagreement_comes_first_then_failures_then_a_sample():
    rows = [row(f"same{i}", m) for i in range(3) for m in "ab"]
    rows += [row("failed", "a", outcome="failed"), row("failed", "b")]
    rows += [row("small", "a", 0.5), row("small", "b", 0.6)]
    rows += [row("large", "a", 0.0), row("large", "b", 1.0)]
    choice = choose(rows)
    assert [c.key[1] for c in choice.cases][:3] == ["large", "small", "failed"]
    assert choice.cases[0].why == "scores from 0.00 to 1.00"
    assert (choice.rows, choice.total_rows, choice.total_cases) == (12, 12, 6)


def test_equal_scores_with_other_rules_broken_also_teach():
    rows = [row("x", "a", 0.5, marks={"r": "YES", "q": "NO"})]
    rows += [row("x", "b", 0.5, marks={"r": "NO", "q": "YES"})]
    assert choose(rows).cases[0].why == "equal scores, different rules broken"


def test_many_disagreements_leave_room_for_failures_and_the_sample():
    rows = [row(f"d{i}", m, float(m == "a")) for i in range(200) for m in "ab"]
    rows += [row(f"f{i}", m, outcome="failed") for i in range(200) for m in "ab"]
    choice = choose(rows)
    reasons = [c.why for c in choice.cases]
    assert choice.rows == MAX_ROWS
    # Cases of two rows: three fifths by disagreement, a fifth by failure, a fifth by lot.
    assert sum("scores from" in r for r in reasons) == MAX_ROWS // 2 * 3 // 5
    assert sum("without a score" in r for r in reasons) == MAX_ROWS // 10
    assert sum("random" in r for r in reasons) == MAX_ROWS // 10


def test_the_sample_follows_the_seed_and_nothing_else():
    rows = [row(f"c{i}", "a") for i in range(500)]
    first, again, other = choose(rows, seed=1), choose(rows, seed=1), choose(rows, seed=2)
    assert first == again
    assert {c.key for c in first.cases} != {c.key for c in other.cases}


@pytest.mark.parametrize("limit", [0, 1, 5, 60])
def test_the_limit_holds_and_large_cases_are_cut_to_the_telling_answers(limit):
    rows = [row(f"c{i}", f"m{j}", j / 40) for i in range(9) for j in range(40)]
    choice = choose(rows, limit=limit)
    assert choice.rows <= limit
    assert choice.rows > 0 or limit == 0
    for case in choice.cases:
        assert case.of == 40
        scores = [pick_up(rows, choice.places)[p]["score"] for p in case.places]
        assert len(scores) == 1 or {min(scores), max(scores)} == {0.0, 39 / 40}


def test_all_rows_means_all():
    rows = [row(f"c{i}", f"m{j}", j / 40) for i in range(9) for j in range(40)]
    choice = choose_all(rows)
    assert choice.rows == choice.total_rows == len(choice.places) == 360
    assert [c.of for c in choice.cases] == [40] * 9
    assert choose_all([row("x", "empty text", control=True)]).rows == 1


def test_control_rows_are_no_answers():
    rows = [row("x", "a"), row("x", "empty text", 0.0, control=True)]
    assert choose(rows).rows == 1


# ---------------------------------------------------------------- plots


def overlaps(labels):
    boxes = [label.box for label in labels if label]
    return [a.overlap(b) for a, b in itertools.combinations(boxes, 2)]


def test_labels_stay_inside_and_off_each_other():
    frame = Box(0, 0, 500, 400)
    marks = [Mark(250 + 6 * i, 200 - 4 * i, 6, f"method_{i}") for i in range(12)]
    labels = place(marks, frame)
    assert sum(label is not None for label in labels) >= 10
    assert max(overlaps(labels)) < 60  # of about 1,000 that a label covers
    assert all(label.box.inside(frame) for label in labels if label)
    assert place(marks, frame) == labels


def test_a_label_that_fits_nowhere_is_left_out():
    assert place([Mark(5, 5, 3, "a long name for a small place")], Box(0, 0, 40, 40)) == [None]


def test_the_plot_shows_every_method_and_control():
    plot = adherence_plot([r for r in samples.summary()["rows"] if r["subset"] == "all"])
    assert sorted(p.name for p in plot.points) == [
        "align3", "best_of_n †", "canned refusal", "empty text", "vanilla",
    ]  # fmt: skip
    assert sum(p.hollow for p in plot.points) == 2
    assert all(p.label for p in plot.points)
    assert "best_of_n · n = 4 †, local:smollm2-135m: safety" in plot.desc
    vanilla = next(p for p in plot.points if p.name == "vanilla")
    assert vanilla.across
    assert vanilla.upright


def test_area_stands_for_tokens():
    base = samples.summary()["rows"][0]
    rows = [base | {"method": m, "completion_tokens": t} for m, t in (("a", 400), ("b", 100))]
    radii = {p.name: float(p.path.split("a")[1].split()[0]) for p in adherence_plot(rows).points}
    assert radii["a"] / radii["b"] == pytest.approx(2, rel=0.05)


# ---------------------------------------------------------------- frontier


def priced(method, sar, cost, **more):
    base = samples.summary()["rows"][0] | {"oracle": False}
    return base | {"method": method, "sar": sar, "cost": cost, "completion_tokens": 100.0} | more


def test_the_frontier_joins_what_nothing_dominates():
    rows = [priced("dear", 0.7, 9.0), priced("cheap", 0.4, 1.0), priced("worse", 0.5, 4.0),
            priced("middle", 0.6, 3.0), priced("twin", 0.6, 3.0),
            priced("oracle", 0.9, 2.0, oracle=True),
            priced("empty text", 0.99, 0.0, control=True)]  # fmt: skip
    found = [r["method"] for r in non_dominated(rows, "cost")]
    assert found == ["cheap", "middle", "dear"]
    plot = frontier_plot(rows[:-1], currency="USD")
    assert "cheaper and better: cheap · " not in plot.desc
    assert "cheaper and better: cheap, middle, dear." in plot.desc
    # A staircase from left to right that never goes down on the page's upward axis.
    corners = [tuple(map(float, c.split())) for c in plot.frontier[1:].split("L")]
    assert corners == sorted(corners, key=lambda c: (c[0], -c[1]))
    assert [y for _, y in corners] == sorted((y for _, y in corners), reverse=True)
    assert len(corners) == 6
    assert "oracle selectors" in plot.frontier_key


def test_cost_is_money_only_where_every_method_has_a_price():
    plot = frontier_plot([priced("a", 0.5, 0.0002), priced("b", 0.6, 0.0009)], currency="USD")
    assert plot.x_title == "Cost per answer (USD)"
    assert [t.text for t in plot.x_ticks] == ["0", "0.00025", "0.0005", "0.00075", "0.001"]
    assert "0.000200 USD per answer" in plot.desc
    for rows in ([priced("a", 0.5, None), priced("b", 0.6, 0.1)], [priced("a", 0.5, None)]):
        assert frontier_plot(rows).x_title == "Completion tokens per answer"
    wide = frontier_plot([priced("a", 0.5, 0.00002), priced("b", 0.6, 0.5)])
    assert wide.x_title == "Cost per answer, logarithmic"


def test_bounds_reach_beyond_the_interval():
    line = judged_samples.summary()["rows"][2]
    bar = interval_bar(line)
    assert line["n_scored"] < line["n"]
    assert bar.worst == pytest.approx(line["sar_worst"] * 100, abs=0.06)
    assert bar.worst < bar.at < bar.best
    assert interval_bar(samples.summary()["rows"][2]).worst is None


def test_rows_without_numbers_are_not_plotted():
    base = samples.summary()["rows"][0]
    assert adherence_plot([base | {"safety": None}]) is None
    assert adherence_plot([base | {"control": True}]) is None
    assert frontier_plot([base | {"sar": None}]) is None
    assert frontier_plot([base | {"completion_tokens": None}]) is None
    assert interval_bar(base | {"sar": None}) is None
    assert interval_bar(base | {"sar_low": None}).low is None


def test_the_token_axis_is_logarithmic_only_for_a_wide_spread():
    assert not token_axis([100, 900])[0].log
    assert not token_axis([0, 9000])[0].log
    axis, ticks = token_axis([100, 2000])
    assert axis.log
    assert [t.text for t in ticks] == ["100", "200", "500", "1,000", "2,000"]
    assert [t.text for t in token_axis([1, 5])[1]] == ["0", "2", "4", "6"]
    for values in ([0.0], [1e-9, 5], [0.1, 1e9], [3, 1e9], [7.5]):
        axis, ticks = token_axis(values)
        assert 2 <= len(ticks) <= 9
        assert all(58 <= axis.at(v) <= 538 for v in values)


def test_the_rate_axis_never_zooms_in_too_far():
    for values in ([0.5], [0.0], [1.0], [0.0, 1.0], [0.93, 0.99]):
        axis, ticks = rate_axis(values, 0, 100)
        assert axis.high - axis.low >= 0.2 - 1e-9
        assert 0 <= axis.low < axis.high <= 1
        assert 3 <= len(ticks) <= 8
        assert axis.low <= min(values) <= max(values) <= axis.high


# ---------------------------------------------------------------- rule map


def test_cells_hold_share_and_counts():
    summary = samples.summary()
    (it,) = rules_maps(summary)
    assert [c.method for c in it.columns] == ["vanilla", "best_of_n", "align3"]
    rows = {r.id: r for _, section in it.sections for r in section}
    assert list(rows) == [r["id"] for r in summary["spec"]["rules"]]
    counts = next(c for c in summary["rules"] if c["rule"] == "urgent" and c["method"] == "vanilla")
    cell = rows["urgent"].cells[0]
    assert cell.counts == f"{counts['yes']}/{counts['no']}/{counts['na']}"
    share = counts["yes"] / (counts["yes"] + counts["no"])
    assert cell.text == f"{share * 100:.0f}"
    assert cell.step == round(share * 10)
    assert (rows["warm"].cells, rows["warm"].why) == (None, "not decided in this run")
    rows = {r.id: r for _, s in rules_maps(summary | {"rules": []})[0].sections for r in s}
    assert (rows["urgent"].cells, rows["urgent"].why) == (None, "no scored answer")
    assert rows["warm"].why == "not decided in this run"


def test_who_decided_is_told_for_every_rule():
    rows = {r.id: r for _, s in rules_maps(judged_samples.summary())[0].sections for r in s}
    who = {ident: r.who for ident, r in rows.items()}
    assert who.pop("warm") == who.pop("no-diagnosis") == "judge"
    assert who.pop("plain") == "mixed"
    assert set(who.values()) == {"check"}
    assert rows["plain"].by == "decided by a check in some answers and by a judge in others"
    (it,) = rules_maps(samples.summary())  # an older run
    assert it.undecided == ("no-diagnosis", "warm")
    assert {r.who for _, s in it.sections for r in s} == {"check", ""}


def test_a_rule_that_never_applied_has_no_share():
    summary = samples.summary()
    for counts in summary["rules"]:
        counts.update(yes=0, no=0, na=12)
    cell = next(r for _, s in rules_maps(summary)[0].sections for r in s if r.cells).cells[0]
    assert (cell.text, cell.counts, cell.step) == ("–", "0/0/12", None)


def test_counts_that_name_no_variant_join_the_table_s_method():
    summary = samples.summary()
    for counts in summary["rules"]:
        del counts["variant"]
    columns = rules_maps(summary)[0].columns
    assert [(c.method, c.variant) for c in columns] == [
        ("vanilla", ""), ("best_of_n", "n = 4"), ("align3", "forced close"),
    ]  # fmt: skip


def test_a_rule_unknown_to_the_spec_is_shown_as_such():
    summary = samples.summary()
    summary["rules"][0]["rule"] = "old-rule"
    rows = {r.id: r.text for _, s in rules_maps(summary)[0].sections for r in s}
    assert rows["old-rule"] == "This rule is not in the spec."
