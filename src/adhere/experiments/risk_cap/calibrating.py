"""From labeled games to the cap to use, and the frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adhere.errors import BadInput
from adhere.experiments.clusters import clusters_of, split
from adhere.experiments.metrics import Estimate
from adhere.experiments.risk_cap.choosing import CapChoice, ceil_step, choose_caps
from adhere.experiments.risk_cap.curves import TOLERANCE
from adhere.experiments.risk_cap.games import LabeledGame
from adhere.experiments.risk_cap.measuring import AtCap, Measured, gain
from adhere.experiments.risk_cap.paths import Policy

MOST_POINTS = 400  # of a drawn curve
_SHARES = (0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95)  # of the corners, for the table's caps


@dataclass(frozen=True)
class Line:
    """A cap with the game and the plain filter at it, and the gain of the game, paired."""

    cap: float
    game: AtCap
    filter: AtCap
    gain: Estimate


@dataclass(frozen=True)
class HeldOut:
    """The truth at a chosen cap on prompts that did not choose it."""

    kind: str
    cap: float
    n: int
    risky: Estimate
    helpful: Estimate


@dataclass(frozen=True)
class OfSuite:
    """The truth at the cap wanted on the prompts of one suite alone, of `n` units."""

    suite: str
    cap: float
    n: int
    risky: Estimate
    helpful: Estimate


@dataclass(frozen=True)
class EqualRisk:
    """Game and filter, each at its own largest cap within the target (point).

    `gain`: true helpfulness of the game minus that of the filter; its interval holds for these two
    caps and leaves out that they were chosen on the same prompts.
    """

    game_risk: float
    filter_risk: float
    gain: Estimate


@dataclass(frozen=True)
class Point:
    """One corner of the drawn curves: truth and belief at a cap.

    Where a curve jumps there are two with the same cap: before, and at it.
    """

    cap: float
    risky: float
    helpful: float
    believed_risk: float


@dataclass(frozen=True)
class RiskCap:
    """What was found. `n`: units (near-duplicate prompts count once), of `n_games` games.

    `recommended` is None when nothing can be promised, or when the cap that has a promise is too
    risky counted by prompts: `unfit` then says so.
    """

    target: float
    confidence: float
    n: int
    n_games: int
    n_held_out: int
    policy: Policy
    choices: tuple[CapChoice, CapChoice, CapChoice]
    filter_choices: tuple[CapChoice, CapChoice, CapChoice]
    recommended: CapChoice | None
    wanted: CapChoice
    lines: tuple[Line, ...]
    refusing: AtCap
    uncapped: AtCap
    equal_risk: EqualRisk | None
    held_out: tuple[HeldOut, ...]
    game_curve: tuple[Point, ...]
    filter_curve: tuple[Point, ...]
    by_suite: tuple[OfSuite, ...] = ()
    unfit: str = ""
    notes: tuple[str, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether some games count once together."""
        return self.n != self.n_games


def calibrate_cap(
    games: Sequence[LabeledGame],
    policy: Policy,
    *,
    target: float = 0.05,
    confidence: float | None = None,
    holdout: float = 0.0,
    seed: int = 0,
    by_text: bool = True,
) -> RiskCap:
    """Find the largest cap for a target on the mean true risk of the answers given.

    `confidence`: recommend the cap that keeps the target with this probability over the draw of
    the development set; without it, the one that keeps it on average (and 0.9 is shown beside).
    `holdout`: share of the prompts, by clusters, that choose nothing and check the choice.
    `by_text`: prompts that are nearly the same count once together, not only those of one group.
    Raises BadInput for numbers out of range, and where a split would be empty.
    """
    _check("--target-risk", target)
    if confidence is not None:
        _check("--confidence", confidence)
    if not (math.isfinite(holdout) and 0 <= holdout < 1):
        raise BadInput(f"--holdout: found {holdout}; expected a share from 0 to below 1")
    grouping = clusters_of(games, by_text=by_text)
    clusters = grouping.numbers
    held = split(clusters, holdout, seed) if holdout else [False] * len(games)
    if all(held) or (holdout and not any(held)):
        raise BadInput(
            f"--holdout {holdout:g}: found {len(set(clusters))} groups of prompts, and a side "
            "without any; expected some on each",
            hint="Near-duplicate prompts stay on one side. Give more prompts, or another share.",
        )
    dev = [(g, c) for g, c, h in zip(games, clusters, held, strict=True) if not h]
    filtering = replace(policy, emission="filter", beta=None)
    own = Measured(dev, policy, seed)
    plain = Measured(dev, filtering, seed)
    level = confidence or 0.9
    choices, filter_choices = choose_caps(own, target, level), choose_caps(plain, target, level)
    wanted = choices[2] if confidence is not None else choices[1]
    unfit = _unfit(own, wanted, target)
    rest = [(g, c) for g, c, h in zip(games, clusters, held, strict=True) if h]
    return RiskCap(
        target,
        level,
        own.n,
        len(dev),
        len({c for _, c in rest}),
        policy,
        choices,
        filter_choices,
        wanted if wanted.cap is not None and not unfit else None,
        wanted,
        _lines(own, plain, choices, seed),
        own.refusing(),
        own.uncapped(),
        _equal_risk(own, plain, choices[0], filter_choices[0], seed),
        _held_out(rest, policy, choices, seed),
        _curve(own),
        _curve(plain),
        _by_suite(dev, policy, wanted.cap, seed),
        unfit,
        grouping.notes,
    )


def _check(option: str, value: float) -> None:
    if not (math.isfinite(value) and 0 < value < 1):
        raise BadInput(f"{option}: found {value}; expected a number between 0 and 1")


def _lines(
    own: Measured, plain: Measured, choices: Sequence[CapChoice], seed: int
) -> tuple[Line, ...]:
    """Some caps spread over the corners, and the chosen ones."""
    corners = own.corners
    spread = {ceil_step(corners[round(share * (len(corners) - 1))]) for share in _SHARES}
    caps = sorted(spread | {one.cap for one in choices if one.cap is not None})
    out = []
    for cap in caps:
        columns = own.column(cap, "helpful"), plain.column(cap, "helpful")
        out.append(Line(cap, own.at(cap), plain.at(cap), gain(*columns, seed)))
    return tuple(out)


def _equal_risk(
    own: Measured, plain: Measured, ours: CapChoice, theirs: CapChoice, seed: int
) -> EqualRisk | None:
    if ours.cap is None or theirs.cap is None:
        return None
    columns = own.column(ours.cap, "helpful"), plain.column(theirs.cap, "helpful")
    return EqualRisk(own.risky.at(ours.cap), plain.risky.at(theirs.cap), gain(*columns, seed))


def _unfit(own: Measured, wanted: CapChoice, target: float) -> str:
    """Why a cap with a promise is no cap to use; empty when it is."""
    if wanted.cap is None:
        return ""
    risk = own.at(wanted.cap).risky_by_prompt
    if risk <= target + TOLERANCE:
        return ""
    return (
        f"The cap {wanted.cap:g} has a promise over groups of prompts, but counted by prompts the "
        f"mean true risk at it is {risk:.3f} on the development set, and the target is {target:g}: "
        "the larger groups are the riskier ones. Give more kinds of prompts like those, a higher "
        "target, or --no-clusters where they are different questions in one template."
    )


def _by_suite(
    dev: Sequence[tuple[LabeledGame, int]], policy: Policy, cap: float | None, seed: int
) -> tuple[OfSuite, ...]:
    suites = sorted({game.suite for game, _ in dev})
    if cap is None or len(suites) < 2:
        return ()
    out = []
    for suite in suites:
        own = Measured([one for one in dev if one[0].suite == suite], policy, seed)
        at = own.at(cap)
        out.append(OfSuite(suite, cap, own.n, at.risky, at.helpful))
    return tuple(out)


def _held_out(
    rest: Sequence[tuple[LabeledGame, int]],
    policy: Policy,
    choices: Sequence[CapChoice],
    seed: int,
) -> tuple[HeldOut, ...]:
    if not rest:
        return ()
    measured = Measured(rest, policy, seed)
    found = [(one.kind, measured.at(one.cap)) for one in choices if one.cap is not None]
    return tuple(
        HeldOut(kind, at.cap or 0.0, measured.n, at.risky, at.helpful) for kind, at in found
    )


def _curve(measured: Measured) -> tuple[Point, ...]:
    """The corners of the curves, thinned evenly where they are too many to draw."""
    corners = measured.corners
    step = max(1, math.ceil((len(corners) - 1) / (MOST_POINTS - 1)))
    kept = [*corners[::step]]
    if kept[-1] != corners[-1]:
        kept.append(corners[-1])
    curves = measured.risky, measured.helpful, measured.believed_risk
    out = []
    for cap in kept:
        shown = round(cap, 12)  # without the rounding of differences of scores
        before, at = [curve.before(cap) for curve in curves], [curve.at(cap) for curve in curves]
        if cap > 0 and max(abs(x - y) for x, y in zip(before, at, strict=True)) > TOLERANCE:
            out.append(Point(shown, *before))
        out.append(Point(shown, *at))
    return tuple(out)
