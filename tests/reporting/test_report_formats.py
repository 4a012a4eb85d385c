"""Numbers and texts: one form everywhere, no null as zero, no character that acts."""

from __future__ import annotations

import math

import pytest

from adhere.reporting import formats as f


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True, 10**400])
def test_what_is_no_number_is_a_dash(value):
    forms = (f.score, f.share, f.difference, f.count, f.mean_count, f.seconds, f.duration)
    assert {form(value) for form in forms} == {"–"}
    assert f.interval(value, 0.5) == f.interval(0.5, value) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.001, "<1"), (0.005, "0"), (0.5, "50"), (0.999, ">99"), (1, "100")],
)
def test_a_share_is_zero_only_when_it_is(value, text):
    assert f.share(value) == text


def test_differences_carry_their_sign_except_zero():
    assert f.difference(0.123) == "+0.123"
    assert f.difference(-0.04) == "−0.040"
    assert f.difference(-0.0001) == "0.000"
    assert f.interval(-0.01, 0.2, signed=True) == "[−0.010, +0.200]"
    assert f.interval(0.5, 1) == "[0.500, 1.000]"


def test_times_and_dates():
    assert [f.seconds(v) for v in (2.1, 29.53, 1234)] == ["2.10", "29.5", "1,234"]
    assert [f.duration(v) for v in (8, 252, 7500)] == ["8.0 s", "4 min 12 s", "2 h 05 min"]
    assert f.date("2026-11-22T14:05:00+00:00") == "22 Nov 2026, 14:05 UTC"
    assert f.date("last week") == "last week"


def test_acting_characters_become_visible():
    text = "a\x00b\x1b[31m\u202ec\ud800d\U000e0041\x85"
    assert f.clean(text) == "a␀b␛[31m⟨U+202E⟩c\ufffdd⟨U+E0041⟩\ufffd"
    f.clean(text).encode("utf-8")
    assert f.clean("one\r\ntwo\rthree\tfour") == "one\ntwo\nthree\tfour"


def test_ordinary_texts_stay_as_they_are():
    text = "Ça va ? שלום, 你好 👩‍👩‍👧 naïve\u200f"
    assert f.clean(text) == text


def test_one_line_is_short_and_has_no_break():
    line = f.one_line("word\n" * 1_000_000, 40)
    assert len(line) <= 40
    assert line.endswith("…")
    assert "\n" not in line


def test_credentials_leave_addresses():
    text = "base_url: http://someone:hunter2@localhost:8000/v1 mail: a@b.example"
    assert "hunter2" not in f.without_credentials(text)
    assert "localhost:8000/v1 mail: a@b.example" in f.without_credentials(text)
