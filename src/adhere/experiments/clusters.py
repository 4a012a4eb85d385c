"""Prompts that are nearly the same count once, and never stand on both sides of a split."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

SIMILAR = 0.6  # share of common pieces (Jaccard) from which two prompts are nearly the same
PIECE = 4  # characters of a piece
LONGEST = 4000  # characters of a prompt that are looked at
COMMON = 0.8  # share of the texts from which a piece says nothing about any of them
FEW = 20  # fewer different texts than this are compared by all their pieces
MANY = 8  # so many of one cluster share a piece that it is worth asking one of them first
LARGE = 0.2  # share of the games in one cluster from which it is told


class Prompted(Protocol):
    """What has a prompt, or none (an empty text), and may belong to a group by its data."""

    @property
    def prompt(self) -> str:
        """What was asked."""
        ...

    @property
    def group(self) -> str:
        """The group that the data puts it into, or an empty text."""
        ...


@dataclass(frozen=True)
class Clusters:
    """A number for each game, equal for games that belong together; and what stands out."""

    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def clusters_of(games: Sequence[Prompted], *, by_text: bool = True) -> Clusters:
    """Which games count once together.

    Those are games of one group, and games whose prompts are nearly the same: their sets of
    4-character pieces overlap by at least 0.6 (Jaccard), directly or over others between them.
    Games without a prompt are compared by their group alone, and with `by_text` false all are.
    """
    joined = _Joined(len(games))
    first: dict[str, int] = {}
    for at, game in enumerate(games):
        if game.group:
            joined.join(at, first.setdefault(game.group, at))
    notes: list[str] = []
    plain = [" ".join(game.prompt[:LONGEST].lower().split()) for game in games]
    if by_text:
        unlike: dict[str, int] = {}
        for at, text in enumerate(plain):
            if text:
                joined.join(at, unlike.setdefault(text, at))
        places = list(unlike.values())
        every = [_pieces(text) for text in unlike]
        sets, common = _telling(every)
        for a, b in near_duplicates(sets, joined, places):
            joined.join(a, b)
        if 2 * common * len(every) > sum(map(len, every)):  # more than half of a text, on average
            notes.append(
                f"{common} pieces of {PIECE} characters stand in at least {COMMON:.0%} of the "
                "prompts, as those of a template do; prompts are told apart by the rest."
            )
    numbers: dict[int, int] = {}
    found = tuple(numbers.setdefault(joined.root(at), len(numbers)) for at in range(len(games)))
    return Clusters(found, (*notes, *_large(found, games, plain)))


class _Joined:
    """Which places belong together: union and find."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))
        self._sizes = [1] * size

    def root(self, at: int) -> int:
        parents = self._parents
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    def join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        if self._sizes[a] < self._sizes[b]:
            a, b = b, a
        self._parents[b] = a
        self._sizes[a] += self._sizes[b]


def near_duplicates(
    sets: Sequence[frozenset[str]], joined: _Joined, places: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Pairs of places whose sets overlap enough, as many as it takes to join all that belong.

    Exact: no sampling, no sketches. Two sets that overlap enough share some of their rarest pieces,
    so only sets that do are compared (prefix filtering; Bayardo, Ma, Srikant, WWW 2007), and of
    those only what is not joined yet: the caller joins each pair before it takes the next.
    """
    rarity = Counter(piece for pieces in sets for piece in pieces)
    # piece -> root -> the sets with that piece among their rarest
    holders: dict[str, dict[int, list[int]]] = defaultdict(dict)
    rests = [math.ceil(SIMILAR * len(pieces) - 1e-9) - 1 for pieces in sets]  # behind the prefix
    for at, pieces in enumerate(sets):
        if not pieces:
            continue
        ordered = sorted(pieces, key=lambda piece: (rarity[piece], piece))
        prefix = ordered[: len(pieces) - rests[at]]
        own = joined.root(places[at])
        tried: set[int] = set()
        shared: Counter[int] = Counter()
        for piece in prefix:
            for root, others in holders[piece].items():
                if (now := joined.root(root)) == own:
                    continue
                if len(others) >= MANY and now not in tried:  # likely one of them is enough
                    tried.add(now)
                    if _alike(pieces, sets[others[-1]]):
                        yield places[others[-1]], places[at]
                        own = joined.root(places[at])
                        continue
                shared.update(others)
        for other, count in shared.items():
            # What both have lies among the rarest of both, or behind those of one of them.
            most = count + max(rests[at], rests[other])
            enough = SIMILAR / (1 + SIMILAR) * (len(pieces) + len(sets[other]))
            if most < enough - 1e-9 or joined.root(places[other]) == own:
                continue
            if _alike(pieces, sets[other]):
                yield places[other], places[at]
                own = joined.root(places[at])
        for piece in prefix:
            holders[piece].setdefault(own, []).append(at)


def _alike(a: frozenset[str], b: frozenset[str]) -> bool:
    if min(len(a), len(b)) < SIMILAR * max(len(a), len(b)):
        return False
    common = len(a & b)
    return common >= SIMILAR * (len(a) + len(b) - common)


def split(clusters: Sequence[int], share: float, seed: int) -> list[bool]:
    """Which games are held out: about a share of the clusters, whole ones only."""
    numbers = sorted(set(clusters))
    held = set(random.Random(seed).sample(numbers, round(share * len(numbers))))  # noqa: S311
    return [number in held for number in clusters]


def _telling(sets: list[frozenset[str]]) -> tuple[list[frozenset[str]], int]:
    """The sets without the pieces that nearly all of them have, and how many those are."""
    if len(sets) < FEW:
        return sets, 0
    counts = Counter(piece for pieces in sets for piece in pieces)
    common = frozenset(piece for piece, n in counts.items() if n >= COMMON * len(sets))
    return ([pieces - common for pieces in sets] if common else sets), len(common)


def _large(
    numbers: Sequence[int], games: Sequence[Prompted], plain: Sequence[str]
) -> Iterator[str]:
    """A sentence on the largest cluster, where it holds a large share of the games."""
    ((number, count),) = Counter(numbers).most_common(1)
    if count <= LARGE * len(games):
        return
    unlike: dict[str, int] = {}
    for at, own in enumerate(numbers):
        if own == number and plain[at]:
            unlike.setdefault(plain[at], at)
    if len(unlike) < 2:
        return
    a, b, *_ = unlike.values()
    yield (
        f"{count} of {len(games)} games count as one, for their prompts are nearly the same, such "
        f"as those of games {a + 1} and {b + 1}. Where that is a template and not the same "
        "question, give --no-clusters."
    )


def _pieces(text: str) -> frozenset[str]:
    return frozenset(text[i : i + PIECE] for i in range(max(len(text) - PIECE + 1, 1)))
