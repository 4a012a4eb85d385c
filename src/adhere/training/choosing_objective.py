"""APO-zero or APO-down: whether the winners are better than what the policy writes itself.

The published rule (D'Oosterlinck et al., TACL 13, 2025): zero where winners are better than the
policy's own answers to the same prompts, down where the policy is better already. Both are judged
here by the same measure, prompt by prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from adhere.chat import Mark, canonical_json, digest
from adhere.errors import BadInput
from adhere.experiments.choices.intervals import difference
from adhere.experiments.metrics import Estimate
from adhere.training.rows import PreferenceRow

# Sets of `adhere data clair` whose pairs were refused unless the winner follows more of the rules.
_PICKED = {"clair", "on_policy_judge"}

Scores = Mapping[str, Sequence[float]]  # prompt -> a score from 0 to 1 for each of its answers


@dataclass(frozen=True)
class ObjectiveChoice:
    """Which objective the pairs ask for.

    `difference`: mean score of winners minus the policy's own answers over the `n` prompts that
    have both, with its 95% interval (over prompts). `winners` and `own` are the two means.
    `sure` is False when the interval holds 0: then the data do not tell, and the objective is
    apo_zero for the reason that `why` gives.
    """

    objective: Literal["apo_zero", "apo_down"]
    why: str
    difference: Estimate
    winners: float
    own: float
    n: int
    sure: bool

    def as_json(self) -> dict[str, Any]:
        """For a training's record."""
        return {
            "objective": self.objective,
            "why": self.why,
            "difference": list(self.difference),
            "winners": self.winners,
            "own": self.own,
            "n": self.n,
            "sure": self.sure,
        }


def choose(
    winners: Scores, own: Scores, *, measure: str = "share of rules followed", seed: int = 0
) -> ObjectiveChoice:
    """Choose by scores of winners and of the policy's own answers to the same prompts.

    Scores lie between 0 and 1 and are means over a prompt's answers; prompts that only one of the
    two has are left out. Raises BadInput when no prompt has both, or for a score outside.
    """
    for name, scores in (("winners", winners), ("the policy's own answers", own)):
        _check(name, scores)
    shared = sorted(p for p in winners.keys() & own.keys() if winners[p] and own[p])
    if not shared:
        raise BadInput(
            "choosing an objective: found no prompt with scores of a winner and of the policy's "
            "own answer",
            hint="Name the objective: --objective apo_zero for winners better than what the model "
            "writes, apo_down for worse ones.",
        )
    better = {p: _mean(winners[p]) for p in shared}
    mine = {p: _mean(own[p]) for p in shared}
    found = difference({p: better[p] - mine[p] for p in shared}, seed)
    assert found.value is not None and found.low is not None and found.high is not None
    value, low, high = found.value, found.low, found.high
    means = (_mean(list(better.values())), _mean(list(mine.values())))
    told = (
        f"{measure}: winners {means[0]:.3f}, the model's own answers {means[1]:.3f}, difference "
        f"{value:+.3f} (95% interval {low:+.3f} to {high:+.3f}, {len(shared)} "
        f"prompt{'s' if len(shared) > 1 else ''})"
    )
    if low > 0:
        why = f"apo_zero, for the winners are better than what the model writes: {told}"
        return ObjectiveChoice("apo_zero", why, found, *means, len(shared), True)
    if high < 0:
        why = f"apo_down, for the model already writes better than the winners: {told}"
        return ObjectiveChoice("apo_down", why, found, *means, len(shared), True)
    why = (
        "apo_zero, but the scores do not tell winners from what the model writes; of the two "
        "mistakes apo_zero on slightly worse winners is the milder one, for apo_down pushes the "
        f"likelihood of good winners down: {told}"
    )
    return ObjectiveChoice("apo_zero", why, found, *means, len(shared), False)


class MarkedScores(NamedTuple):
    """Scores of both sides by prompt, how many rows had no marks of use, and what is to be told.

    `others`: of the rows without use, how many had a rejected answer by whom else. `unsure`: who
    wrote those of rows that count, where nothing tells whether that is the policy (empty: the rows
    do not say). `picked`: all winners were only taken because they follow more of the rules.
    """

    winners: Scores
    own: Scores
    without: int
    others: Counter[str]
    unsure: tuple[str, ...]
    picked: bool


def marked_scores(
    rows: Iterable[PreferenceRow], is_policy: Callable[[str], bool | None] = lambda name: None
) -> MarkedScores:
    """Scores out of rows that carry marks: `extras["marks"]` with `before` and `after`.

    `before` are the marks of the rejected answer, `after` those of the chosen one; a score is the
    share of rules followed among those that apply to both. They say something about the policy
    only where it wrote the rejected answers: `is_policy` tells that of the model that a row's
    lineage names (None: it cannot tell, and the row counts). Rows by another model, of an
    off-policy set, without such marks or without a rule that applies to both are counted and left
    out.
    """
    winners: dict[str, list[float]] = {}
    own: dict[str, list[float]] = {}
    without = 0
    others: Counter[str] = Counter()
    unsure: set[str] = set()
    sets: set[str] = set()
    for row in rows:
        found = row.extras.get("lineage")
        lineage: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        author = str(lineage.get("rejected_by") or "")
        name, _, _ = author.partition(" ")
        mine = is_policy(author) if author else None
        if lineage.get("set") == "off_policy_judge" or mine is False:
            without += 1
            others[name or "another model"] += 1
            continue
        marks = row.extras.get("marks")
        pair = _shares(marks) if isinstance(marks, Mapping) else None
        if pair is None:
            without += 1
            continue
        # Rows of one prompt are no independent evidence: they are one prompt here.
        prompt = digest(canonical_json([message.to_dict() for message in row.prompt]))
        own.setdefault(prompt, []).append(pair[0])
        winners.setdefault(prompt, []).append(pair[1])
        sets.add(str(lineage.get("set", "")))
        if mine is None:
            unsure.add(name)
    picked = bool(sets) and sets <= _PICKED
    return MarkedScores(winners, own, without, others, tuple(sorted(unsure)), picked)


def choose_by_marks(marked: MarkedScores) -> ObjectiveChoice:
    """Choose by the marks of rows; `why` says what they cannot show. Raises BadInput."""
    found = choose(marked.winners, marked.own)
    why = [found.why]
    if names := [name for name in marked.unsure if name]:
        why.append(f"the rejected answers are by {', '.join(names)}, taken for the model's own")
    elif marked.unsure:
        why.append("the rows do not say who wrote the rejected answers; taken for the model's own")
    if marked.picked:
        why.append("only pairs whose winner follows more rules were kept, so it is better by "
                   "construction")  # fmt: skip
    return replace(found, why="; ".join(why))


def _shares(marks: Mapping[str, Any]) -> tuple[float, float] | None:
    before, after = marks.get("before"), marks.get("after")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    decided = (Mark.YES, Mark.NO)
    both = [r for r in before if before[r] in decided and after.get(r) in decided]
    if not both:
        return None
    shares = [sum(side[rule] == Mark.YES for rule in both) / len(both) for side in (before, after)]
    return shares[0], shares[1]


def _check(name: str, scores: Scores) -> None:
    for number, values in enumerate(scores.values(), 1):
        for value in values:
            if not 0 <= value <= 1:
                raise BadInput(
                    f"choosing an objective: found a score of {value} among those of {name} "
                    f"(prompt {number} of {len(scores)}); expected 0 to 1"
                )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
