"""The page of a training: whole, offline, and what stands on it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from pathlib import Path

import pytest

from adhere.models.open_weights.adapters import SpecNote
from adhere.training.page import headline, render
from adhere.training.plan import PRESETS
from reporting.chromium import CHROMIUM, chromium
from support.training_logs import account, log

HOSTILE = "</style></svg><script>alert(1)</script>\u202e{{ 7 * 7 }}"


def test_the_page_loads_nothing_and_runs_nothing():
    page = render(account())
    outside = page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "http" not in outside
    assert not re.search(r"<script|<link rel=(?!\"icon\")|src=|@import|url\(", page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src &#39;none&#39;" in policy
    assert f"style-src &#39;sha256-{digest}&#39;" in policy
    assert "script-src" not in policy  # falls back to none
    assert page == render(account())


def test_the_page_says_what_was_trained_on_what_and_what_came_of_it():
    page = render(account(notes=["going on from the checkpoint of step 20"]))
    assert page.count("<svg") == 6
    for said in (
        "smollm2-135m: 60 steps of apo_zero on 360 pairs; of 40 held-out pairs, 93% have a positive",
        "apo_zero, for the winners are better", "Health education, version 3", "ef" * 32, "cd" * 32,
        "4,884,480 of 139,400,064 (4%) parameters", "going on from the checkpoint of step 20",
        f"learning_rate: {PRESETS['small']['learning_rate']}", "22 Nov 2026, 14:05 UTC", "0.928 [",
    ):  # fmt: skip
        assert said in page, said


def test_findings_stand_above_the_numbers():
    page = render(account(held_out=12))
    assert page.index("Only 12 pairs were held out") < page.index("<table")


def test_texts_from_outside_are_escaped():
    made = account(
        base=HOSTILE, why=HOSTILE, notes=[HOSTILE], device=HOSTILE, dtype=HOSTILE, created=HOSTILE,
        spec=SpecNote(HOSTILE, HOSTILE, HOSTILE), preset=HOSTILE, adhere_version=HOSTILE,
        plan={"pairs": Path(HOSTILE), "lora": {"targets": (HOSTILE,)}},
    )  # fmt: skip
    page = render(made)
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert "\u202e" not in page
    assert page.count("{{ 7 * 7 }}") > 8  # a template's words are text here


def test_a_training_of_which_little_is_known_has_a_page():
    page = render(account([], held_out=0, spec=None, trained_parameters=None, notes=[]))
    assert "No step was logged." in page
    assert "nothing was held out to look at" in page
    assert "<table" not in page
    assert headline(account([s for s in log(3) if s.split == "train"], held_out=0)).endswith(
        "nothing was held out to look at."
    )


def test_a_long_training_gives_a_page_of_bearable_size():
    assert len(render(account(log(20_000, jitter=0.1))).encode()) < 400_000


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_it_without_complaints(tmp_path):
    file = tmp_path / "report.html"
    file.write_text(render(account(log(300, jitter=0.2))), encoding="utf-8")

    async def look():
        async with chromium(tmp_path / "profile") as tab:
            await tab.open(file.as_uri(), width=1200, height=900)
            drawn = await tab.ask(
                "[...document.querySelectorAll('.plot svg')].map(s => s.getBoundingClientRect())"
                ".filter(r => r.width > 300 && r.height > 200).length"
            )
            # The style of the charts holds: lines are drawn, not filled.
            fill = await tab.ask("getComputedStyle(document.querySelector('path.line')).fill")
            wide = await tab.ask("document.documentElement.scrollWidth")
            await tab.open(file.as_uri(), width=380, height=800)
            narrow = await tab.ask("document.documentElement.scrollWidth")
            return drawn, fill, wide, narrow, tab.console

    drawn, fill, wide, narrow, console = asyncio.run(look())
    assert (drawn, fill) == (6, "none")
    assert wide <= 1200
    assert narrow <= 380
    assert console == []
