"""`Suite`: a named list of cases, with the spec that belongs to them where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from adhere.chat import Case, digest
from adhere.spec import Specification


@dataclass(frozen=True)
class Suite:
    """Cases with ids that are unique within the suite."""

    name: str
    cases: tuple[Case, ...]
    spec: Specification | None = None
    source: str = ""  # where the cases come from, for the record

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
                    *([case.judge_note] if case.judge_note else ()),
                ]
                for case in self.cases
            ]
        )
