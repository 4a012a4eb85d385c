"""How numbers and foreign texts are written, the same way in every table, plot and page.

Scores (safety, behavioral, SAR) are 0 to 1 with three decimals, as in the files; shares of answers
are whole percent. What has no denominator is an en dash, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeGuard

DASH = "–"
MINUS = "\u2212"

# Characters that a terminal or a browser would act on, or that hide text from the reader:
# controls other than tab and newline, bidirectional embeddings, overrides and isolates, tag
# characters, lone surrogates (no UTF-8 form) and code points that are no characters.
_ODD = (
    (0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F), (0x202A, 0x202E), (0x2066, 0x2069),
    (0xD800, 0xDFFF), (0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF), (0xE0000, 0xE007F),
)  # fmt: skip
_HAS_ODD = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in _ODD) + "]")
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"  # not strftime, which follows the locale
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+@")


def _visible(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x202A <= code <= 0x2069 or code >= 0xE0000:
        return f"⟨U+{code:04X}⟩"
    return "\ufffd"


_VISIBLE = {code: _visible(code) for start, end in _ODD for code in range(start, end + 1)}


def clean(text: str) -> str:
    """The text with every character that could act on a screen made visible instead."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_VISIBLE) if _HAS_ODD.search(text) else text


def one_line(value: Any, limit: int = 120) -> str:
    """A name or a first line for a table cell: clean, white space joined, cut with an ellipsis."""
    text = " ".join(clean(str(value if value is not None else "")[: 4 * limit + 64]).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def without_credentials(text: str) -> str:
    """The text with `user:password@` in addresses left out."""
    return _CREDENTIALS.sub("…@", text)


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite number; null, NaN, texts and absurd sizes are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def number(row: Mapping[str, Any], key: str) -> float | None:
    """The finite number under `key`, or None."""
    value = row.get(key)
    return float(value) if is_number(value) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """The value when it is an object, else an empty one: for optional parts of a summary."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; nothing when it is no list."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list | tuple) else []


def score(value: Any) -> str:
    """A score with three decimals: 0.6314 is `0.631`."""
    return f"{value:.3f}" if is_number(value) else DASH


def share(value: Any) -> str:
    """A share in whole percent. What is not zero is never written as 0, nor what is not all as 100.

    0.001 is `<1`, 0.999 is `>99`.
    """
    if not is_number(value):
        return DASH
    if 0 < value < 0.005:
        return "<1"
    if 0.995 <= value < 1:
        return ">99"
    return f"{value * 100:.0f}"


def difference(value: Any) -> str:
    """A difference of two scores, signed: -0.04 is a minus and `0.040`."""
    if not is_number(value):
        return DASH
    text = f"{abs(value):.3f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def interval(low: Any, high: Any, *, signed: bool = False) -> str:
    """`[0.510, 0.742]`, or nothing when one end is missing."""
    if not (is_number(low) and is_number(high)):
        return ""
    form = difference if signed else score
    return f"[{form(low)}, {form(high)}]"


def count(value: Any) -> str:
    """A count with thousands separated."""
    return f"{value:,.0f}" if is_number(value) else DASH


def mean_count(value: Any) -> str:
    """A mean of counts: one decimal below ten, none above."""
    if not is_number(value):
        return DASH
    return f"{value:.1f}" if 0 < abs(value) < 9.95 else f"{value:,.0f}"


def seconds(value: Any) -> str:
    """Seconds to three figures."""
    if not is_number(value):
        return DASH
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def money(value: Any, currency: Any = None) -> str:
    """An amount of money to three figures, two decimals at least: `0.000312 USD`."""
    if not is_number(value):
        return DASH
    decimals = max(2, 2 - math.floor(math.log10(abs(value)))) if value else 2
    text = f"{abs(value):,.{min(decimals, 12)}f}"
    unit = one_line(currency, 8) if currency else ""
    return (MINUS if value < 0 else "") + text + (f" {unit}" if unit else "")


def part(count_: Any, of: Any) -> str:
    """A count with its denominator: `3 of 36 (8%)`."""
    if not (is_number(count_) and is_number(of)):
        return DASH
    return f"{count(count_)} of {count(of)}" + (f" ({share(count_ / of)}%)" if of > 0 else "")


def duration(value: Any) -> str:
    """A span of time for a sentence: `48.2 s`, `4 min 12 s`, `2 h 05 min`."""
    if not is_number(value):
        return DASH
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def date(value: Any) -> str:
    """An ISO time as `22 Nov 2026, 14:05` (with its zone when it has one), or as it stands."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return one_line(value) or DASH
    zone = f" {when.tzname()}" if when.tzinfo else ""
    month = _MONTHS[3 * when.month - 3 : 3 * when.month]
    return f"{when.day} {month} {when.year}, {when:%H:%M}{zone}"


def method_label(row: Mapping[str, Any], *, dagger: bool = True) -> str:
    """`align3 · forced close †`: the method, its variant, and the mark of an oracle selector."""
    label = one_line(row.get("method") or "?", 60)
    variant = one_line(row.get("variant") or "", 60)
    if variant:
        label += f" · {variant}"
    return f"{label} †" if dagger and row.get("oracle") else label
