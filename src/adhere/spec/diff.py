"""What changed between two specifications, rule by rule.

Rules are paired by id. An edited text gives a rule without a given id another derived id, so
what is left over is paired a second time: equal texts first, then the most similar ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields

from adhere.spec.model import Rule, Specification

SIMILAR = 0.6  # the ratio (0 to 1) of equal characters from which two texts are one rule, edited
# Comparing every pair of texts takes time: beyond this many pairs only equal texts are paired.
_MOST_PAIRS = 10_000

_RULE_FIELDS = tuple(field.name for field in fields(Rule))
_FRONT_FIELDS = ("name", "version", "description", "fallback")


@dataclass(frozen=True)
class FieldChange:
    """One field with its value before and after; None where it was not set."""

    field: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class RuleChange:
    """One rule that is in both specifications and differs."""

    before: Rule
    after: Rule
    changes: tuple[FieldChange, ...]

    @property
    def moved(self) -> bool:
        """Whether the rule changed its kind."""
        return self.before.kind != self.after.kind


@dataclass(frozen=True)
class SpecDiff:
    """All differences. `reordered`: the rules in both stand in another order."""

    front: tuple[FieldChange, ...]
    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[RuleChange, ...]
    reordered: bool

    @property
    def is_empty(self) -> bool:
        """Whether the specifications are equal."""
        return not (self.front or self.added or self.removed or self.changed or self.reordered)

    def lines(self) -> list[str]:
        """The differences as plain text: `+` added, `-` removed, `~` changed."""
        out = [f"~ {line}" for change in self.front for line in _field_lines(change)]
        out += [f"- {_shown(rule)}" for rule in self.removed]
        out += [f"+ {_shown(rule)}" for rule in self.added]
        for change in self.changed:
            moved = f", moved to {change.after.kind}" if change.moved else ""
            out.append(f"~ [{change.after.id}] {change.after.kind}{moved}")
            out += [
                f"    {line}"
                for field in change.changes
                if field.field != "kind"
                for line in _field_lines(field)
            ]
        if self.reordered:
            out.append("~ the rules stand in another order")
        return out


def diff_specs(a: Specification, b: Specification) -> SpecDiff:
    """The differences from `a` (before) to `b` (after)."""
    pairs = _pair(a, b)
    order = {rule.id: place for place, rule in enumerate(b.rules)}
    # A rule that moved to the other kind stands elsewhere for that reason alone.
    places = [
        order[after.id]
        for before in a.rules
        if (after := pairs.get(before.id)) and after.kind == before.kind
    ]
    changed = [
        RuleChange(before, after, changes)
        for before in a.rules
        if (after := pairs.get(before.id)) and (changes := _rule_changes(before, after))
    ]
    paired = {rule.id for rule in pairs.values()}
    front = [
        FieldChange(name, getattr(a, name) or None, getattr(b, name) or None)
        for name in _FRONT_FIELDS
    ]
    front += [
        FieldChange(key, a.meta.get(key), b.meta.get(key)) for key in sorted({*a.meta, *b.meta})
    ]
    return SpecDiff(
        front=tuple(change for change in front if change.before != change.after),
        added=tuple(rule for rule in b.rules if rule.id not in paired),
        removed=tuple(rule for rule in a.rules if rule.id not in pairs),
        changed=tuple(changed),
        reordered=places != sorted(places),
    )


def _pair(a: Specification, b: Specification) -> dict[str, Rule]:
    """The rule of `b` for every id of `a` that has one."""
    pairs = {rule.id: b.by_id[rule.id] for rule in a.rules if rule.id in b.by_id}
    left = [rule for rule in a.rules if rule.id not in pairs]
    taken = {rule.id for rule in pairs.values()}
    right = [rule for rule in b.rules if rule.id not in taken]
    by_text = {rule.text: rule for rule in right}
    for rule in left:
        match = by_text.pop(rule.text, None)
        if match is not None:
            pairs[rule.id] = match
            taken.add(match.id)
    left = [rule for rule in left if rule.id not in pairs]
    right = [rule for rule in right if rule.id not in taken]
    if len(left) * len(right) > _MOST_PAIRS:
        return pairs
    scored = [
        (ratio, i, j)
        for i, before in enumerate(left)
        for j, after in enumerate(right)
        if (ratio := _similarity(before.text, after.text)) >= SIMILAR
    ]
    # The most similar pair first; of equals, the one that stands first.
    for _, i, j in sorted(scored, key=lambda item: (-item[0], item[1], item[2])):
        if left[i].id not in pairs and right[j].id not in taken:
            pairs[left[i].id] = right[j]
            taken.add(right[j].id)
    return pairs


def _similarity(before: str, after: str) -> float:
    """The share of equal characters, 0 to 1; 0 where a quick look shows it is too small."""
    if len(before) + len(after) > 1000:  # by words: by characters it would take too long
        return _ratio(before.split(), after.split())
    return _ratio(before, after)


def _ratio(before: Sequence[str], after: Sequence[str]) -> float:
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    if matcher.real_quick_ratio() < SIMILAR or matcher.quick_ratio() < SIMILAR:
        return 0.0
    return matcher.ratio()


def _rule_changes(before: Rule, after: Rule) -> tuple[FieldChange, ...]:
    return tuple(
        FieldChange(name, getattr(before, name), getattr(after, name))
        for name in _RULE_FIELDS
        if getattr(before, name) != getattr(after, name)
    )


def _shown(rule: Rule) -> str:
    check = f"  (check: {rule.check})" if rule.check else ""
    return f"[{rule.id}] {rule.kind}: {rule.text}{check}"


def _field_lines(change: FieldChange) -> list[str]:
    """One line where both values are short, else a line each."""
    before, after = (
        "(none)" if value is None else " ".join(value.split())
        for value in (change.before, change.after)
    )
    if before == after:
        return [f"{change.field}: line breaks and white space"]
    if len(before) + len(after) <= 80:
        return [f"{change.field}: {before} -> {after}"]
    return [f"{change.field}:", f"    - {before}", f"    + {after}"]
