"""A run under an edited spec: what is taken over from an earlier one, and which edit moved what.

Draws and marks are kept by what decided them, so taking over needs no bookkeeping: a draw whose
prompt an edit did not change, and a mark of a rule that it did not touch, are found again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.chat import Mark, Outcome
from adhere.errors import BadInput
from adhere.experiments.inputs import Inputs
from adhere.experiments.metrics import Estimate, paired_difference
from adhere.experiments.pairing import Run
from adhere.experiments.table import spread
from adhere.judging.scoring import score_marks
from adhere.records import RunFolder, read_run_record
from adhere.records.run_folder import SUMMARY_FILE
from adhere.spec import Rule, Specification, diff_specs

Row = Mapping[str, Any]
Key = tuple[str, int]  # case and repeat
Marks = Mapping[str, str]


def check_reusable(inputs: Inputs) -> None:
    """Refuse an earlier run whose draws would not be this run's. Raises BadInput."""
    reuse = inputs.plan.reuse
    if reuse is None:
        return
    record = read_run_record(reuse)
    if record is None:
        raise BadInput(
            f"--reuse: {reuse} is no run folder",
            hint="Give a folder that `adhere eval` or `adhere judge` wrote.",
        )
    if not (reuse / SUMMARY_FILE).is_file():
        raise BadInput(
            f"--reuse: {reuse} has no {SUMMARY_FILE} yet",
            hint="Start that run once more: it goes on from where it was killed.",
        )
    seed = (record["identity"].get("sampling") or {}).get("seed")
    if seed is not None and seed != inputs.plan.sampling.seed:
        raise BadInput(
            f"--reuse: {reuse} was sampled with seed {seed}, this run with "
            f"{inputs.plan.sampling.seed}; its answers would not be this run's",
            hint="Give the same --seed, or leave --reuse out.",
        )


@dataclass(frozen=True)
class _Edit:
    """One rule that differs. `before` or `after` is None where the rule was added or removed."""

    name: str
    before: Rule | None
    after: Rule | None

    @property
    def rule(self) -> Rule:
        found = self.after or self.before
        assert found is not None
        return found


def _edits(before: Specification, after: Specification) -> list[_Edit]:
    diff = diff_specs(before, after)
    out = [_Edit("added", None, rule) for rule in diff.added]
    out += [_Edit("removed", rule, None) for rule in diff.removed]
    for change in diff.changed:
        fields = {c.field for c in change.changes}
        if fields & {"text", "check", "kind", "applies"}:
            words = {"text": "reworded", "kind": "moved"}
            names = [words.get(f, f"{f} changed") for f in ("text", "kind", "check", "applies")
                     if f in fields]  # fmt: skip
            out.append(_Edit(", ".join(names), change.before, change.after))
    return out


def edits(
    inputs: Inputs, folder: RunFolder, rows: Sequence[Row], judge: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Which edit of the spec moved which number since the run that was reused.

    `sar_moved` of an edit: SAR as it is, minus SAR with this one rule as it was before (its old
    marks on the same prompts, the rule dropped where it was added, put back where it was removed).
    What the edits do not explain one by one is answers that changed with the prompt. None when no
    run was reused, or one of another judge.
    """
    if inputs.plan.reuse is None:
        return None
    old = Run(inputs.plan.reuse)
    if old.summary["settings"]["judge"] != (judge["identity"] if judge else "checks"):
        return None  # another judge: what moved may be its doing, not the edit's
    judging = judge["model_identity"] if judge else ""
    unmeasured = bool(inputs.scorer().unmeasured(inputs.judge.undecided(inputs.spec)))
    unmeasured = unmeasured or bool(old.summary.get("unmeasured"))
    marks_new, marks_reused = folder.marks.counts()
    found = _edits(old.spec, inputs.spec)
    lines, rest = [], []
    seed = inputs.plan.sampling.seed
    arms: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        arms.setdefault((row["suite"], row["model"], row["method"]), []).append(row)
    for arm, mine in arms.items():
        pairs = _pairs(old.arms.get(arm, []), mine)
        if not pairs:
            continue
        arms_facts = dict(zip(("suite", "model", "method"), arm, strict=True))
        moved_by_edits = 0.0
        for edit in found:
            line = _line(inputs, edit, pairs, seed)
            lines.append({**arms_facts, **line})
            moved_by_edits += line["sar_moved"] or 0.0
        before = _sar(inputs, pairs, old.spec, lambda was, now: was)
        after = _sar(inputs, pairs, inputs.spec, lambda was, now: now)
        total, n = paired_difference(after, before, seed=seed)
        rest.append(
            {
                **arms_facts,
                "n_paired": n,
                "sar_before": _mean(before),
                "sar_after": _mean(after),
                **spread("sar_diff", total),
                "sar_moved_by_edits": moved_by_edits,
                "sar_moved_otherwise": (total.value or 0.0) - moved_by_edits,
            }
        )
    if unmeasured:  # nobody decides a whole kind of rules: there is no SAR to move
        for line in (*lines, *rest):
            line.update({k: None for k in line if k.startswith("sar_")})
    return {
        "reused": inputs.plan.reuse.name,
        "spec_before": {"version": old.spec.version, "digest": old.summary["spec"]["digest"]},
        "rows": lines,
        "unchanged": rest,
        "n_answers_reused": folder.draws.count_reused(without=judging),
        "n_answers_new": folder.draws.count(without=judging),
        "n_marks_reused": marks_reused,
        "n_marks_new": marks_new,
    }


def _pairs(old: Sequence[Row], new: Sequence[Row]) -> dict[Key, tuple[Row, Row]]:
    """Scored rows of the same prompt in both."""
    before = {(r["case"], r["repeat"]): r for r in old if r["outcome"] == Outcome.SCORED}
    return {
        key: (before[key], row)
        for row in new
        if row["outcome"] == Outcome.SCORED
        and (key := (row["case"], row["repeat"])) in before
        and before[key]["messages"] == row["messages"]
    }


def _line(
    inputs: Inputs, edit: _Edit, pairs: Mapping[Key, tuple[Row, Row]], seed: int
) -> dict[str, Any]:
    undone = _undone(inputs.spec, edit)

    def without(was: Marks, now: Marks) -> Marks:
        """The marks as they would be without this edit."""
        out = {k: v for k, v in now.items() if edit.after is None or k != edit.after.id}
        if edit.before is not None and edit.before.id in was:
            out[edit.before.id] = was[edit.before.id]
        return out

    now = _sar(inputs, pairs, inputs.spec, lambda was, marks: marks)
    then = _sar(inputs, pairs, undone, without)
    moved, n = paired_difference(now, then, seed=seed)
    before = _followed(pairs, edit.before, 0)
    after = _followed(pairs, edit.after, 1)
    difference = Estimate(None, None, None)
    if before and after:
        difference, _ = paired_difference(after, before, seed=seed)
    return {
        "edit": edit.name,
        "rule": edit.rule.id,
        "before_text": _shown(edit.before),
        "after_text": _shown(edit.after),
        "n_paired": n,
        "rate_before": _mean(before),
        "rate_after": _mean(after),
        **spread("rate_diff", difference),
        **spread("sar_moved", moved),
    }


def _shown(rule: Rule | None) -> str:
    """A rule as its file says it, as far as it decides marks."""
    if rule is None:
        return ""
    lines = [f"{k}: {v}" for k, v in (("check", rule.check), ("applies", rule.applies)) if v]
    return "\n".join([rule.text, *lines])


def _undone(spec: Specification, edit: _Edit) -> Specification:
    """The spec without one edit."""
    rules = []
    for rule in spec.rules:
        if edit.after is not None and rule.id == edit.after.id:
            if edit.before is not None:
                rules.append(edit.before)
        else:
            rules.append(rule)
    if edit.after is None and edit.before is not None:
        rules.append(edit.before)
    return Specification(spec.name, tuple(rules), spec.version)


def _sar(
    inputs: Inputs, pairs: Mapping[Key, tuple[Row, Row]], spec: Specification, choose: Any
) -> dict[str, list[float]]:
    """Scores by case, of the marks that `choose` makes of those before and now."""
    out: dict[str, list[float]] = {}
    for (case, _), (was, now) in sorted(pairs.items(), key=lambda item: item[0]):
        marks: Marks = choose(was["marks"], now["marks"])
        scored = score_marks(marks, spec, alpha=inputs.plan.alpha, na_policy=inputs.plan.na_policy)
        out.setdefault(case, []).append(scored.total)
    return out


def _followed(
    pairs: Mapping[Key, tuple[Row, Row]], rule: Rule | None, side: int
) -> dict[str, list[float]]:
    """Whether a rule was followed, by case, where it applied."""
    out: dict[str, list[float]] = {}
    if rule is not None:
        for (case, _), pair in sorted(pairs.items(), key=lambda item: item[0]):
            mark = pair[side]["marks"].get(rule.id, Mark.NA)
            if mark != Mark.NA:
                out.setdefault(case, []).append(float(mark == Mark.YES))
    return out


def _mean(values: Mapping[str, Sequence[float]]) -> float | None:
    by_case = [sum(found) / len(found) for found in values.values()]
    return sum(by_case) / len(by_case) if by_case else None
