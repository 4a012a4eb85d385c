"""Failures in groups that share a telling word, so that an oracle sees one kind of mistake at once.

A batch holds mistakes of several kinds, and a small oracle that is shown all of them writes rules
that fit anything ("be clear"). Shown no more than the sentences in which one word stands, it names
what they have in common. A word that stands in several bad answers, and in good ones seldom
or never, tells a kind. Words are ranked by the likelihood ratio of their answers' counts (Dunning,
Computational Linguistics 19(1), 1993); the best one takes its failures out, and the next is looked
for among the rest. Words of a failure's own prompt are left aside: they tell its subject.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adhere.judging.questions import conversation
from adhere.training.recipes.iteralign.failures import Failure

LEAST = 2  # bad answers that a word must stand in
MOST_BESIDE = 4
RATIO = 2.0  # least likelihood ratio, in its usual scale (3.84 is the 95% point of one word)
# Letters with what may join them; numbers alone differ from answer to answer.
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{2,}(?:['’][^\W\d_]+)?")


@dataclass(frozen=True)
class Group:
    """Failures that share a word, and in how many good answers it stands; "" for the others.

    `also`: words that tell nearly as much, in many of the failures.
    """

    word: str
    failures: tuple[Failure, ...]
    in_good: int = 0
    also: tuple[str, ...] = ()


def groups(failures: Sequence[Failure], good: Sequence[Failure]) -> list[Group]:
    """The failures, each in one group: those of telling words first, the others last."""
    words = {failure.id: _told(failure) for failure in failures}
    in_good = Counter(word for one in good for word in _words(one.answer))
    left, out = list(failures), []
    while found := _best([words[f.id] for f in left], in_good, len(good)):
        members = tuple(f for f in left if found in words[f.id])
        also = _beside(found, members, in_good, len(good))
        out.append(Group(found, members, in_good[found], also))
        left = [f for f in left if found not in words[f.id]]
    return [*out, Group("", tuple(left))] if left else out


def _best(bad: Sequence[set[str]], in_good: Counter[str], n_good: int) -> str:
    """The word that tells most, or "". Of equal ones the longest, then by the alphabet."""
    counts = Counter(word for words in bad for word in words)
    ranked = [
        (ratio(count, len(bad), in_good[word], n_good), len(word), word)
        for word, count in counts.items()
        if count >= LEAST and count * n_good > in_good[word] * len(bad)
    ]
    value, _, word = max(ranked, key=lambda r: (round(r[0], 9), r[1], r[2]), default=(0.0, 0, ""))
    return word if value >= RATIO else ""


def _beside(
    word: str, members: Sequence[Failure], in_good: Counter[str], n_good: int
) -> tuple[str, ...]:
    """What else stands in the sentences that hold the word, and seldom in good answers."""
    counts = Counter(
        other
        for failure in members
        for other in _words(" ".join(sentences_with(word, failure.answer)))
        - _words(conversation(failure.case))
        - {word}
    )
    ranked = sorted(
        (-ratio(count, len(members), in_good[other], n_good), other)
        for other, count in counts.items()
        if count >= LEAST and count * n_good > in_good[other] * len(members)
    )
    return tuple(other for value, other in ranked[:MOST_BESIDE] if -value >= RATIO)


def sentences_with(word: str, text: str) -> list[str]:
    """The sentences of a text that hold a word; the whole text where none does by itself."""
    found = [said for said in _SENTENCE.split(text.strip()) if word in _words(said)]
    return found or [text]


def ratio(bad: int, n_bad: int, good: int, n_good: int) -> float:
    """Twice the log of how much likelier two shares are than one: `bad` of n and `good` of n."""
    total = (bad + good) / (n_bad + n_good)
    own = good / n_good if n_good else total
    apart = _likely(bad, n_bad, bad / n_bad) + _likely(good, n_good, own)
    return 2 * (apart - _likely(bad, n_bad, total) - _likely(good, n_good, total))


def _likely(count: int, n: int, share: float) -> float:
    out = 0.0
    if count:
        out += count * math.log(share)
    if n - count:
        out += (n - count) * math.log(1 - share)
    return out


def _told(failure: Failure) -> set[str]:
    return _words(failure.answer) - _words(conversation(failure.case))


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}
