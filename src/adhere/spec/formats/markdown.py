r"""The Markdown form of a spec: rules as a person writes them in a document.

    ---
    version: 3
    fallback: I can't help with that here.
    ---
    # Health education assistant
    We educate; we do not treat.

    ## Safety
    - [no-dose] Never state a dose,
      not even a usual one.
      check: absent(/\b\d+ ?mg/i)

    ## Behavioral
    - At most 150 words.

Read line by line rather than by a Markdown library: the form is a small part of Markdown, every
error has to name its line, and the lines under a rule mean something that Markdown has no word
for. What the reader does not know it refuses, so that no rule is lost without notice.

A rule is a bullet (`-`, `*`, `+`, or a number) at the margin. Indented lines below it go on with
its text, until the first `key: value` line. A text that begins with a bracket is written with a
backslash, `\[`, and the writer does so; the writer never wraps a text, so a line of it cannot be
taken for a key. Comments (`<!-- ... -->`) stand on lines of their own.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import NoReturn

from adhere.errors import BadInput
from adhere.spec.checks.tree import near, quoted
from adhere.spec.formats.building import (
    FRONT_KEYS,
    RULE_KEYS,
    Entry,
    Found,
    block,
    build,
    normalized,
)
from adhere.spec.formats.yaml import Fields, dump_yaml, front_fields, parse_yaml, text_value
from adhere.spec.model import Kind, Specification, derive_id

_HEADING = re.compile(r"(#{1,6})(?:[ \t](.*))?")
_SECTION = re.compile(
    r"(safety|behaviou?ral)(?:[ \t]+(?:rules|specs|specifications))?:?", re.IGNORECASE
)
_BULLET = re.compile(r"(?:[-*+]|\d{1,3}[.)])(?:[ \t]+(.*))?")
_KEY = re.compile(r"[ \t]+([A-Za-z_]+):(?!//)(.*)")
_WITH_ID = re.compile(r"\[([^\]]*)\](?:[ \t]+(.*))?")
_ESCAPED = re.compile(r"\\+\[")
_UNDERLINE = re.compile(r"(?:=+|-{2,})[ \t]*")

_SECTIONS = '"## Safety" or "## Behavioral"'


def read_markdown(text: str, file: str) -> Specification:
    """Read the Markdown form. `file` is its name for error messages. Raises BadInput."""
    reader = _Reader(text.split("\n"), file)
    reader.read()
    return build(file, PurePath(file).stem, reader.front, reader.entries)


def write_markdown(spec: Specification) -> str:
    """The specification as Markdown; reading it back gives an equal one. Raises BadInput."""
    spec = normalized(spec)
    front = front_fields(spec)
    if spec.version == "1":
        del front["version"]
    head: list[str] = []
    # Name and description stand in the document where that can hold them, else in front of it.
    if _heading(f"# {spec.name}") == (1, spec.name):
        head.append(f"# {front.pop('name')}")
    if spec.description and all(map(_is_prose, spec.description.split("\n"))):
        head.append(front.pop("description"))
    out = [f"---\n{dump_yaml(front)}---\n"] if front else []
    if head:
        out.append("\n".join(head) + "\n")
    for title, rules in (("Safety", spec.safety), ("Behavioral", spec.behavioral)):
        if not rules:
            continue
        lines = [f"## {title}"]
        for rule in rules:
            given = "" if rule.id == derive_id(rule.text) else f"[{rule.id}] "
            escape = "\\" if not given and re.match(r"\\*\[", rule.text) else ""
            lines.append(f"- {given}{escape}{rule.text}")
            lines += [
                f"  {key}: {value}"
                for key in RULE_KEYS
                if (value := getattr(rule, key)) is not None
            ]
        out.append("\n".join(lines) + "\n")
    return "\n".join(out)


def _heading(line: str) -> tuple[int, str] | None:
    """A heading's level and text; `#` at its end, after a space, are no part of it."""
    match = _HEADING.fullmatch(line)
    if not match:
        return None
    title = (match[2] or "").strip()
    bare = title.rstrip("#")
    return len(match[1]), bare.rstrip() if bare[-1:] in ("", " ", "\t") else title


def _is_prose(line: str) -> bool:
    """Whether a line of a description can stand in the document as it is."""
    return not (
        _heading(line.strip())
        or _BULLET.fullmatch(line)
        or _UNDERLINE.fullmatch(line)
        or line.lstrip().startswith("<!--")
    )


class _Reader:
    """Reads the lines of one file in order; `front` and `entries` are what it found."""

    def __init__(self, lines: list[str], file: str) -> None:
        self.lines = lines
        self.file = file
        self.front: dict[str, Found] = {}
        self.entries: list[Entry] = []
        self.section: Kind | None = None
        self.rule: Entry | None = None  # the rule that indented lines belong to
        self.wrapped: list[str] = []  # those of its lines that are text
        self.prose: list[str] = []
        self.titled = False

    def read(self) -> None:
        """Read the whole file."""
        number = self.front_matter()
        while number < len(self.lines):
            number += 1
            line = self.lines[number - 1]
            if line.lstrip().startswith("<!--"):
                number = self.comment(number)
            elif self.section is None:
                self.before_sections(line, number)
            else:
                self.in_section(line, number)
        self.close()
        description = block("\n".join(self.prose))
        if description:
            if "description" in self.front:
                self.refuse(
                    self.front["description"].line,
                    "a description in the front matter and another under the title",
                    "one of the two",
                )
            self.front["description"] = Found(description)

    def refuse(self, line: int | None, found: str, expected: str, hint: str = "") -> NoReturn:
        """Raise the error at a line."""
        raise BadInput.at(self.file, line, found, expected, hint=hint)

    def front_matter(self) -> int:
        """Read the YAML between two lines of dashes, if the file begins so; lines it took."""
        start = next((i for i, line in enumerate(self.lines) if line.strip()), 0)
        if self.lines[start].rstrip() != "---":
            return 0
        for end in range(start + 1, len(self.lines)):
            if self.lines[end].rstrip() in ("---", "..."):
                break
        else:
            self.refuse(start + 1, "front matter without an end", "a second line of ---")
        node = parse_yaml("\n".join(self.lines[start + 1 : end]), self.file, start + 2)
        if node is None:
            return end + 1
        if not isinstance(node, Fields):
            self.refuse(start + 2, "front matter that is no mapping", "lines of key: value")
        for key, value in node.values.items():
            found = text_value(
                self.file, key, value, node.lines[key], FRONT_KEYS, "key in the front matter"
            )
            if found is not None:
                self.front[key] = found
        return end + 1

    def comment(self, number: int) -> int:
        """Step over a comment; the number of its last line."""
        end = number
        while "-->" not in self.lines[end - 1]:
            end += 1
            if end > len(self.lines):
                self.refuse(number, "a comment without an end", "-->")
        if self.lines[end - 1].partition("-->")[2].strip():
            self.refuse(end, "text after a comment", "the comment on lines of its own")
        return end

    def before_sections(self, line: str, number: int) -> None:
        """A line of the title or the description."""
        if self.heading(line, number):
            return
        if _BULLET.fullmatch(line):
            self.refuse(number, "a bullet above the first section", f"rules under {_SECTIONS}")
        self.prose.append(line)

    def in_section(self, line: str, number: int) -> None:
        """A line of a rule, or a heading."""
        if not line.strip() or self.heading(line, number):
            return
        bullet = _BULLET.fullmatch(line)
        if bullet and self.section:
            self.close()
            self.rule = self.begin(self.section, bullet[1] or "", number)
            self.entries.append(self.rule)
        elif line[0] not in " \t":
            self.refuse(
                number,
                f"{quoted(line)}, which belongs to no rule",
                'a rule that begins with "- "',
                "Indent it by two spaces to make it part of the rule above, or put it in a "
                "comment <!-- ... -->.",
            )
        elif self.rule is None:
            self.refuse(
                number,
                f"the indented line {quoted(line.strip())} without a rule above it",
                'a rule that begins with "- " at the margin',
            )
        else:
            self.below(self.rule, line, number)

    def heading(self, line: str, number: int) -> bool:
        """Take a heading; False if the line is none."""
        if _UNDERLINE.fullmatch(line):
            self.refuse(
                number,
                "an underline or a ruler",
                'headings written with "#"',
                "Write # Title, ## Safety and ## Behavioral, and leave rulers out.",
            )
        heading = _heading(line.strip())
        if not heading:
            return False
        level, title = heading
        if line[0] in " \t":
            # It would be part of a rule's text otherwise, and the rules below it of that section.
            self.refuse(number, f"the indented heading {quoted(line.strip())}", "it at the margin")
        section = _SECTION.fullmatch(title)
        if level == 2 and section:
            self.close()
            self.section = "safety" if section[1].lower() == "safety" else "behavioral"
        elif level == 2:
            hint = near(title, ("safety", "behavioral"))
            self.refuse(number, f"the section {quoted(line)}", _SECTIONS, hint)
        elif level > 2:
            self.refuse(
                number,
                f"the heading {quoted(line)}",
                f"the title and {_SECTIONS} as the only headings",
                "To group rules, give them a category: under each.",
            )
        else:
            self.title(title, number)
        return True

    def title(self, title: str, number: int) -> None:
        """Take the title, which comes first and once."""
        if self.titled or "name" in self.front:
            self.refuse(number, f"a second name, {quoted(title)}", "one name")
        if self.section is not None or any(map(str.strip, self.prose)):
            self.refuse(number, f"the title {quoted(title)} down here", "the title first")
        if not title:
            self.refuse(number, "a title without a text", '"# " and a name')
        self.titled = True
        self.front["name"] = Found(title, number)

    def begin(self, kind: Kind, text: str, number: int) -> Entry:
        """A rule from the line it begins with."""
        match = _WITH_ID.fullmatch(text)
        if match:
            return Entry(kind, Found(match[2] or "", number), Found(match[1], number))
        if re.match(r"\[[^\]]*\](?!\()", text):
            self.refuse(
                number,
                quoted(text),
                "a space after the id",
                r"Where the rule's text itself begins with a bracket, write \[ for [.",
            )
        return Entry(kind, Found(text[1:] if _ESCAPED.match(text) else text, number))

    def below(self, rule: Entry, line: str, number: int) -> None:
        """An indented line below a rule: a key, or more of its text."""
        match = _KEY.fullmatch(line)
        key = match[1] if match else ""
        if match and key in RULE_KEYS:
            if key in rule.keys:
                self.refuse(number, f"{key} again", "each key once under a rule")
            rule.keys[key] = Found(match[2], number)
        elif match and key == key.lower():
            self.refuse(
                number,
                f"the unknown key {quoted(key)}",
                f"one of {', '.join(RULE_KEYS)}",
                near(key, RULE_KEYS)
                or "Where it is part of the rule's text, join it to the line above.",
            )
        elif match and key.lower() in RULE_KEYS:
            self.refuse(number, f'"{key}:"', f"{key.lower()}: in small letters")
        elif rule.keys:
            self.refuse(
                number,
                f"{quoted(line.strip())} after the keys of a rule",
                "the rule's text before its keys",
                "A value stands on one line.",
            )
        else:
            self.wrapped.append(line)

    def close(self) -> None:
        """End the rule that is open, if one is."""
        if self.rule and self.wrapped:
            begun = self.rule.text
            self.rule.text = Found(" ".join([begun.text, *self.wrapped]), begun.line)
        self.rule, self.wrapped = None, []
