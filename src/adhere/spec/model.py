"""`Specification` and `Rule`: the frozen objects that every reader makes and every layer uses."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from adhere.chat import digest

Kind = Literal["safety", "behavioral"]


@dataclass(frozen=True)
class Rule:
    """One rule of a specification.

    `id` is stable: it is given in the file, or derived from the text (`derive_id`). `check` and
    `applies` are texts in the check language (`spec/checks/`); when `applies` does not hold, the
    mark is NA. `summary` stands for the rule where the whole text is too long, `source` says
    where the rule came from.
    """

    id: str
    kind: Kind
    text: str
    check: str | None = None
    applies: str | None = None
    category: str | None = None
    summary: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Specification:
    """A named, versioned list of rules. `fallback` is what to say when no answer can be given."""

    name: str
    rules: tuple[Rule, ...]
    version: str = "1"
    description: str = ""
    fallback: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def safety(self) -> tuple[Rule, ...]:
        """The rules that set limits, in file order."""
        return tuple(rule for rule in self.rules if rule.kind == "safety")

    @property
    def behavioral(self) -> tuple[Rule, ...]:
        """The rules on content, form and tone, in file order."""
        return tuple(rule for rule in self.rules if rule.kind == "behavioral")

    @cached_property
    def by_id(self) -> dict[str, Rule]:
        """Rules by their id, in file order."""
        return {rule.id: rule for rule in self.rules}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that can change a prompt or a mark."""
        return digest(
            {
                "name": self.name,
                "description": self.description,
                "fallback": self.fallback,
                "rules": [
                    [r.id, r.kind, r.text, r.check, r.applies, r.category, r.summary]
                    for r in self.rules
                ],
            }
        )


def derive_id(text: str) -> str:
    """An id for a rule that was given none: the first words of its text and a short hash of it.

    Depends on nothing but the text with white space normalised, so moving a rule or editing
    another one keeps it.
    """
    plain = unicodedata.normalize("NFKC", " ".join(text.split()))
    words = re.findall(r"[a-z0-9]+", plain.lower())
    stem = "-".join(words[:4])[:32].strip("-") or "rule"
    return f"{stem}-{hashlib.sha256(plain.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
