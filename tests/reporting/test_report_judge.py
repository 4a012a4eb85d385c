"""The sections on judge, outcomes, cost and edits; what is withheld; old runs without any of it."""

from __future__ import annotations

import json
import re

import pytest

from adhere.errors import BadInput
from adhere.reporting import formats as f
from adhere.reporting import headline, render_report, summary_table, to_markdown, write_report
from adhere.reporting.edits import edits_view, pieces
from adhere.reporting.outcomes import bounds_grid, cost_grid, outcome_grid
from adhere.reporting.trust import trust_view
from adhere.reporting.withheld import judged_measures, withhold
from reporting import judged_samples as judged
from reporting import report_samples as plain
from reporting.test_report_page import HOSTILE, Page

SECTIONS = ("judge", "edits")


def render(summary=None, rows=None) -> str:
    return render_report(
        judged.summary() if summary is None else summary,
        judged.rows() if rows is None else rows,
        plain.config(),
    )


def section(html: str, name: str) -> str:
    start = html.index(f'<section id="{name}"')
    return Page(html[start : html.index("</section>", start) + 10]).text


@pytest.fixture(scope="module")
def html() -> str:
    return render()


def test_an_old_run_has_no_such_sections():
    html = render(plain.summary(), plain.rows())
    assert not any(f'id="{name}"' in html for name in SECTIONS)
    assert "How the rows ended" in html
    assert "Judge tokens" not in html
    assert "p95" not in html
    assert "worst and best case" not in html
    assert "None" not in Page(html).text


def test_nulls_in_every_new_field_are_the_same_as_none():
    summary = plain.summary() | dict.fromkeys(
        ("currency", "spent_cost", "judges", "judge_trust", "failures", "stopped", "edits")
    )
    for row in summary["rows"]:
        row.update(dict.fromkeys(("sar_worst", "sar_best", "seconds_p50", "cost")))
    assert render(summary, plain.rows()) == render(plain.summary(), plain.rows())


# ---------------------------------------------------------------- judge


def test_the_judge_s_section_names_it_and_shows_every_measure(html):
    text = section(html, "judge")
    for said in (
        judged.JUDGE, "joint", "1 of 33 (3%)", "46,200", "198 marks in 33 rows", "AUC",
        "0.880 [0.810, 0.940]", "120 labels given by people (labels.jsonl)",
        "on 2 more the judge gave no mark", "18 / 4 / 4 / 34", "Rogan and Gladen (1978)",
        "0.780 0.840 [0.660, 0.970]",
    ):  # fmt: skip
        assert said in text, said
    view = trust_view(judged.summary())
    assert [r[0].text for r in view.twins.rows] == ["all together", *plain.DECIDED]
    assert view.twins.rows[1][3].text == "–"  # no violation: no sensitivity, not zero
    assert len(view.corrected.rows) == 6  # the subset "all" only
    assert view.unknown is False
    assert "is not known" not in text


@pytest.mark.parametrize("trust", [None, {"twins": None, "calibration": None, "corrected": []}])
def test_a_judge_that_nothing_was_compared_with_is_said_to_be_unknown(trust):
    html = render(judged.summary(judge_trust=trust))
    assert "how far this judge can be trusted is not known" in section(html, "judge")
    older = judged.summary(judge_trust=trust)
    del older["judges"]
    text = section(render(older), "judge")
    assert "how far this judge can be trusted is not known" in text
    assert judged.JUDGE in text


def test_one_of_both_is_enough_to_know_something():
    for gone in ("twins", "calibration"):
        summary = judged.summary()
        summary["judge_trust"][gone] = None
        assert trust_view(summary).unknown is False


def test_withheld_numbers_stand_nowhere_as_a_result():
    summary = judged.summary(withheld=True)
    html = render(summary)
    assert judged_measures(summary) == ("safety", "behavioral", "sar")
    result = section(html, "result")
    assert result.index("Judged numbers are withheld") < result.index("No headline")
    assert summary["headline"] not in Page(html).text
    assert headline(summary).startswith("No headline")
    assert "AUC on twin rules 0.610 is below 0.75." in result
    assert "Nothing to plot: the rates are withheld." in section(html, "tradeoff")
    assert 'class="mark"' not in html
    for line in summary["rows"]:
        for key in ("safety", "behavioral", "sar"):
            assert not re.search(rf"(?<!\d){re.escape(f.interval(line[f'{key}_low'], line[f'{key}_high']))}", result)  # fmt: skip
    markdown = to_markdown(summary_table(summary))
    assert "– (withheld)" in markdown
    assert not re.search(r"\[0\.\d", markdown)
    assert "not believed here" in section(html, "rules")
    assert "0.050" not in section(html, "edits")
    assert withhold(withhold(summary)) == withhold(summary)


def test_rates_of_checks_alone_stay():
    summary = judged.summary(withheld=True)
    for counts in summary["rules"]:
        if counts["rule"] != "no-diagnosis":
            counts["deciders"] = {"check": 12}
    cells = summary_table(summary).rows[0].cells
    assert cells["safety"].text == cells["sar"].text == cells["diff"].text.replace("baseline", "–")
    assert cells["behavioral"].text == f.score(summary["rows"][0]["behavioral"])
    for counts in summary["rules"]:
        counts["deciders"] = {"check": 12}
    assert withhold(summary) is summary
    assert headline(summary) == summary["headline"]


def test_a_headline_that_already_says_so_is_kept():
    said = "Checks alone: vanilla follows 0.8; judged numbers are withheld."
    assert headline(judged.summary(withheld=True, headline=said)) == said


# ---------------------------------------------------------------- outcomes, cost


def test_every_outcome_has_its_count_and_a_denominator(html):
    text = section(html, "outcomes")
    assert "align3 forced close 10 0 1 1 0 2 of 12 (17%)" in text
    assert "Timeout" in text
    assert 'aria-label="scored 83 %, failed 8 %, truncated 8 %"' in html
    assert "rows without a verdict 3 of 36 (8%)" in section(html, "result")
    (vanilla, *_) = outcome_grid(judged.summary()["rows"][:3]).rows
    assert [p.kind for p in vanilla[1].stack] == ["scored"]
    assert vanilla[-1].text == "0 of 12 (0%)"


def test_parts_of_a_bar_fill_it_and_keep_their_order():
    row = plain.summary()["rows"][0] | {
        "n": 1000, "n_scored": 400, "n_unscored": 451, "n_failed": 149, "n_truncated": 250,
        "n_filtered": 1,
    }  # fmt: skip
    (line,) = outcome_grid([row]).rows
    stack = line[1].stack
    assert [p.kind for p in stack] == ["scored", "unscored", "failed", "truncated", "filtered"]
    assert [p.start for p in stack] == [0.0, 40.0, 60.0, 74.9, 99.9]
    assert min(p.width for p in stack) >= 0.6  # one of a thousand is still seen


def test_bounds_are_told_only_where_a_verdict_is_missing(html):
    rows = [r for r in judged.summary()["rows"] if r["subset"] == "all"]
    grid = bounds_grid(rows)
    assert [r[0].text for r in grid.rows] == ["best_of_n", "align3"]
    row = rows[2]
    assert grid.rows[1][-1].text == f"{f.score(row['sar_worst'])} to {f.score(row['sar_best'])}"
    assert "worst and best case" in section(html, "result")
    assert html.count('class="bounds"') >= 2


def test_stopped_and_failures_are_told():
    html = render(judged.summary(stopped="the token budget of 30,000 is spent", finished=False))
    assert "This run stopped early. the token budget of 30,000" in section(html, "result")


def test_cost_keeps_the_judge_apart(html):
    text = section(html, "cost")
    for said in ("Cost (USD)", "0.000136", "Judge tokens in", "1,400", "p95 seconds",
                 "The whole run cost 0.0213 USD.", "Mean usage per answer, by role"):  # fmt: skip
        assert said in text, said
    grid = cost_grid([r for r in judged.summary()["rows"] if r["subset"] == "all"])
    assert len(grid.rows) == 3  # no controls
    row = judged.summary()["rows"][0]
    assert [c.text for c in grid.rows[0]][-2:] == [
        f.seconds(row["seconds_p50"]), f.seconds(row["seconds_p95"]),
    ]  # fmt: skip
    assert cost_grid([]) is None


# ---------------------------------------------------------------- edits


def test_each_edit_shows_its_text_and_what_it_moved(html):
    text = section(html, "edits")
    for said in (
        "runs/before-the-edit (spec version 2)", "answers reused 33", "marks new 66", "reworded",
        "0.500 → 0.800", "+0.300 [+0.040, +0.560]", "– → 0.800", "−0.020 [−0.050, +0.010]",
        "Moved otherwise", "+0.010",
    ):  # fmt: skip
        assert said in text, said
    assert '<del><span class="sr">removed: </span>200</del>' in html
    assert '<ins><span class="sr">added: </span>150</ins>' in html
    view = edits_view(judged.summary(), 400, 4000)
    assert [(e.edit, e.rule, len(e.moved.rows)) for e in view.edits] == [
        ("reworded", "short", 3), ("added", "warm", 1), ("removed", "no-jokes", 1),
    ]  # fmt: skip
    assert edits_view(judged.summary(), 2, 4000).left_out == 3


def test_pieces_give_both_texts_back():
    for before, after in (("", "New."), ("Old.", ""), ("a b c", "a x c"), ("é\n🙂", "🙂é")):
        found = pieces(before, after)
        assert "".join(t for k, t in found if k != "ins") == before
        assert "".join(t for k, t in found if k != "del") == after
    assert pieces("same", "same") == (("same", "same"),)
    long = pieces("x " * 100_000, "y " * 100_000)
    assert sum(len(t) for _, t in long) < 10_000
    assert "cut" in long[-1][1]


# ---------------------------------------------------------------- answers


def test_marks_say_who_decided_and_where_the_judge_saw_it_otherwise(html):
    data = judged.rows()
    differ = sum(
        twin != row["marks"][rule] for row in data for rule, twin in row.get("twins", {}).items()
    )
    assert differ > 0
    assert Page(html).text.count("the judge said NO") == differ
    assert "judge asked again 1×" in html
    assert "judge asked again 1×" not in render(plain.summary(), plain.rows())


def test_a_step_that_is_the_answer_is_not_repeated():
    rows = plain.rows()
    rows[0]["steps"] = [{"name": "draft", "text": rows[0]["text"], "finish_reason": "stop"}]
    assert "As the answer above." in render(plain.summary(), rows)


def test_reasons_about_unsafe_answers_are_veiled(html):
    for chunk in html.split('<details class="case"')[1:]:
        reasons = re.findall(r'<bdi class="([^"]*)">', chunk.split("</section>")[0])
        assert reasons
        assert {r == "why veil" for r in reasons} == {"l-unsafe" in chunk}


# ---------------------------------------------------------------- hostile, broken, bounded


def _poisoned(value, text):
    """The value with every text in it, and every key that is a name, made hostile."""
    if isinstance(value, dict):
        return {
            (text + k if "@" in k else k): _poisoned(v, text) if k != "withheld" else v
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_poisoned(v, text) for v in value]
    return text + value if isinstance(value, str) else value


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("withheld", [False, True])
def test_texts_of_judges_and_edits_are_data(text, withheld, html):
    was = Page(html)
    summary = judged.summary(withheld=withheld)
    for key in ("currency", "judges", "judge_trust", "failures", "edits", "rules"):
        summary[key] = _poisoned(summary[key], text)
    summary["stopped"] = text
    calibration = summary["judge_trust"]["calibration"]
    calibration["rules"] = {text + k: v for k, v in calibration["rules"].items()}
    rows = judged.rows()
    for row in rows:
        row["twins"] = dict.fromkeys(row["marks"], text)
        row["deciders"] = {rule: text + rule for rule in row["marks"]}
        row["label"], row["outcome"] = text, row["outcome"] + text
        row["marks"] = {rule + text: mark for rule, mark in row["marks"].items()}
    page = Page(render(summary, rows))
    assert page.open == []
    allowed = {t for t, _ in was.elements} | {"tbody", "li"}
    assert {t for t, _ in page.elements} <= allowed
    known = {name for _, attrs in was.elements for name in attrs}
    assert {name for _, attrs in page.elements for name in attrs} <= known
    assert len(page.all("script")) == len(page.all("style")) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("judges", {}), ("failures", [1]), ("judge_trust", []), ("edits", "x")],
)
def test_a_new_field_of_another_shape_is_named(tmp_path, key, value):
    run = judged.write_run(tmp_path)
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    (run / "summary.json").write_text(json.dumps(summary | {key: value}), "utf-8")
    with pytest.raises(BadInput, match=key):
        write_report(run)


def test_odd_things_inside_new_fields_do_not_break_the_page():
    odd = {"twins": [1], "calibration": "x", "corrected": {"a": 1}, "why": None, "withheld": "yes"}
    summary = judged.summary(
        judge_trust=odd, currency=7, stopped=None, spent_cost="much",
        judges=[{"usage": [1], "n_rows": "many"}], failures=[{}],
        edits={"rows": [{}, 3], "unchanged": None, "spec_before": 1},
    )  # fmt: skip
    for row in summary["rows"]:
        row.update(sar_worst="x", sar_best=None, cost="dear", seconds_p50=[], usage_by_role=[1])
    for counts in summary["rules"]:
        counts["deciders"] = ["check"]
    assert Page(render(summary)).open == []


def test_huge_new_fields_stay_within_the_limit():
    huge = '<&"🙂>' * 2_000
    summary = judged.summary()
    rule = {"rule": huge, "n": 1, "auc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    summary["judges"] = [{"identity": huge, "mode": huge, "model": huge}] * 3_000
    summary["judge_trust"]["twins"]["rules"] = [rule] * 3_000
    summary["judge_trust"]["calibration"]["rules"] = {f"{i}{huge}": rule for i in range(3_000)}
    summary["judge_trust"]["corrected"] = [rule | {"method": huge, "method_name": huge}] * 3_000
    summary["failures"] = [{"outcome": huge, "kind": huge, "reason": huge, "count": 1}] * 3_000
    edit = summary["edits"]["rows"][0] | {"before_text": huge, "after_text": huge[::-1]}
    summary["edits"]["rows"] = [edit | {"rule": f"{i}{huge}"} for i in range(3_000)]
    summary["edits"]["unchanged"] *= 1_000
    html = render(summary)
    assert len(html.encode()) <= 2_000_000
    assert Page(html).open == []
    assert "more lines are in summary.json" in html
