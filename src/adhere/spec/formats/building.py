"""From what a reader found to a `Specification`: one place that normalizes and refuses.

What is normalized, in every format alike, so that equal specs are equal objects:

* the text of a rule, its summary, category and source, the name, version and language: every
  run of white space becomes one space, so a wrapped line is no other text than a long one;
* description and fallback: line ends and white space at the ends of lines and of the whole;
* checks and conditions: white space around them;
* the order: safety rules first, then behavioral ones, each in the order of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from adhere.errors import BadInput
from adhere.spec.checks import CheckSyntaxError, parse_check
from adhere.spec.checks.tree import quoted
from adhere.spec.model import Kind, Rule, Specification, derive_id

MAX_TEXT = 16_000  # characters of one rule, summary, fallback or line of a description
RULE_KEYS = ("check", "applies", "category", "summary", "source")
FRONT_KEYS = ("name", "version", "description", "fallback", "language")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

# Control characters but the tab, and halves of surrogate pairs (from escapes in JSON and YAML).
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")

EXAMPLE_RULE = "- [short] At most 150 words."


@dataclass(frozen=True)
class Found:
    """A text as it stands in a file, with its line (None where the format gives no lines)."""

    text: str
    line: int | None = None


@dataclass
class Entry:
    """One rule as a reader found it. `keys` holds values of RULE_KEYS."""

    kind: Kind
    text: Found
    id: Found | None = None
    keys: dict[str, Found] = field(default_factory=dict)
    place: str = ""  # where it stands, if a line cannot say it


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def block(text: str) -> str:
    """The text with plain line ends, and no white space at the ends of lines and of the whole."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def build(
    file: str, default_name: str, front: dict[str, Found], entries: list[Entry]
) -> Specification:
    """Normalize, verify and freeze what was found in a file. Raises BadInput.

    `front` holds values of FRONT_KEYS; `default_name` is used where no name was found.
    """
    texts = {
        key: _clean(file, found, key, lines=key in ("description", "fallback"))
        for key, found in front.items()
    }
    if not entries:
        raise BadInput.at(
            file,
            None,
            "no rules",
            'at least one rule under "Safety" or "Behavioral"',
            hint=f"A rule is a bullet such as: {EXAMPLE_RULE}",
        )
    rules: list[Rule] = []
    lines: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: entry.kind != "safety"):
        rule = _rule(file, entry)
        where = f"line {entry.text.line}" if entry.text.line else entry.place or "another rule"
        if rule.id in lines:
            again = "the same rule text" if entry.id is None else f'the id "{rule.id}"'
            raise BadInput.at(
                file,
                (entry.id or entry.text).line,
                f"{again} again{_at(entry)}",
                f"every rule once; {lines[rule.id]} has it already",
                hint="Remove one of the two, or give one another id: - [another-id] ...",
            )
        lines[rule.id] = where
        rules.append(rule)
    return Specification(
        name=texts.get("name") or one_line(default_name) or "spec",
        rules=tuple(rules),
        version=texts.get("version") or "1",
        description=texts.get("description", ""),
        fallback=texts.get("fallback") or None,
        meta={"language": texts["language"]} if texts.get("language") else {},
    )


def normalized(spec: Specification) -> Specification:
    """The specification as it reads back once it is written. Raises BadInput where it cannot be.

    For a specification that a reader made, this is the specification itself.
    """
    other = [key for key in spec.meta if key != "language"]
    if other:
        raise BadInput(
            f'the specification has the meta key "{other[0]}", which no spec file can hold',
            hint="Only language can be written.",
        )
    front = {
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "fallback": spec.fallback,
        "language": spec.meta.get("language"),
    }
    entries = [
        Entry(
            rule.kind,
            Found(rule.text),
            Found(rule.id),
            {key: Found(value) for key in RULE_KEYS if (value := getattr(rule, key)) is not None},
            place=f'the rule "{rule.id}"',
        )
        for rule in spec.rules
    ]
    return build(
        f"specification {quoted(spec.name)}",
        "spec",
        {key: Found(value) for key, value in front.items() if value},
        entries,
    )


def _rule(file: str, entry: Entry) -> Rule:
    text = _clean(file, entry.text, "rule", at=_at(entry))
    if not text:
        raise BadInput.at(
            file,
            entry.text.line,
            f"a rule without a text{_at(entry)}",
            "the rule in words",
            hint=f"Example: {EXAMPLE_RULE}",
        )
    if entry.id is None:
        rule_id = derive_id(text)
    else:
        rule_id = entry.id.text.strip()
        if not ID.fullmatch(rule_id):
            raise BadInput.at(
                file,
                entry.id.line,
                f"the id {quoted(rule_id)}{_at(entry)}",
                "1 to 64 letters (a to z), digits, - and _, beginning with a letter or digit",
                hint=r"Where the rule's text itself begins with a bracket, write \[ for [.",
            )
    values: dict[str, str] = {}
    for key, found in entry.keys.items():
        value = _clean(file, found, key, at=_at(entry))
        if not value:
            raise BadInput.at(
                file, found.line, f"{key} without a value{_at(entry)}", f"a value after {key}:"
            )
        if key in ("check", "applies"):
            _parse(file, key, found, value, _at(entry))
        values[key] = value
    return Rule(rule_id, entry.kind, text, **values)


def _at(entry: Entry) -> str:
    return f" at {entry.place}" if entry.place else ""


def _clean(file: str, found: Found, what: str, *, lines: bool = False, at: str = "") -> str:
    """Normalize one text; refuse what cannot be written to a file or is no text."""
    code = what in ("check", "applies")
    if code:
        text = found.text.strip(" \t\n\r")
    else:
        text = block(found.text) if lines else one_line(found.text)
    longest = max(map(len, text.split("\n"))) if lines else len(text)
    if longest > MAX_TEXT:
        raise BadInput.at(
            file,
            found.line,
            f"a {what} of {longest:,} characters{at}",
            f"at most {MAX_TEXT:,}{' on a line' if lines else ''}",
            hint="Split it into several rules." if what == "rule" else "Shorten it.",
        )
    forbidden = next((m[0] for m in _FORBIDDEN.finditer(text) if not (lines and m[0] == "\n")), "")
    if forbidden in tuple("\n\r"):
        raise BadInput.at(
            file,
            found.line,
            f"a line break inside {what}{at}",
            f"{what} on one line",
            hint=r'Inside a "string", write \n for a line break.',
        )
    if forbidden:
        raise BadInput.at(
            file,
            found.line,
            f"the control character U+{ord(forbidden):04X} in a {what}{at}",
            "printable text",
            hint="Remove it; it is invisible in most editors.",
        )
    return text


def _parse(file: str, key: str, found: Found, source: str, at: str) -> None:
    """Have a check read once, so that errors name its line."""
    try:
        parse_check(source)
    except CheckSyntaxError as error:
        # Indented alike, so that the caret stays under its place wherever the hint is printed.
        shown = "\n".join(f"    {line}" for line in error.caret().split("\n"))
        raise BadInput.at(
            file,
            found.line,
            f"{error.found} in {key}{at}",
            error.expected,
            hint=f"{error.hint or 'Here:'}\n{shown}",
        ) from None
    except BadInput as error:
        place = f"{file}:{found.line}" if found.line else file
        raise BadInput(f"{place}: {error.message}", hint=error.hint) from None
