"""A recommendation in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adhere.experiments.recommend import Candidate, Target


def sentence(
    target: Target,
    chosen: Candidate | None,
    candidates: Sequence[Candidate],
    unit: str,
    requests: int | None,
) -> str:
    """What is recommended and why. `candidates` ascend by cost.

    `requests`: those over which a training was spread, if any was.
    """
    if chosen is None:
        return _nothing(target, candidates)
    words = (
        f"Use {chosen.name}: the cheapest that meets {target}, with {spread(chosen)}"
        f" at {money(chosen.cost, unit)} an answer"
    )
    if requests:
        words += f" (training spread over {requests:,} requests)"
    cheaper = [c for c in candidates if c.cost is not None and c.cost < (chosen.cost or 0.0)]
    if cheaper:
        words += f"; the next cheaper, {cheaper[-1].name}, {_short(target, cheaper[-1])}"
    else:
        words += "; none that was measured is cheaper"
    if chosen.oracle:
        words += "; it selects by the checks that score it"
    return f"{words}; {chosen.caution}." if chosen.caution else f"{words}."


def _nothing(target: Target, candidates: Sequence[Candidate]) -> str:
    measured = [c for c in candidates if c.estimate.low is not None]
    if not measured:
        return f"Nothing can be recommended: no method has a number for {target.measure}."
    able = [c for c in measured if c.standing == "meets"]
    if able:
        return f"Nothing can be recommended: what meets {target} has no known cost."
    nearest = max(measured, key=lambda c: c.estimate.low or 0.0)
    words = f"Nothing meets {target}: the nearest, {nearest.name}, has {spread(nearest)}"
    return f"{words} and {_short(target, nearest)}."


def _short(target: Target, candidate: Candidate) -> str:
    """How far one that was not chosen is from the target."""
    low = candidate.estimate.low
    if low is None:
        return "is not measured"
    by = f"{target.at_least - low:.3f}"
    if candidate.standing == "may meet":
        return f"may meet it: its mean does, but its interval begins {by} below"
    return f"misses it by {by}: its interval begins at {low:.3f}"


def spread(candidate: Candidate) -> str:
    """`0.910 [0.860, 0.950] over 200 prompts`."""
    value, low, high = candidate.estimate
    if value is None or low is None or high is None:
        return "no number"
    where = f" of {candidate.suite}" if candidate.suite else ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}] over {candidate.n_cases:,} prompts{where}"


def money(cost: float | None, unit: str) -> str:
    """`0.00042 USD`, `312 tokens`, or that it is not known."""
    if cost is None:
        return "unknown cost"
    return f"{cost:,.0f} tokens" if unit == "tokens" else f"{cost:.3g} {unit}"
