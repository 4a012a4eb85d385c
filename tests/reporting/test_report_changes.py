"""The section on what each method fixes and breaks, and the same for the terminal."""

from __future__ import annotations

import asyncio
import io
import re
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from adhere.reporting import render_report
from adhere.reporting.changes import HALF, changes_table, changes_view
from reporting import judged_samples as judged
from reporting import report_samples as plain
from reporting.chromium import CHROMIUM, chromium
from reporting.test_report_page import HOSTILE, Page


def entry(rule: str = "short", method: str = "align3", **changes) -> dict:
    return {
        "suite": "prompts", "model": plain.MODEL, "method": method, "baseline": "vanilla",
        "rule": rule, "n_paired": 80, "n_cases": 80, "fixed": 24, "broken": 4, "na_changes": 0,
        "applied_before": 80, "applied_after": 80, "before": 0.5, "after": 0.75, "diff": 0.25,
        "diff_low": 0.12, "diff_high": 0.37, "p": 0.0002, "p_holm": 0.001, "verdict": "fixes",
        "sure": True,
    } | changes  # fmt: skip


STILL = {"fixed": 0, "broken": 0, "diff": 0.0, "diff_low": -0.04, "diff_high": 0.04, "p": 1.0,
         "p_holm": 1.0, "verdict": "", "sure": False}  # fmt: skip
WORSE = {"fixed": 2, "broken": 12, "diff": -0.125, "diff_low": -0.21, "diff_high": -0.03,
         "p": 0.01, "p_holm": 0.06, "verdict": "breaks", "sure": False, "na_changes": 3}  # fmt: skip
VAGUE = {"fixed": 5, "broken": 3, "diff": 0.025, "diff_low": -0.05, "diff_high": 0.1, "p": 0.7,
         "p_holm": 1.0, "verdict": "", "sure": False}  # fmt: skip
ENTRIES = [
    entry("short"), entry("answers", **WORSE), entry("plain", **VAGUE), entry("urgent", **STILL),
    entry("short", "best_of_n", **STILL), entry("sections", "best_of_n"),
]  # fmt: skip


def summary(entries=ENTRIES, **changes) -> dict:
    return plain.summary() | {"rule_changes": entries} | changes


def section(made: dict) -> str:
    html = render_report(made, plain.rows(), plain.config())
    assert Page(html).open == []
    start = html.index('<section id="changes"')
    return html[start : html.index("</section>", start) + 10]


def shown(made: dict, width: int = 100) -> str:
    out = io.StringIO()
    table = changes_table(made, width)
    if table is not None:
        Console(file=out, width=width).print(table)
    return out.getvalue()


@pytest.mark.parametrize("old", [{}, {"rule_changes": []}, {"rule_changes": None}])
def test_a_run_without_such_numbers_has_no_section(old):
    made = plain.summary() | old
    html = render_report(made, plain.rows(), plain.config())
    assert 'id="changes"' not in html
    assert 'href="#changes"' not in html
    assert html == render_report(plain.summary(), plain.rows(), plain.config())
    assert changes_view(made) is None
    assert changes_table(made) is None


def test_each_method_tells_what_it_fixes_and_breaks():
    html = section(summary())
    text = Page(html).text
    for said in (
        "align3 · forced close against vanilla", "Fixes short . Breaks answers .",
        "No answer changed: urgent.", "4 24 80 +0.250 [+0.120, +0.370]",
        "12 2 80 3 applied to one only −0.125 [−0.210, −0.030]",
        "Of 6 such comparisons one may do so by chance alone",
        "those called sure (2) hold with all of them counted",
        "best_of_n · n = 4 † against vanilla", "† Oracle selector",
    ):  # fmt: skip
        assert said in text, said
    # From the most fixed to the most broken; what did not change has no line.
    align3 = html[html.index("align3") : html.index("best_of_n · n = 4")]
    lines = re.findall(r'<th scope="row"[^>]*><span class="id">(\w+)', align3)
    assert lines == ["short", "plain", "answers"]
    assert "At most 150 words." in html  # the rule's text, where the pointer rests
    assert "size was fixed before" not in text
    assert "the same weight" not in text


def test_the_picture_is_to_scale_and_all_have_one_scale():
    view = changes_view(summary())
    assert view.scale == 0.4  # the least round one that holds 0.37
    short, vague, answers = view.methods[0].rows
    unit = HALF / 0.4
    assert short.picture.fixed == pytest.approx(24 / 80 * unit)
    assert short.picture.broken == pytest.approx(-4 / 80 * unit)
    assert short.picture.at == pytest.approx(0.25 * unit)
    assert (answers.picture.low, answers.picture.high) == pytest.approx(
        (-0.21 * unit, -0.03 * unit), abs=0.06
    )
    assert vague.verdict == ""
    html = section(summary())
    assert html.count("−40%") == html.count("+40%") == 2
    bar = re.search(r'<rect class="k-failed" x="(\S+)" y="1" width="(\S+)"', html)
    assert float(bar[1]) == -float(bar[2])


def test_what_the_numbers_cannot_promise_is_said():
    early = {"half_width": 0.05, "level": 0.95, "method": "x", "suites": {}}
    assert "size was fixed before" in section(summary(until_ci=early))
    repeated = [entry(n_cases=40)]
    assert "the same weight" in section(summary(repeated))
    unsure = section(summary([entry(sure=False)]))
    assert "none is called sure" in unsure
    assert ", sure" not in unsure
    many = section(summary([entry(f"r{i}", **VAGUE) for i in range(100)]))
    assert "up to about 5 may do so by chance" in many
    assert "Fixes and breaks nothing beyond the uncertainty" in many


def test_models_and_suites_are_named_where_there_are_several():
    text = Page(section(summary([entry(), entry(model="other", suite="mine")]))).text
    assert "against vanilla · other, mine" in text
    assert "against vanilla · " not in Page(section(summary())).text


def test_rules_of_a_judge_that_is_not_believed_are_left_out():
    made = judged.summary(withheld=True)
    for counts in made["rules"]:
        counts["deciders"] = {"check": 12}
        if counts["rule"] == "warm":
            counts["deciders"] = {judged.JUDGE: 12}
        if counts["rule"] == "plain":
            counts["deciders"] = {"check": 6, judged.JUDGE: 6}
    ids = ("short", "warm", "plain", "unheard-of")
    made["rule_changes"] = [entry(rule, diff=0.111 + at / 1000) for at, rule in enumerate(ids)]
    html = section(made)
    assert "+0.111" in html
    for said in ("+0.112", "+0.113", "+0.114"):
        assert said not in html
    assert "not believed here: warm, plain, unheard-of." in Page(html).text
    assert "Of 1 such comparisons" in Page(html).text
    printed = shown(made)
    assert "short" in printed
    assert "+0.112" not in printed
    assert "warm, plain" in " ".join(printed.split())
    believed = judged.summary() | {"rule_changes": made["rule_changes"]}
    assert "+0.112" in section(believed)
    nothing_left = made | {"rule_changes": made["rule_changes"][1:2]}
    assert "not believed here: warm." in Page(section(nothing_left)).text
    assert shown(nothing_left) == ""


def test_too_many_lines_are_counted_and_the_clearest_stay():
    many = [entry(f"r{i}", **VAGUE) for i in range(50)] + [entry("clear"), entry("worse", **WORSE)]
    view = changes_view(summary(many), max_rows=10)
    assert sum(len(m.rows) for m in view.methods) == 10
    assert view.left_out == 42
    assert view.methods[0].fixes == ("clear",)
    assert view.methods[0].breaks == ("worse",)
    assert view.tests == 52
    html = section(summary([entry(f"r{i}", **VAGUE) for i in range(1000)]))
    assert "600 more lines are in summary.json" in html


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_from_outside_are_data(text):
    made = summary([entry(text, method=text, baseline=text, model=text, suite=text, verdict=text)])
    made["spec"]["rules"].append({"id": text, "kind": "safety", "text": text})
    page = Page(render_report(made, plain.rows(), plain.config()))
    assert page.open == []
    assert len(page.all("script")) == len(page.all("style")) == 1
    known = {name for _, attrs in Page(section(summary())).elements for name in attrs}
    assert {name for _, attrs in Page(section(made)).elements for name in attrs} <= known
    out = shown(summary([entry(text, method=text)]))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out)


def test_odd_entries_do_not_break_the_page():
    odd = [3, "x", {}, {"rule": None, "fixed": "many", "diff": "x"}, entry(n_paired=0),
           entry(diff=None, diff_low=None, diff_high=None, p=None), entry(fixed=float("nan")),
           entry(verdict=7, sure="yes", na_changes=[])]  # fmt: skip
    html = section(summary(odd))
    assert "nan" not in html.lower()
    assert "None" not in Page(html).text


def test_huge_entries_stay_within_the_limit():
    huge = '<&"🙂>' * 2_000
    many = [entry(f"{i}{huge}", method=f"{i % 50}{huge}") for i in range(5_000)]
    html = render_report(summary(many), plain.rows(), plain.config())
    assert len(html.encode()) <= 2_000_000
    assert "more lines are in summary.json" in html


# ---------------------------------------------------------------- terminal


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_has_what_is_fixed_and_broken(width):
    printed = shown(summary(), width)
    assert all(len(line) <= width for line in printed.splitlines())
    words = " ".join(printed.split())
    assert "short fixes ! 24 4 80 +0.250 [+0.120, +0.370]" in words
    assert "answers breaks 2 12 80 −0.125 [−0.210, −0.030]" in words
    assert "1 more moved within their uncertainty." in words
    assert "! stays so with all 6 tests counted." in words
    assert "plain" not in words
    assert shown(summary([entry(**VAGUE)])) == ""


def test_names_are_no_markup():
    assert "[red]x[/red]" in shown(summary([entry("[red]x[/red]")]), 140)


# ---------------------------------------------------------------- in a browser


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on this machine")
@pytest.mark.parametrize("width", [1280, 400])
def test_pictures_are_drawn_and_nothing_widens_the_page(width):
    html = render_report(summary(), plain.rows(), plain.config())

    async def go():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            page = Path(folder) / "report.html"
            page.write_text(html, "utf-8")
            async with chromium(Path(folder) / "profile") as tab:
                await tab.open(page.as_uri(), width=width)
                boxes = await tab.ask(
                    "[...document.querySelectorAll('#changes td .bar')].map(b => {"
                    " const at = (s) => b.querySelector(s)?.getBoundingClientRect();"
                    " const [red, blue] = [at('.k-failed'), at('.k-scored')];"
                    " return [red?.width ?? 0, blue?.width ?? 0,"
                    "   red && blue ? blue.left - red.right : 0] })"
                )
                wide = await tab.ask("document.documentElement.scrollWidth - innerWidth")
                fills = await tab.ask(
                    "['k-failed', 'k-scored'].map(c => getComputedStyle("
                    "document.querySelector(`#changes .${c}`)).fill)"
                )
                return boxes, wide, fills, tab.console

    boxes, wide, fills, console = asyncio.run(go())
    assert console == []
    assert wide <= 0
    assert len(boxes) == 4
    assert boxes[0][1] / boxes[0][0] == pytest.approx(24 / 4, rel=0.1)
    assert all(abs(gap) < 0.6 for _, _, gap in boxes)
    assert fills[0] != fills[1]
