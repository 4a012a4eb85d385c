"""The syntax tree of a check, its canonical spelling, and the error of a text that is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn, TypeAlias


@dataclass(frozen=True)
class Regex:
    r"""A regular expression as written between slashes, `\/` read as `/`; its flags sorted."""

    pattern: str
    flags: str = ""


@dataclass(frozen=True)
class Check:
    """One parsed call. Keywords are kept sorted by name, so equal checks compare equal."""

    name: str
    args: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()

    @property
    def source(self) -> str:
        """The check in its canonical spelling; parsing it gives an equal check."""
        parts = [render(value) for value in self.args]
        parts += [f"{name}={render(value)}" for name, value in self.keywords]
        return f"{self.name}({', '.join(parts)})"

    def get(self, keyword: str) -> Value | None:
        """The value of a keyword, or None where it is not given."""
        return dict(self.keywords).get(keyword)

    @property
    def strings(self) -> tuple[str, ...]:
        """The arguments that are strings."""
        return tuple(value for value in self.args if isinstance(value, str))

    @property
    def nested(self) -> tuple[Check, ...]:
        """The arguments that are checks."""
        return tuple(value for value in self.args if isinstance(value, Check))


Value: TypeAlias = "str | Regex | float | int | bool | Check"


class CheckSyntaxError(ValueError):
    """A text that is no check. `position` counts characters from 0 in `source`.

    `found`, `expected` and `hint` are phrases for a message that names a file and a line.
    """

    def __init__(
        self, source: str, position: int, found: str, expected: str, hint: str = ""
    ) -> None:
        super().__init__(f"column {position + 1}: found {found}; expected {expected}")
        self.source = source
        self.position = position
        self.found = found
        self.expected = expected
        self.hint = hint

    def caret(self, width: int = 72) -> str:
        """Two lines: the part of the source around the error, and a caret under the position."""
        start = max(0, self.position - width // 2) if len(self.source) > width else 0
        end = start + width
        shown = "".join(c if c.isprintable() else " " for c in self.source[start:end])
        lead = "..." if start else ""
        tail = "..." if end < len(self.source) else ""
        return f"{lead}{shown}{tail}\n{' ' * (len(lead) + self.position - start)}^"


@dataclass(frozen=True)
class Call:
    """A call as the parser saw it: the check and where its parts stand. For the vocabulary."""

    source: str
    check: Check
    at: int
    args_at: tuple[int, ...]
    keywords_at: dict[str, int]

    def refuse(self, position: int, found: str, expected: str, hint: str = "") -> NoReturn:
        """Raise the syntax error for a part of this call."""
        raise CheckSyntaxError(self.source, position, found, expected, hint)


def render(value: Value) -> str:
    """The canonical spelling of a value."""
    if isinstance(value, Check):
        return value.source
    if isinstance(value, Regex):
        return _render_regex(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    # repr() writes small floats with an exponent, which the grammar does not have.
    return str(value) if isinstance(value, int) else format(Decimal(repr(value)), "f")


def _render_regex(value: Regex) -> str:
    out, escaped = [], False
    for char in value.pattern:
        out.append("\\/" if char == "/" and not escaped else char)
        escaped = char == "\\" and not escaped
    return f"/{''.join(out)}/{value.flags}"


def quoted(text: str, most: int = 60) -> str:
    """A quotation of foreign text, for a message: one line, printable, at most `most` long."""
    line = " ".join(text[: 4 * most].split())
    line = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return (
        f'"{line}"' if len(line) <= most and len(text) <= 4 * most else f'"{line[: most - 3]}..."'
    )


def near(name: str, allowed: Iterable[str]) -> str:
    """`did you mean ...?` for the nearest allowed name, or an empty text."""
    match = difflib.get_close_matches(name.lower()[:64], list(allowed), n=1, cutoff=0.6)
    return f'Did you mean "{match[0]}"?' if match else ""
