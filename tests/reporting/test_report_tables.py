"""The table in the terminal and in Markdown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from adhere.reporting import summary_table, to_markdown, to_rich
from reporting import report_samples as samples


def in_terminal(table, width=100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(to_rich(table))
    return out.getvalue()


def row(**changes):
    return samples.summary()["rows"][0] | changes


def test_columns_rows_and_order():
    table = summary_table(samples.summary())
    assert [c.key for c in table.columns] == [
        "method", "scored", "safety", "behavioral", "sar", "diff", "cut", "empty", "refused",
        "tokens", "seconds",
    ]  # fmt: skip
    names = [r.cells["method"].text for r in table.rows]
    assert names == ["vanilla", "best_of_n †", "align3", "empty text", "canned refusal"]
    assert [r.control for r in table.rows] == [False, False, False, True, True]
    assert table.columns[5].title == "SAR vs vanilla"


def test_numbers_are_the_summary_s():
    summary = samples.summary()
    source = summary["rows"][1]
    cells = summary_table(summary).rows[1].cells
    assert cells["sar"].text == f"{source['sar']:.3f}"
    assert cells["sar"].interval == (f"[{source['sar_low']:.3f}, {source['sar_high']:.3f}]")
    assert cells["diff"].text == f"+{source['sar_diff']:.3f}"
    assert cells["scored"].text == "11/12"
    assert cells["scored"].notes == ("1 unscored",)
    assert summary_table(summary).rows[0].cells["diff"].text == "baseline"


def test_a_difference_is_clear_only_when_its_interval_leaves_zero_out():
    def clear(low, high):
        return summary_table({"rows": [row(sar_diff_low=low, sar_diff_high=high)]}).rows[0].clear

    assert clear(0.01, 0.2)
    assert clear(-0.2, -0.01)
    assert not clear(-0.01, 0.2)
    assert not clear(0.0, 0.2)
    assert not clear(None, 0.2)


def test_null_is_a_dash_never_zero():
    keep = ("suite", "subset", "model", "method", "judge", "n")
    none = {k: v if k in keep else None for k, v in row().items()}
    table = summary_table({"rows": [none | {"n": 3, "n_scored": 0, "n_failed": 3}]})
    cells = table.rows[0].cells
    assert {cells[k].text for k in ("safety", "behavioral", "sar", "diff", "cut")} == {"–"}
    assert cells["scored"].text == "0/3"
    assert "3 failed" in in_terminal(table)
    assert "0.000" not in in_terminal(table)


@pytest.mark.parametrize("render", [in_terminal, to_markdown])
def test_every_outcome_and_footnote_is_there(render):
    text = " ".join(render(summary_table(samples.summary())).replace("\\", "").split())
    for wanted in (
        "1 unscored", "1 failed", "1 truncated", "† Oracle selector", "Forced close:",
        "Controls call no model", "counts as not followed", "2 of 8 rules", "no-diagnosis, warm",
        "95% bootstrap",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_a_row_is_counted_under_one_outcome():
    def notes(**counts):
        zero = dict.fromkeys(("n_unscored", "n_failed", "n_truncated", "n_filtered"), 0)
        found = row(n=12, n_scored=8, **zero | counts)
        return summary_table({"rows": [found]}).rows[0].cells["scored"].notes

    # The producer may count truncated rows among the unscored ones, or apart from them.
    apart = ("1 unscored", "1 failed", "2 truncated")
    assert notes(n_unscored=3, n_failed=1, n_truncated=2) == apart
    assert notes(n_unscored=1, n_failed=1, n_truncated=2) == apart
    assert notes(n_unscored=4, n_truncated=3, n_filtered=1) == ("3 truncated", "1 filtered")
    assert notes(n_unscored=4) == ("4 unscored",)


def test_the_baseline_is_the_row_that_others_name():
    rows = [row(model=m, method=x, baseline=b, sar_diff=d) for m in "ab"
            for x, b, d in (("vanilla", "", None), ("repair", "vanilla", 0.1))]  # fmt: skip
    rows.append(row(model="c", method="vanilla", baseline="", sar_diff=None))
    table = summary_table({"rows": rows})
    said = [r.cells["diff"].text for r in table.rows]
    assert said == ["baseline", "+0.100", "baseline", "+0.100", "–"]


def test_footnotes_only_where_they_apply():
    table = summary_table({"rows": [row(na_policy="exclude")]})
    assert any("left out of the score" in n for n in table.notes)
    assert not any("Oracle" in n or "Forced" in n or "Controls" in n for n in table.notes)


def test_it_fits_100_columns_whole():
    wide = row(
        method="attributed_best_of_n", variant="forced close", oracle=True, n=12000, n_scored=12000,
        n_truncated=1000, safety=1.0, behavioral=1.0, sar=1.0, sar_low=1.0, sar_high=1.0,
        sar_diff=-1.0, sar_diff_low=-1.0, sar_diff_high=-0.5, completion_tokens=12345.0,
        seconds=1234.0, share_cut=1.0, share_empty=0.0, share_refused=1.0,
    )  # fmt: skip
    text = in_terminal(summary_table({"rows": [wide]}))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    for number in ("12,345", "1,234", "[1.000, 1.000]", "−1.000", "100/0/100", "[−1.000, −0.500]"):
        assert number in text, number


def test_several_suites_and_models_are_grouped():
    rows = [row(model=m, suite=s) for s in ("health", "travel") for m in ("a", "b")]
    rows.insert(0, row(model="", suite="health", control=True, method="empty text"))
    table = summary_table({"rows": rows})
    assert [name for name, _ in table.groups] == [
        "health · a", "health · b", "health · controls", "travel · a", "travel · b",
    ]  # fmt: skip
    assert "travel · b" in in_terminal(table)
    assert "| travel · b |" in to_markdown(table)


def test_names_cannot_act():
    name = "[red]x[/red]|<b>\x1b[31m\n[a](javascript:1)"
    table = summary_table({"rows": [row(method=name)]})
    text, markdown = in_terminal(table), to_markdown(table)
    assert "\x1b" not in text + markdown
    assert "[red]" in text.replace("\n", "")
    line = next(x for x in markdown.splitlines() if "red" in x)
    assert line.replace("\\|", "").count("|") == 12
    assert "<b>" not in markdown
    assert "](" not in markdown.replace("\\]", "")


def test_subsets_and_limits():
    summary = samples.summary()
    assert summary_table(summary, "unsafe").rows[0].cells["scored"].text == "4/4"
    assert "No rows in the subset" in in_terminal(summary_table(summary, "safe", limit=0))
    assert "No rows" in to_markdown(summary_table({"rows": []}))
    cut = summary_table(summary, limit=2)
    assert len(cut.rows) == 2
    assert "Showing 2 of 5 rows" in to_markdown(cut)
