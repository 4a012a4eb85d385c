"""`Suite`: a named list of cases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from adhere.chat import Case, digest


@dataclass(frozen=True)
class Suite:
    """Cases with ids that are unique within the suite."""

    name: str
    cases: tuple[Case, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that is asked or judged, in order."""
        return digest(
            [
                [
                    case.id,
                    [m.to_dict() for m in case.messages],
                    case.label,
                    case.reference,
                    case.judged_prompt,
                ]
                for case in self.cases
            ]
        )
