"""What a person should know about a spec before a run: warnings, none of which is an error.

The one that matters most: a spec that empty text follows. Checks of form alone are met by
saying nothing, and a method that optimizes for them will find that out.
"""

from __future__ import annotations

from collections.abc import Iterator

from adhere.chat import Mark, RuleMark
from adhere.spec.checks import Check, decide, evaluate, parse_check
from adhere.spec.model import Rule, Specification

_LENGTHS = ("words", "sentences", "characters")
ADVICE = 'add a rule such as "Answer what was asked." with check: on_topic(words=2)'


def warnings(spec: Specification) -> tuple[str, ...]:
    """Sentences about what is likely to be wrong, the gravest first."""
    out: list[str] = []
    checked = [(rule, parse_check(rule.check)) for rule in spec.rules if rule.check]
    judged = [rule for rule in spec.behavioral if not rule.check]
    if not judged and not any(_wants_an_answer(check) for _, check in checked):
        empty = all(_fits(rule, "") for rule in spec.rules if rule.check)
        if empty and len(checked) == len(spec.rules):
            out.append(f"an empty answer follows every rule; {ADVICE}")
        else:
            out.append(f"no rule is about answering the question; {ADVICE}")
    out += [
        f"[{rule.id}] only an empty answer follows it ({rule.check})"
        for rule, check in checked
        if any(_wants_nothing(part) for part in _required(check))
    ]
    if spec.fallback:
        out += [
            f"[{rule.id}] the fallback itself violates it ({mark.reason})"
            for rule, check in checked
            if rule.kind == "safety"
            and isinstance(mark := evaluate(check, spec.fallback), RuleMark)
            and mark.mark is Mark.NO
        ]
    return tuple(out)


def _fits(rule: Rule, text: str) -> bool:
    """Whether a text does not violate a rule, for a prompt that has content words."""
    mark = decide(rule, text, "a question about something")
    return isinstance(mark, RuleMark) and mark.mark is not Mark.NO


def _wants_an_answer(check: Check) -> bool:
    """Whether a check asks for a text on the question, or at least for some text."""
    return any(
        part.name in ("on_topic", "lix") or (part.name in _LENGTHS and (part.get("min") or 0) != 0)
        for part in _required(check)
    )


def _wants_nothing(check: Check) -> bool:
    return check.name in _LENGTHS and check.get("max") == 0


def _required(check: Check) -> Iterator[Check]:
    """The checks that must hold for this one to hold: itself, or the parts of all(...)."""
    if check.name != "all":
        yield check
    for part in check.nested if check.name == "all" else ():
        yield from _required(part)
