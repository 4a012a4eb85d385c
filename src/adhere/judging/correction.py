"""Rates that hold the judge's own errors, and the closed-form intervals they are made of.

The judge says "violated" too often or too seldom; known marks say by how much. Two ways:

* `corrected_rate`: known marks from anywhere, by sensitivity and specificity.
* `stratified_rate`: known marks drawn from the very run, so many from each stratum of it. Needs
  nothing of the judge (a bad judge only makes wider intervals): prefer it where it can be had.

Rates are of *violation*; `Corrected.following` turns one into the rate of following, 1 - violated
(so NA counts as following, as in the calibration).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from adhere.errors import BadInput

if TYPE_CHECKING:
    from adhere.judging.calibration import Calibration

LEVEL = 0.95
LANG_REICZIGEL = "Rogan-Gladen estimate, Lang-Reiczigel interval"
POST_STRATIFIED = "post-stratified estimate, square-and-add of Agresti-Coull limits"


class Estimate(NamedTuple):
    """A value with its interval. All None when there is no data for it."""

    value: float | None
    low: float | None
    high: float | None


NOTHING = Estimate(None, None, None)


class Corrected(NamedTuple):
    """A corrected rate, from 0 to 1. Without one, the numbers are None and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    method_name: str
    reason: str = ""

    @property
    def following(self) -> Corrected:
        """The same for the rate of following, 1 - violated: the bounds change places."""
        if self.value is None or self.low is None or self.high is None:
            return self
        return self._replace(value=1 - self.value, low=1 - self.high, high=1 - self.low)


def corrected_rate(
    said_positive: float, n: float, calibration: Calibration, *, level: float = LEVEL
) -> Corrected:
    """The true rate of violation where the judge said "violated" for `said_positive` of n rows.

    Estimate (Rogan and Gladen 1978), with A = said_positive / n and J = Se + Sp - 1::

        P = (A + Sp - 1) / J                                       clipped to [0, 1]

    Interval (Lang and Reiczigel 2014, Preventive Veterinary Medicine 113, 13-22): with A' from
    z**2/2 successes more in z**2 rows more, and Se', Sp' from 1 success more in 2 labels more
    (n', m1', m0' are the sizes after that; P' and J' follow)::

        P' + d  -+  z / J' * sqrt(A'(1 - A')/n' + P'**2 * Se'(1 - Se')/m1'
                                   + (1 - P')**2 * Sp'(1 - Sp')/m0')
        d = 2 z**2 * (P' * Se'(1 - Se')/m1' - (1 - P') * Sp'(1 - Sp')/m0')

    The root is the delta method. d moves the middle the way the estimate is skewed: solving
    `J**2 (P' - p)**2 = z**2 Var(p)` for p (Fieller 1954) moves it, to first order, by the same
    term with 1/J**2 in place of the authors' 2.

    Assumes: rows and labels are independent draws; given the truth, the judge errs on the rows
    as on the labeled responses. Repeats of one case are not independent: give the number of cases
    as n. For weighted or grouped labels m1 and m0 are the effective sizes.

    We differ in one thing: where P' falls outside of [0, 1], the interval is put around the
    nearer end. The published one, clipped, shrinks to a point there, as if nothing were in doubt.

    No rate without rows, without labels of both classes, or

    * when the interval of J (square-and-add) holds 0: then the judge's word may have nothing to do
      with the truth, and dividing by J would make any rate out of noise;
    * when the published interval lies wholly outside of [0, 1]: the judge said "violated" less
      (or more) often than its errors alone would, so the labels do not speak for these rows.

    Coverage by simulation (docs/judge-trust.md): 0.97 on average, 0.94 at the lowest with 30 to 200
    labels a class; as low as 0.89 with 5 or 10 labels a class on a judge of Se = Sp = 0.7, where
    a rate is given only to experiments in which the judge happened to look better than it is.
    """
    if not 0 <= said_positive <= n:
        raise BadInput(f"{said_positive} positives in {n} rows; expected a number from 0 to {n}")
    none = Corrected(None, None, None, LANG_REICZIGEL)
    if not n:
        return none._replace(reason="no judged rows")
    (se, se_low, se_high), (sp, sp_low, sp_high) = calibration.sensitivity, calibration.specificity
    if se is None or se_low is None or se_high is None:
        return none._replace(reason="no labels of violated rules: the sensitivity is unknown")
    if sp is None or sp_low is None or sp_high is None:
        return none._replace(reason="no labels of followed rules: the specificity is unknown")
    youden, low, high = square_and_add([(1.0, se, se_low, se_high), (1.0, sp, sp_low, sp_high)], -1)
    if low <= 0:
        return none._replace(
            reason=f"sensitivity + specificity - 1 is {youden:.2f}, {low:.2f} to {high:.2f}: "
            "not clearly above 0, so the judge's marks may say nothing about the truth"
        )
    z = z_of(level)
    violated, followed = calibration.n_effective_violated, calibration.n_effective_followed
    size = n + z * z
    a = (said_positive + z * z / 2) / size
    se_ = (se * violated + 1) / (violated + 2)
    sp_ = (sp * followed + 1) / (followed + 2)
    p = (a + sp_ - 1) / (se_ + sp_ - 1)
    of_se = p * se_ * (1 - se_) / (violated + 2)
    of_sp = (1 - p) * sp_ * (1 - sp_) / (followed + 2)
    variance = a * (1 - a) / size + p * of_se + (1 - p) * of_sp
    shift = 2 * z * z * (of_se - of_sp)
    half = z * math.sqrt(variance) / (se_ + sp_ - 1)
    if p + shift + half <= 0 or p + shift - half >= 1:
        few, of = ("fewer", 1 - sp) if p < 0 else ("more", se)
        return none._replace(
            reason=f"the judge marked {said_positive / n:.0%} as violated, clearly {few} than the "
            f"{of:.0%} it would if {'none' if p < 0 else 'all'} were: the labels do not fit the run"
        )
    value = _clip((said_positive / n + sp - 1) / youden)
    low, high = _clip(_clip(p) + shift - half), _clip(_clip(p) + shift + half)
    return Corrected(value, min(value, low), max(value, high), LANG_REICZIGEL)


def stratified_rate(
    strata: Mapping[str, tuple[float, float, float]],
    *,
    run_n: float | None = None,
    level: float = LEVEL,
) -> Corrected:
    """The true rate of violation in a run from labels drawn at random inside each stratum of it.

    `strata`: name -> (share of the run, labeled n, labeled violated); the shares add up to 1.
    The estimate is the sum of share * rate. Its interval adds the squared distances of the
    strata's limits (square-and-add) by Agresti and Coull (1998), which, other than Wilson's, keep
    their level for rates near 0 and 1 in small strata; a stratum where no label is violated still
    has width.

    Without `run_n` the interval is about the rows of this run. With `run_n`, the number of cases
    in the run, it is about the population that they were drawn from: the shares are then estimates
    too, which adds `z**2 * sum(share * (rate - total)**2) / run_n` (double sampling: Neyman 1938,
    Tenenbein 1970). No rate when a stratum with rows has no labels.
    """
    none = Corrected(None, None, None, POST_STRATIFIED)
    parts = []
    for name, (share, n, violated) in strata.items():
        if not (share >= 0 and 0 <= violated <= n):
            raise BadInput(f"stratum {name!r}: share {share}, {violated} violated of {n} labels")
        if share and not n:
            return none._replace(reason=f"no labels in stratum {name!r} ({share:.0%} of the run)")
        if share:
            parts.append((share, violated / n, *agresti_coull(violated / n, n, level)))
    total = math.fsum(share for share, *_ in parts)
    if not parts or abs(total - 1) > 1e-6:
        raise BadInput(f"shares of the strata add up to {total}; expected 1")
    value = _clip(math.fsum(share * rate for share, rate, *_ in parts))
    between = math.fsum(share * (rate - value) ** 2 for share, rate, *_ in parts)
    extra = z_of(level) ** 2 * between / run_n if run_n else 0.0
    _, low, high = square_and_add(parts, extra=extra)
    return Corrected(value, min(value, _clip(low)), max(value, _clip(high)), POST_STRATIFIED)


def wilson(rate: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval (1927) of a rate out of n; n may be an effective size."""
    z2 = z_of(level) ** 2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At 0 and 1 the bound is exact: rounding must not put the rate outside of its own interval.
    return _clip(min(middle - half, rate)), _clip(max(middle + half, rate))


def agresti_coull(rate: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Agresti and Coull's interval (1998) of a rate out of n: Wilson's middle, never narrower."""
    z2 = z_of(level) ** 2
    middle = (rate * n + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * middle * (1 - middle) / (n + z2))
    return _clip(min(middle - half, rate)), _clip(max(middle + half, rate))


def square_and_add(
    parts: Iterable[tuple[float, float, float, float]], start: float = 0.0, *, extra: float = 0.0
) -> tuple[float, float, float]:
    """Value and bounds of start + the sum of independent parts (factor, value, low, high).

    Each side adds the squared distances to the parts' own bounds, so skewed intervals stay skewed
    (Newcombe 1998; Zou and Donner 2008, "MOVER"). Factors are not below 0. `extra` is one more
    squared distance on both sides.
    """
    total, below, above = start, extra, extra
    for factor, value, low, high in parts:
        total += factor * value
        below += (factor * (value - low)) ** 2
        above += (factor * (high - value)) ** 2
    return total, total - math.sqrt(below), total + math.sqrt(above)


def kish_size(weights: Iterable[float]) -> float:
    """Effective size of a weighted sample, `sum(w)**2 / sum(w**2)` (Kish 1965); 0 for none."""
    weights = list(weights)
    squares = math.fsum(weight * weight for weight in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0


def effective_size(estimate: Estimate, most: float, level: float = LEVEL) -> float:
    """How many independent labels have a Wilson interval as wide as this one; at most `most`."""
    value, low, high = estimate
    if value is None or low is None or high is None:
        return most
    h2 = ((high - low) / 2) ** 2
    if h2 >= 0.25:
        return 0.0
    # Wilson's half width h at n = z**2 / u solves (1/4 - h**2) u**2 - b u - h**2 = 0.
    b = 2 * h2 - value * (1 - value)
    u = (b + math.sqrt(b * b + (1 - 4 * h2) * h2)) / (0.5 - 2 * h2)
    size = z_of(level) ** 2 / u if u > 0 else most
    return most if size > most * (1 - 1e-9) else size


@cache
def z_of(level: float) -> float:
    """The normal quantile of a two-sided level: 1.96 for 0.95."""
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + level) / 2)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
