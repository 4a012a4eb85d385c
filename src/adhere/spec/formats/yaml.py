r"""The YAML form of a spec, and the reader that the front matter of the Markdown form shares.

    name: Health education assistant
    version: 3
    fallback: I can't help with that here.
    safety:
      - Never issue a diagnosis or a prescription.
      - id: no-dose
        text: Never state a dose.
        check: absent(/\b\d+ ?mg/i)
    behavioral:
      - At most 150 words.

A spec holds nothing but texts, lists and mappings, so the reader takes from PyYAML's safe
parser only these, with their lines. Every scalar is a text as written: `version: 1.10` stays
1.10 and `yes` stays yes. Tags, anchors and aliases are refused, and with them everything that
could construct objects or grow beyond the file's size; nesting ends at 6 levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NoReturn, TypeAlias

from adhere.errors import BadInput
from adhere.spec.checks.tree import near, quoted
from adhere.spec.formats.building import (
    FRONT_KEYS,
    RULE_KEYS,
    Entry,
    Found,
    build,
    normalized,
)
from adhere.spec.model import Kind, Rule, Specification, derive_id

MAX_DEPTH = 6
_KINDS: dict[str, Kind] = {
    "safety": "safety",
    "behavioral": "behavioral",
    "behavioural": "behavioral",
}
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Items:
    """A YAML list with its line."""

    values: list[Node]
    line: int


@dataclass(frozen=True)
class Fields:
    """A YAML mapping: its values by key, the line of every key, and its own line."""

    values: dict[str, Node]
    lines: dict[str, int]
    line: int


Node: TypeAlias = Found | Items | Fields | None


def read_yaml(text: str, file: str) -> Specification:
    """Read the YAML form. `file` is its name for error messages. Raises BadInput."""
    root = parse_yaml(text, file)
    if not isinstance(root, Fields):
        raise BadInput.at(
            file,
            None if root is None else root.line,
            _sort(root),
            "a mapping with the keys safety and behavioral",
        )
    allowed = (*FRONT_KEYS, "safety", "behavioral")
    front: dict[str, Found] = {}
    entries: list[Entry] = []
    kinds: set[Kind] = set()
    for key, node in root.values.items():
        line = root.lines[key]
        if key in _KINDS:
            if _KINDS[key] in kinds:
                raise BadInput.at(file, line, f'"{key}" again', "each list once")
            kinds.add(_KINDS[key])
            entries += _rules(file, key, line, node)
        else:
            value = text_value(file, key, node, line, allowed, "key")
            if value is not None:
                front[key] = value
    return build(file, PurePath(file).stem, front, entries)


def text_value(
    file: str, key: str, node: Node, line: int, allowed: tuple[str, ...], what: str
) -> Found | None:
    """The text under a key that must be one of `allowed`; None where the value is null."""
    if key not in allowed:
        raise BadInput.at(
            file,
            line,
            f"the unknown {what} {quoted(key)}",
            f"one of {', '.join(allowed)}",
            hint=near(key, allowed),
        )
    if node is not None and not isinstance(node, Found):
        raise BadInput.at(file, line, f"{_sort(node)} under {key}", "a text")
    return node


def write_yaml(spec: Specification) -> str:
    """The specification as YAML; reading it back gives an equal one. Raises BadInput."""
    spec = normalized(spec)
    data: dict[str, Any] = front_fields(spec)
    for key, rules in (("safety", spec.safety), ("behavioral", spec.behavioral)):
        if rules:
            data[key] = [_written(rule) for rule in rules]
    return dump_yaml(data)


def front_fields(spec: Specification) -> dict[str, Any]:
    """What stands before the rules, as a mapping to be dumped; unset fields are left out."""
    out: dict[str, Any] = {"name": spec.name, "version": spec.version}
    if spec.description:
        out["description"] = spec.description
    if spec.fallback is not None:
        out["fallback"] = spec.fallback
    if "language" in spec.meta:
        out["language"] = spec.meta["language"]
    return out


def dump_yaml(data: dict[str, Any]) -> str:
    """YAML text with a line for every value; texts of several lines as blocks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # lists indented under their key

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        # The reader takes scalars as they are written, so a whole number needs no quotes.
        number = value.isascii() and value.isdigit() and str(int(value[:30])) == value
        return dumper.represent_scalar(
            "tag:yaml.org,2002:int" if number else "tag:yaml.org,2002:str",
            value,
            style="|" if "\n" in value else None,
        )

    Dumper.add_representer(str, text)
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)


def parse_yaml(text: str, file: str, first_line: int = 1) -> Node:
    """One YAML document as texts, lists and mappings. Raises BadInput with the line.

    `first_line` is the line of the file that `text` begins at.
    """
    import yaml

    try:
        return _Reader(yaml.parse(text, Loader=yaml.SafeLoader), file, first_line).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What has no end is noticed at the end of the file; where it begins says more.
        if mark and error.context_mark and mark.index >= len(text.rstrip()):
            mark = error.context_mark
        line = mark.line + first_line if mark else None
        problem = " ".join(part for part in (error.context, error.problem) if part)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + first_line
        problem = f"the character U+{error.character:04X} is not allowed"
    raise BadInput.at(
        file,
        line,
        f"broken YAML ({problem})",
        "valid YAML",
        hint='Put a text with a colon, a "#" or quotes at its beginning in quotes.',
    )


class _Reader:
    """Builds nodes from the parser's events as they come; refuses before anything can grow."""

    def __init__(self, events: Any, file: str, first_line: int) -> None:
        self.events = events
        self.file = file
        self.first_line = first_line

    def document(self) -> Node:
        """The first document; a second one is refused."""
        import yaml

        root: Node = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.refuse(event, "a second document", "one document; remove the ---")
                root = self.node(next(self.events), 1)
        return root

    def node(self, event: Any, depth: int) -> Node:
        """The node that begins with an event."""
        import yaml

        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self.refuse(event, "an alias or anchor (* or &)", "the text itself, in quotes")
        if event.tag is not None:
            self.refuse(event, f"the tag {quoted(event.tag)}", "plain texts; quote a leading !")
        if depth > MAX_DEPTH:
            self.refuse(event, "deep nesting", "lists of texts or mappings")
        line = event.start_mark.line + self.first_line
        if isinstance(event, yaml.ScalarEvent):
            null = event.style is None and event.value in _NULLS
            return None if null else Found(event.value, line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(event, depth + 1))
            return Items(items, line)
        fields = Fields({}, {}, line)
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            if not isinstance(key, Found):
                self.refuse(event, "a key that is no text", "a key such as text:")
            if key.text in fields.values:
                self.refuse(event, f"the key {quoted(key.text)} again", "each key once")
            fields.lines[key.text] = event.start_mark.line + self.first_line
            fields.values[key.text] = self.node(next(self.events), depth + 1)
        return fields

    def refuse(self, event: Any, found: str, expected: str) -> NoReturn:
        """Raise the error at an event's line."""
        raise BadInput.at(self.file, event.start_mark.line + self.first_line, found, expected)


def _rules(file: str, key: str, line: int, node: Node) -> list[Entry]:
    """The rules of one list."""
    if node is None:
        return []
    if not isinstance(node, Items):
        raise BadInput.at(
            file, line, f"{_sort(node)} under {key}", "a list of rules, each beginning with -"
        )
    return [_entry(file, _KINDS[key], item, line) for item in node.values]


def _entry(file: str, kind: Kind, node: Node, line: int) -> Entry:
    if isinstance(node, Found):
        return Entry(kind, node)
    if not isinstance(node, Fields):
        at = line if node is None else node.line
        raise BadInput.at(file, at, _sort(node), "a rule: a text, or a mapping with text:")
    allowed = ("id", "text", *RULE_KEYS)
    values: dict[str, Found] = {}
    for key, value in node.values.items():
        # `- Use these: a, b` is a mapping in YAML, though it was meant as a text.
        if key not in allowed and len(node.values) == 1 and not near(key, allowed):
            raise BadInput.at(
                file,
                node.line,
                f"a rule with a colon, which YAML reads as the key {quoted(key)}",
                "a text in quotes",
                hint='Put the whole rule in "double quotes".',
            )
        found = text_value(file, key, value, node.lines[key], allowed, "key of a rule")
        if found is not None:
            values[key] = found
    text = values.pop("text", Found("", node.line))
    return Entry(kind, text, values.pop("id", None), values)


def _written(rule: Rule) -> str | dict[str, str]:
    """A rule as it is dumped: its text alone where there is nothing else to say."""
    out = {} if rule.id == derive_id(rule.text) else {"id": rule.id}
    out["text"] = rule.text
    for key in RULE_KEYS:
        if getattr(rule, key) is not None:
            out[key] = getattr(rule, key)
    return rule.text if list(out) == ["text"] else out


def _sort(node: Node) -> str:
    """What a node is, for a message."""
    if node is None:
        return "nothing"
    if isinstance(node, Found):
        return f"the text {quoted(node.text)}"
    return "a list" if isinstance(node, Items) else "a mapping"
