"""What a running check is given and gives back. Shared by all built-in checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from adhere.chat import Mark, RuleMark, Unscored
from adhere.spec.checks.tree import Check, quoted

Result: TypeAlias = RuleMark | Unscored


@dataclass(frozen=True)
class Scene:
    """The text under a check, the user's prompt, and how to run nested checks.

    `limit` is the number of seconds that one regex search or one JSON schema may take.
    """

    text: str
    prompt: str
    limit: float
    run: Callable[[Check, Scene], Result]


def yes(reason: str) -> RuleMark:
    """The check holds."""
    return RuleMark(Mark.YES, "check", reason)


def no(reason: str) -> RuleMark:
    """The check does not hold."""
    return RuleMark(Mark.NO, "check", reason)


def na(reason: str) -> RuleMark:
    """The check does not apply."""
    return RuleMark(Mark.NA, "check", reason)


def marked(holds: bool, reason: str) -> RuleMark:
    """YES or NO with the same words."""
    return yes(reason) if holds else no(reason)


def listed(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    """Names in quotes, the first few of them."""
    shown = ", ".join(quoted(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(number: int, noun: str) -> str:
    """`1 word`, `2 words`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"
