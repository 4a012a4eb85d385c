"""What everyone needs to read the page: contrast, headings, table heads, names of controls."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from adhere.reporting import render_report
from reporting import judged_samples, report_samples
from reporting.test_report_page import Page

# Variables that color text, and those that lie behind text.
TEXTS = ("ink", "soft", "accent", "broken", "warn")
PAPERS = ("paper", "raised")


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(
        judged_samples.summary(withheld=False), judged_samples.rows(), report_samples.config()
    )


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def themes(page: Page) -> list[dict[str, str]]:
    """The color variables of every block that sets them."""
    css = "".join(page.code["style"])
    blocks = [b for b in re.findall(r"\{([^{}]*)\}", css) if "--paper:" in b]
    return [dict(re.findall(r"--([\w-]+):\s*(#\w+)", b)) for b in blocks]


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    digits = color[1:] if len(color) == 7 else "".join(c * 2 for c in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_itself():
    assert contrast("#fff", "#000000") == pytest.approx(21)
    assert contrast("#777", "#fff") == pytest.approx(4.48, abs=0.01)


def test_text_has_contrast_aa_in_every_theme(page):
    found = themes(page)
    assert len(found) == 4  # light, dark by the system, dark by choice, print
    assert found[1] == found[2]
    for theme in found:
        for text in TEXTS:
            for paper in PAPERS:
                assert contrast(theme[text], theme[paper]) >= 4.5, (theme, text, paper)
        # Borders of controls and marks need three to one.
        assert contrast(theme["accent"], theme["paper"]) >= 3


def test_headings_step_down_one_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_landmarks_and_the_skip_link(page):
    for tag in ("header", "main", "nav", "footer"):
        assert len(page.all(tag)) == 1, tag
    links = [a for a in page.all("a") if a.get("class") == "skip"]
    assert links == [{"class": "skip", "href": "#result"}]
    target = next(a for _, a in page.elements if a.get("id") == "result")
    assert target["tabindex"] == "-1"
    for section in page.all("section"):
        assert section["aria-labelledby"]
    assert page.all("html")[0]["lang"] == "en"


def test_every_table_has_a_caption_and_scoped_heads(html, page):
    tables = re.findall(r"<table.*?</table>", html, re.S)
    assert len(tables) >= 12
    for table in tables:
        assert re.search(r"<caption[^>]*>\s*[^\s<]", table), table[:200]
        heads = re.findall(r"<th\b([^>]*)>", table)
        assert heads
        assert all('scope="' in head for head in heads), heads


def test_every_control_and_picture_has_a_name(html, page):
    labels = {a.get("for") for a in page.all("label")}
    for tag in ("input", "select"):
        assert page.all(tag)
        assert all(a["id"] in labels for a in page.all(tag))
    for picture in page.all("svg"):
        named = picture.get("aria-labelledby") or picture.get("aria-label")
        assert named if picture.get("role") == "img" else picture.get("aria-hidden") == "true"
    assert 'aria-live="polite"' in html
    for box in [a for _, a in page.elements if a.get("role") == "region"]:
        assert box["tabindex"] == "0"
        assert box["aria-label"]


def test_who_decided_is_told_to_a_screen_reader(page):
    assert page.text.count("decided by a judge") >= 2
    assert "decided by a check in some answers and by a judge in others" in page.text
    older = Page(
        render_report(report_samples.summary(), report_samples.rows(), report_samples.config())
    )
    assert older.text.count("decided by nobody") == 2
    assert "Decided by nobody in this run, and in no number: no-diagnosis , warm ." in older.text


def test_focus_is_never_hidden(page):
    css = "".join(page.code["style"])
    assert ":focus-visible { outline: 2px solid var(--accent)" in css
    hidden = re.findall(r"([^{}]+)\{[^{}]*outline:\s*(?:none|0)", css)
    assert [s.strip() for s in hidden] == ["section:focus"]  # the skip link's target, no control
