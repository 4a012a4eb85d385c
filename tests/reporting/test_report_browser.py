"""The page in a real browser, headless: it renders, says nothing on the console, has two themes."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from adhere.reporting import render_report
from reporting import report_samples as samples

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on this machine")

# Written where only this test's copy of the page can see it: what a script would have to ask.
PROBE = """
<script nonce="probe">
addEventListener("load", () => {
  const seen = getComputedStyle(document.body);
  const veil = document.querySelector(".text.veil");
  const before = getComputedStyle(veil).filter;
  const reveal = document.querySelector(".reveal");
  reveal.click();
  const after = getComputedStyle(veil).filter;
  const filter = document.getElementById("filter");
  filter.value = "carrots";
  filter.dispatchEvent(new Event("input"));
  document.getElementById("subset-unsafe").click();
  const tables = [...document.querySelectorAll(".subset")].filter((t) => t.offsetParent !== null);
  document.body.dataset.probe = JSON.stringify({
    paper: seen.backgroundColor, ink: seen.color, before, after,
    pressed: reveal.getAttribute("aria-pressed"),
    cases: document.querySelectorAll(".case:not([hidden])").length,
    found: document.getElementById("found").textContent,
    tables: tables.map((t) => t.dataset.subset),
    wide: document.documentElement.scrollWidth - innerWidth,
    theme: document.getElementById("theme").textContent,
  });
});
</script>
"""


def browse(page, profile, *, fragment="", width=1280):
    """The page's final DOM and what the browser wrote on the console."""
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}",
            f"--window-size={width},1400", "--virtual-time-budget=3000", "--dump-dom",
            page.as_uri() + fragment,
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed(html: str) -> str:
    """The page with the probe let in by its policy."""
    html = html.replace("script-src ", "script-src 'nonce-probe' ", 1)
    return html.replace("</body>", PROBE + "</body>")


def answer(dom: str) -> dict:
    import html
    import json

    return json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', dom)[1]))


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(samples.summary(), samples.rows(), samples.config())


def test_the_page_as_it_is_renders_without_a_word_on_the_console(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, "utf-8")
    dom, console = browse(path, tmp_path / "profile")
    assert console == []
    assert 'class="js"' in dom
    assert samples.summary()["headline"] in dom
    assert dom.count("<article") == 36


def test_a_blocked_script_would_be_seen(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", "<script>1</script></body>"), "utf-8")
    _, console = browse(path, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.parametrize(("theme", "width", "dark"), [("light", 1280, False), ("dark", 600, True)])
def test_both_themes_and_the_controls_work(page, tmp_path, theme, width, dark):
    path = tmp_path / "report.html"
    path.write_text(probed(page), "utf-8")
    dom, console = browse(path, tmp_path / "profile", fragment=f"#theme={theme}", width=width)
    assert console == []
    seen = answer(dom)
    paper, ink = (sum(map(int, re.findall(r"\d+", seen[k])[:3])) for k in ("paper", "ink"))
    assert (paper < ink) == dark
    assert abs(paper - ink) > 500  # of 765
    assert seen["theme"] == f"Theme: {theme}"
    assert (seen["before"], seen["after"], seen["pressed"]) == ("blur(6px)", "none", "true")
    assert (seen["cases"], seen["found"]) == (1, "1 of 12 cases")
    assert seen["tables"] == ["unsafe"]
    assert seen["wide"] <= 0
