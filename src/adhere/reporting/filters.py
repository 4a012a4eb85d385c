"""What the answers on the page can be filtered by: short tokens in the markup, names in menus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adhere.reporting.answers import AnswerView, CaseView

_MOST = 200  # entries of one menu


@dataclass(frozen=True)
class Filters:
    """The menus. A token is the place of a name in its menu; each row carries its tokens."""

    methods: tuple[str, ...]
    outcomes: tuple[str, ...]
    labels: tuple[str, ...]
    rules: tuple[str, ...]

    @property
    def menus(self) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Key, label and entries of each menu that offers a choice."""
        menus = (
            ("m", "Method", self.methods),
            ("o", "Outcome", self.outcomes),
            ("l", "Label", self.labels),
            ("r", "Violated rule", self.rules),
        )
        return tuple(m for m in menus if len(m[2]) > (0 if m[0] == "r" else 1))

    def method(self, it: AnswerView) -> str:
        """The token of an answer's method and model."""
        return _token(self.methods, _who(it))

    def outcome(self, it: AnswerView) -> str:
        """The token of an answer's outcome."""
        return _token(self.outcomes, it.outcome)

    def broken(self, it: AnswerView) -> str:
        """The tokens of the rules an answer violates."""
        return " ".join(t for m in it.broken if (t := _token(self.rules, m.rule)))

    def label(self, it: CaseView) -> str:
        """The token of a case's label."""
        return _token(self.labels, it.label)


def filters(cases: Sequence[CaseView]) -> Filters:
    """The menus over the cases shown: in order of appearance, rules by how often violated."""
    answers = [a for c in cases for a in c.answers]
    often: dict[str, int] = {}
    for answer in answers:
        for mark in answer.broken:
            often[mark.rule] = often.get(mark.rule, 0) + 1
    return Filters(
        _menu(_who(a) for a in answers),
        _menu(a.outcome for a in answers),
        _menu(c.label for c in cases),
        _menu(sorted(often, key=lambda rule: -often[rule])),
    )


def _who(it: AnswerView) -> str:
    return f"{it.method}, {it.model}" if it.model else it.method


def _menu(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name)[:_MOST]


def _token(menu: tuple[str, ...], name: str) -> str:
    return str(menu.index(name)) if name in menu else ""
