"""Which rows teach most: where methods disagree, what failed, and a seeded sample of the rest.

Two passes over the rows: the first keeps a few numbers of each and chooses, the second picks the
chosen rows up. So a results file of any size is read without holding its texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from adhere.chat import digest
from adhere.reporting import formats as f

Key = tuple[str, str]

MAX_ROWS = 200
PER_CASE = 8  # answers shown of one case
# Of every five cases taken, so many by disagreement and so many by failure; one is from the sample.
_TURNS = ("differ", "differ", "failed", "differ", "sample")


@dataclass(frozen=True)
class Chosen:
    """A case to show: why, which of its rows (by place in the file), and how many it has."""

    key: Key
    why: str
    places: tuple[int, ...]
    of: int


@dataclass(frozen=True)
class Choice:
    """The cases to show and how many rows and cases there are."""

    cases: tuple[Chosen, ...]
    rows: int
    total_rows: int
    total_cases: int

    @property
    def without_cases(self) -> Choice:
        """The same totals, nothing shown."""
        return replace(self, cases=(), rows=0)

    @property
    def places(self) -> frozenset[int]:
        """All rows to pick up."""
        return frozenset(place for case in self.cases for place in case.places)


@dataclass(frozen=True)
class _Brief:
    place: int
    model: str
    outcome: str
    score: float | None
    marks: str


@dataclass
class _Case:
    key: Key
    rows: list[_Brief] = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        return [r.score for r in self.rows if r.score is not None]

    @property
    def spread(self) -> float:
        return max(self.scores) - min(self.scores) if self.scores else 0.0

    @property
    def split_rules(self) -> float:
        """The share of rules that one answer follows and another violates."""
        columns = list(zip_longest(*(r.marks for r in self.rows if r.marks), fillvalue="-"))
        if not columns:
            return 0.0
        return sum("Y" in c and "N" in c for c in columns) / len(columns)

    @property
    def missed(self) -> int:
        return sum(r.outcome != "scored" for r in self.rows)


def choose(rows: Iterable[Mapping[str, Any]], *, seed: Any = 0, limit: int = MAX_ROWS) -> Choice:
    """The first pass: at most `limit` rows, by whole cases, in the order they are shown in."""
    cases: dict[Key, _Case] = {}
    total = 0
    for place, row in enumerate(rows):
        total += 1
        if row.get("control"):
            continue
        key = case_key(row)
        cases.setdefault(key, _Case(key)).rows.append(_brief(place, row))
    ranks = {
        "differ": sorted(
            (c for c in cases.values() if c.spread + c.split_rules > 0),
            key=lambda c: -(c.spread + c.split_rules),
        ),
        "failed": sorted((c for c in cases.values() if c.missed), key=lambda c: -c.missed),
        "sample": sorted(cases.values(), key=lambda c: digest([str(seed), *c.key])),
    }
    taken: dict[Key, tuple[str, _Case]] = {}
    left, most = limit, min(PER_CASE, limit)
    while left > 0 and any(ranks.values()):
        for turn in _TURNS:
            while ranks[turn] and ranks[turn][0].key in taken:
                ranks[turn].pop(0)
            if ranks[turn]:
                case = ranks[turn].pop(0)
                if (size := min(len(case.rows), most)) <= left:
                    taken[case.key] = (turn, case)
                    left -= size
        if left < most:  # only smaller cases still fit
            ranks = {n: [c for c in cs if len(c.rows) <= left] for n, cs in ranks.items()}
    order = {"differ": 0, "failed": 1, "sample": 2}
    listed = sorted(taken.values(), key=lambda t: order[t[0]])
    chosen = tuple(
        Chosen(c.key, _why(turn, c), _telling(c.rows, most), len(c.rows)) for turn, c in listed
    )
    return Choice(chosen, sum(len(c.places) for c in chosen), total, len(cases))


def case_key(row: Mapping[str, Any]) -> Key:
    """What the rows of one case have in common."""
    return str(row.get("suite") or ""), str(row.get("case", ""))


def choose_all(rows: Iterable[Mapping[str, Any]], *, seed: Any = 0) -> Choice:
    """Every row and all answers of every case, in the order of `choose`."""
    cases: dict[Key, list[int]] = {}
    for place, row in enumerate(rows):
        cases.setdefault(case_key(row), []).append(place)
    total = sum(map(len, cases.values()))
    ranked = choose(rows, seed=seed, limit=total)
    why = {c.key: c.why for c in ranked.cases}
    keys = [*why, *(key for key in cases if key not in why)]
    chosen = tuple(Chosen(k, why.get(k, ""), tuple(cases[k]), len(cases[k])) for k in keys)
    return Choice(chosen, total, total, len(cases))


def pick_up(rows: Iterable[Mapping[str, Any]], places: frozenset[int]) -> dict[int, Any]:
    """The second pass: the chosen rows by their place."""
    found: dict[int, Any] = {}
    for place, row in enumerate(rows):
        if place in places:
            found[place] = row
            if len(found) == len(places):
                break
    return found


def _brief(place: int, row: Mapping[str, Any]) -> _Brief:
    marks = row.get("marks") or {}
    score = f.number(row, "score")
    outcome = str(row.get("outcome") or "unscored")
    letters = {"YES": "Y", "NO": "N"}
    return _Brief(
        place,
        str(row.get("model") or ""),
        outcome,
        score if outcome == "scored" else None,
        "".join(letters.get(m, "-") for _, m in sorted(marks.items())),
    )


def _why(turn: str, case: _Case) -> str:
    if turn == "differ" and case.spread > 0:
        return f"scores from {min(case.scores):.2f} to {max(case.scores):.2f}"
    if turn == "differ":
        return "equal scores, different rules broken"
    if turn == "failed":
        return f"{case.missed} of {len(case.rows)} without a score"
    return "drawn at random"


def _telling(rows: Sequence[_Brief], limit: int) -> tuple[int, ...]:
    """At most `limit` rows of a case, in file order.

    The best, the worst and one of each outcome first, then the other answers of the best one's
    model, so that methods can be compared side by side.
    """
    if len(rows) <= limit:
        return tuple(r.place for r in rows)
    scored = sorted((r for r in rows if r.score is not None), key=lambda r: (r.score, -r.place))
    missed = {r.outcome: r for r in reversed(rows) if r.outcome != "scored"}
    first = [*scored[-1:], *scored[:1], *missed.values()]
    same = [r for r in rows if r.model == first[0].model]
    ranked = dict.fromkeys(r.place for r in [*first, *same, *rows])
    return tuple(sorted(list(ranked)[:limit]))
