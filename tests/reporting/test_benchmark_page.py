"""The benchmark's page and its texts: numbers, links, hostile names, and a look in a browser."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from adhere.errors import AdhereError
from adhere.experiments.benchmark_table import benchmark_table
from adhere.reporting.benchmark import (
    benchmark_csv,
    benchmark_latex,
    benchmark_markdown,
    benchmark_text_table,
    render_benchmark,
    write_benchmark_report,
)
from adhere.reporting.forest import forests
from reporting.benchmark_samples import PARTS, rows, write_part, write_parts
from reporting.chromium import CHROMIUM, chromium
from reporting.test_report_browser import CONTRASTS

NASTY = "<script>alert(1)</script> & \u202eevil"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"), spoil=3, controls=True)


@pytest.fixture(scope="module")
def table(folders):
    return benchmark_table(folders, name="specbench")


@pytest.fixture(scope="module")
def withheld(tmp_path_factory):
    made = write_parts(tmp_path_factory.mktemp("held"), ("Child", "Health"), withheld=True)
    return benchmark_table(made, name="x")


def row(table, method, part=None, subset="all"):
    return next(
        r for r in table["rows"] if (r["method"], r["part"], r["subset"]) == (method, part, subset)
    )


def shown(html):
    """What a reader sees: no style, no script."""
    return re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)


# ---------------------------------------------------------------- the page


def test_the_page_has_every_number_and_a_link_to_each_scenario(folders, table, tmp_path):
    write_benchmark_report(tmp_path, table)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    for part in (None, *PARTS):
        for subset in ("all", "unsafe", "safe"):
            found = row(table, "align3", part, subset)
            assert f"{100 * found['sar']:.2f}" in html
            ends = f"[{100 * found['sar_low']:.2f}, {100 * found['sar_high']:.2f}]"
            assert ends in html
    for part in PARTS:
        assert html.count(f'href="./{part}/report.html"') == 4  # three subsets, and the list
    assert table["headline"] in html
    assert "150 (100 unsafe, 50 safe)" in shown(html)
    assert "3 unscored" not in shown(html).split("Scenario by scenario")[0]  # 10 over all parts
    assert "10 unscored" in shown(html)


def test_equal_input_gives_equal_bytes_and_nothing_is_loaded(table):
    html = render_benchmark(table)
    assert html == render_benchmark(table)
    assert not re.search(r'(?:src|href)="(?!#|\./|data:,)', html)
    assert "default-src &#39;none&#39;" in html


def test_incomplete_and_withheld_stand_on_top(tmp_path, withheld):
    made = write_parts(tmp_path, ("Child",))
    made["Travel"] = tmp_path / "Travel"
    html = shown(render_benchmark(benchmark_table(made, name="x")))
    assert "This benchmark is not whole." in html
    assert "Travel (not run yet)" in html
    assert 'href="./Travel/report.html"' not in html
    html = shown(render_benchmark(withheld))
    assert "Judged numbers are withheld" in html
    assert not re.search(r"\d\d\.\d\d", html)
    assert "<svg viewBox" not in html  # nothing is drawn


def test_names_from_outside_stay_names(tmp_path):
    made = rows("Child", methods={"vanilla": (0.8, 0.6, 9), NASTY: (0.9, 0.9, 9)}, model=NASTY)
    folder = write_part(tmp_path / "a b#?%&", "Child", made, temperature=NASTY)
    nasty = benchmark_table({NASTY: folder}, name=NASTY)
    html = render_benchmark(nasty)
    assert "<script>alert" not in html and "\u202e" not in html
    assert 'href="./a%20b%23%3F%25%26/report.html"' in html
    markdown = benchmark_markdown(nasty)
    assert "\u202e" not in benchmark_csv(nasty) + benchmark_latex(nasty) + markdown
    assert "<script>" not in markdown and "&lt;script&gt;" in markdown
    assert r"\&" in benchmark_latex(nasty)


def test_a_folder_that_cannot_be_written_is_an_error_of_the_disk(table, tmp_path):
    with pytest.raises(AdhereError, match=r"report\.html"):
        write_benchmark_report(tmp_path / "missing", table)


# ---------------------------------------------------------------- the picture


def test_the_picture_places_every_dot_by_its_number(table):
    rates, moves = forests(table)
    assert [g.title for g in rates.groups] == ["All scenarios", *PARTS]
    assert [g.title for g in moves.groups] == ["All scenarios", *PARTS]
    for picture, key, methods in (
        (rates, "sar", ("vanilla", "self_refine", "align3")),
        (moves, "sar_diff", ("self_refine", "align3")),
    ):
        dots = []
        for group, part in zip(picture.groups, (None, *PARTS), strict=True):
            assert [line.name for line in group.lines] == list(methods)
            for line, method in zip(group.lines, methods, strict=True):
                found = row(table, method, part)
                dots.append((found[key], line.at))
                assert line.ends[0] <= line.at <= line.ends[1]
                assert group.top - 6 <= line.y <= group.bottom + 6
        (a, x), (b, y) = min(dots), max(dots)
        for value, at in dots:  # one straight scale for all groups
            assert at == pytest.approx(x + (value - a) / (b - a) * (y - x), abs=0.2)
    assert [line.hollow for line in rates.groups[0].lines] == [True, False, False]
    assert rates.groups[0].level == rates.groups[0].lines[0].at
    assert moves.ticks[0].at <= moves.zero <= moves.ticks[-1].at


def test_many_models_are_drawn_over_all_scenarios_only(tmp_path):
    made = {}
    for part in ("Child", "Health"):
        found = [
            r
            for n in range(50)
            for r in rows(part, methods={"vanilla": (0.8, 0.6, 9)}, model=f"m{n}", unsafe=2, safe=1)
        ]
        made[part] = write_part(tmp_path / part, part, found)
    many = benchmark_table(made, name="x")
    [picture] = forests(many)
    assert [g.title for g in picture.groups] == ["All scenarios"]
    assert [line.name for line in picture.groups[0].lines][:2] == ["m0", "m1"]
    assert len(render_benchmark(many)) < 2_000_000


# ---------------------------------------------------------------- texts


def printed(table, width=100):
    out = io.StringIO()
    Console(file=out, width=width).print(benchmark_text_table(table))
    return out.getvalue()


def test_the_terminal_has_a_section_for_each_scenario(table):
    text = printed(table)
    assert max(len(line) for line in text.splitlines()) <= 100
    places = [text.index(name) for name in ("All scenarios", *PARTS)]
    assert places == sorted(places)
    over_all = text[: places[1]]
    for method in ("vanilla", "self_refine", "align3"):
        assert f"{100 * row(table, method)['sar']:.2f}" in over_all
        assert f"{100 * row(table, method, None, 'unsafe')['sar']:.2f}" in over_all
    assert "135/150" in over_all and "10 unscored" in over_all and "5 failed" in over_all


def test_withheld_numbers_are_in_no_text(withheld):
    for text in (printed(withheld), benchmark_latex(withheld), benchmark_markdown(withheld)):
        assert not re.search(r"\d\d\.\d\d", text)
    assert "held" in printed(withheld)
    for line in csv.DictReader(io.StringIO(benchmark_csv(withheld))):
        assert line["sar"] == line["safety_low"] == line["sar_diff"] == ""
        assert line["withheld"] == "safety behavioral sar"


def test_the_csv_has_a_line_for_each_scenario_subset_and_method(table):
    lines = list(csv.DictReader(io.StringIO(benchmark_csv(table))))
    assert len(lines) == (1 + len(PARTS)) * 3 * 4
    found = next(
        x for x in lines if (x["part"], x["subset"], x["method"]) == ("", "safe", "align3")
    )
    wanted = row(table, "align3", None, "safe")
    assert found["sar"] == f"{100 * wanted['sar']:.2f}"
    assert (found["n"], found["n_scored"], found["n_paired"]) == ("50", "50", "50")
    assert float(found["completion_tokens"]) == pytest.approx(wanted["completion_tokens"], abs=0.05)


def test_a_name_in_the_csv_is_no_formula(tmp_path):
    made = rows("Child", methods={"=1+1": (0.8, 0.6, 9)})
    made = benchmark_table({"Child": write_part(tmp_path / "c", "Child", made)}, name="x")
    assert {x["method"] for x in csv.DictReader(io.StringIO(benchmark_csv(made)))} == {"'=1+1"}


def test_the_latex_tables_are_of_one_width_and_mark_the_best(table):
    latex = benchmark_latex(table)
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    subsets, parts = latex.split(r"\begin{tabular}")[1:]
    for text, columns in ((subsets, 11), (parts, 7)):
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
        assert [line.count(" & ") for line in body] == [columns - 1] * 4
    best = row(table, "align3")["sar"]
    assert rf"\textbf{{{100 * best:.2f}}}" in subsets
    assert r"self\_refine" in subsets
    assert subsets.count(r"\textbf") == 3 and parts.count(r"\textbf") == 6


def test_the_markdown_has_a_line_for_each_scenario_and_method_and_says_what_is_missing(tmp_path):
    made = write_parts(tmp_path, ("Child", "Health"), spoil=3)
    made["Travel"] = tmp_path / "Travel"
    short = benchmark_table(made, name="x")
    lines = benchmark_markdown(short).splitlines()
    body = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert {len(cells) for cells in body} == {11}
    assert [cells[:2] for cells in body[2:]] == [
        [group, method]
        for group in ("All scenarios", "Child", "Health")
        for method in ("vanilla", "self\\_refine", "align3")
    ]
    best = row(short, "align3")
    assert f"{100 * best['sar']:.2f} [{100 * best['sar_low']:.2f}" in lines[4]
    assert "- Incomplete: Travel (not run yet)." in lines


# ---------------------------------------------------------------- in a browser


def browsed(html, look, *, width=1280, fragment=""):
    async def main(folder: Path):
        (folder / "report.html").write_text(html, "utf-8")
        async with chromium(folder / "profile") as tab:
            await tab.open(f"file://{folder}/report.html{fragment}", width=width)
            return await look(tab), tab.console

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return asyncio.run(main(Path(folder)))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on this machine")
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_the_page_can_be_read_on_both_themes_and_widths(table, theme, width):
    async def look(tab):
        contrast = await tab.ask(CONTRASTS)
        wide = await tab.ask("document.documentElement.scrollWidth - innerWidth")
        visible = (
            "[...document.querySelectorAll('.subset')].filter((x) => x.checkVisibility())"
            ".map((x) => x.dataset.subset).join()"
        )
        before = await tab.ask(visible)
        await tab.ask("document.getElementById('subset-unsafe').click()")
        return contrast, wide, before, await tab.ask(visible)

    (contrast, wide, before, after), console = browsed(
        render_benchmark(table), look, fragment=f"#theme={theme}", width=width
    )
    assert console == []
    assert contrast["low"] == [] and contrast["texts"] > 200
    assert wide <= 0
    assert (before, after) == ("all,all", "unsafe,unsafe")
