"""Whether a model still talks: how varied, how long and how repetitive a set of answers is.

Training on one's own revisions can end in a loop: answers become fragments or one token over and
over, all of them are found bad, the oracle writes rules against them, and the model is trained on
revisions of the same kind. It was seen in a published log of this method on a model of 135 million
parameters. These numbers fall before the failure rate says anything: distinct-n (Li et al., arXiv
1510.03055) and the compression ratio.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from adhere.methods.attribution.degenerate import repeated_share

_WORD = re.compile(r"\w+|[^\w\s]")
DEGENERATE = 0.3  # share of repeated pieces above which a text counts as broken
FEW = 8  # answers below which nothing is concluded


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different runs of n words among all of them, over all texts; None where there are none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = _WORD.findall(text.lower())
        pieces = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
        seen.update(pieces)
        total += len(pieces)
    return len(seen) / total if total else None


def compression(texts: Sequence[str]) -> float | None:
    """Bytes after deflating over bytes before, of all texts together; None for no text."""
    raw = "\n".join(texts).encode("utf-8", "surrogatepass")
    return len(zlib.compress(raw, 9)) / len(raw) if raw else None


def health_of(texts: Sequence[str]) -> dict[str, Any]:
    """The numbers of some answers. `degenerate`: the share that repeats itself beyond measure."""
    said = [text for text in texts if text.strip()]
    lengths = [len(text.split()) for text in said]
    return {
        "n": len(said),
        "distinct_1": _round(distinct(said, 1)),
        "distinct_2": _round(distinct(said, 2)),
        "compression": _round(compression(said)),
        "words_mean": _round(fmean(lengths)) if lengths else None,
        "words_median": median(lengths) if lengths else None,
        "degenerate": _round(
            fmean(float(repeated_share(text) > DEGENERATE) for text in said) if said else None
        ),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


@dataclass(frozen=True)
class Bands:
    """How far the numbers may move from those of the model at the start.

    `distinct`, `compression` and `words`: the least share of the number at the start that is still
    sound (of `words` also the most, as its inverse); `degenerate`: by how much its share may rise;
    `bad`: by how much the share of bad answers may rise within a round.
    """

    distinct: float = 0.6
    compression: float = 0.6
    words: float = 0.35
    degenerate: float = 0.15
    bad: float = 0.2


def collapse(
    start: Mapping[str, Any],
    now: Mapping[str, Any],
    bands: Bands,
    *,
    bad_before: float | None = None,
    bad_now: float | None = None,
) -> list[str]:
    """Which numbers left their bands, in words; empty for a model that still talks.

    `start`, `now`: `health_of` the answers to the same prompts, so that their number is the same.
    """
    out: list[str] = []
    if now["n"] < min(FEW, start["n"]) or (start["n"] and now["n"] < start["n"] / 2):
        out.append(f"answers: {now['n']} of {start['n']} have words")
    for name, label, least in (
        ("distinct_2", "distinct-2", bands.distinct),
        ("compression", "compression ratio", bands.compression),
        ("words_mean", "mean length in words", bands.words),
    ):
        before, after = start[name], now[name]
        if before is None or after is None or not before:
            continue
        if after < least * before:
            out.append(f"{label}: {after:g}, at the start {before:g}")
    words, first = now["words_mean"], start["words_mean"]
    if words and first and words > first / bands.words:
        out.append(f"mean length in words: {words:g}, at the start {first:g}")
    if (now["degenerate"] or 0) > (start["degenerate"] or 0) + bands.degenerate:
        out.append(
            f"answers that repeat themselves: {now['degenerate']:g}, at the start "
            f"{start['degenerate'] or 0:g}"
        )
    if bad_before is not None and bad_now is not None and bad_now > bad_before + bands.bad:
        out.append(f"share of bad answers: {bad_now:.2f}, before this round {bad_before:.2f}")
    return out
