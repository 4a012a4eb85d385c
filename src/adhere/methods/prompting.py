"""Prompts as sandboxed Jinja files, and how text from outside goes into them.

A prompt lives in `prompts/<method>/<step>.jinja`. A user's folder of the same shape overrides
single files; what is used enters the run's identity by its hash. Templates are data, never
code: they render in Jinja's sandbox with undefined names as errors.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adhere.chat import Message, digest, system, user
from adhere.errors import BadInput
from adhere.spec import Rule, Specification

BUILT_IN = Path(__file__).parent / "prompts"


def enclosed(text: str, tag: str) -> str:
    """The text between tags that it cannot close itself.

    A text that holds the closing tag gets a tag with a suffix taken from the text's own hash:
    whoever wrote the text would have had to know the hash of a text that contains it.
    """
    name = tag
    salt = 0
    while re.search(rf"<\s*/\s*{re.escape(name)}\b", text, re.IGNORECASE):
        mark = hashlib.sha256(f"{salt}{text}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{tag}-{mark}"
        salt += 1
    return f"<{name}>\n{text}\n</{name}>"


def one_line(text: str) -> str:
    """A text without line breaks, so that no rule can look like two."""
    return " ".join(text.split())


def quoted(text: str) -> str:
    """The text as one JSON string: a short text from outside that cannot end its own quotes."""
    return json.dumps(text, ensure_ascii=False)


def bullets(rules: Sequence[Rule]) -> str:
    """One dash bullet and line break a rule; line breaks inside a rule become spaces."""
    return "".join(f"- {one_line(rule.text)}\n" for rule in rules)


def spec_text(spec: Specification) -> str:
    """The rules as the published prompts list them: a bold header and bullets for each kind."""
    parts = []
    if spec.safety:
        parts.append("**Safety rules**\n" + bullets(spec.safety))
    if spec.behavioral:
        parts.append("**Behavioral rules**\n" + bullets(spec.behavioral))
    return "\n".join(parts)


class Prompts:
    """All prompt templates, with a user's folder looked at first."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises BadInput for a folder that is not there or holds names no method knows."""
        self.folder = folder
        if folder is not None:
            self._check(folder)
        places = ([folder] if folder else []) + [BUILT_IN]
        self._env = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader([str(p) for p in places]),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=False,
            autoescape=False,
        )
        self._env.filters["enclosed"] = enclosed
        self._env.filters["bullets"] = bullets
        self._env.filters["one_line"] = one_line
        self._env.filters["quoted"] = quoted

    @staticmethod
    def _check(folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(f"--prompts-dir: {folder} is no folder")
        known = {p.relative_to(BUILT_IN).as_posix() for p in BUILT_IN.rglob("*.jinja")}
        for path in sorted(folder.rglob("*.jinja")):
            if (name := path.relative_to(folder).as_posix()) not in known:
                raise BadInput(
                    f"{path}: no method has a prompt {name!r}",
                    hint="Known prompts: " + ", ".join(sorted(known)),
                )

    def render(self, name: str, /, **values: Any) -> str:
        """Render `<method>/<step>`. Raises BadInput for a broken template of the user's."""
        try:
            return self._env.get_template(f"{name}.jinja").render(**values)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            raise BadInput(
                f"prompt {name}.jinja{f', line {line}' if line else ''}: {error}",
                hint="Compare it with the built-in prompt of the same name.",
            ) from None

    def check_all(self) -> None:
        """Read and parse every template. Raises BadInput for the first that cannot be."""
        for path in _templates(self.folder) if self.folder else []:
            try:
                self._env.parse(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise BadInput(f"{path}: cannot be read ({error})") from None
            except jinja2.TemplateSyntaxError as error:
                raise BadInput.at(path, error.lineno, str(error), "a Jinja template") from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all templates as they are used."""
        texts = {p.relative_to(BUILT_IN).as_posix(): p.read_text() for p in _templates(BUILT_IN)}
        if self.folder is not None:
            texts.update(
                {
                    p.relative_to(self.folder).as_posix(): p.read_text(encoding="utf-8")
                    for p in _templates(self.folder)
                }
            )
        return digest(texts)


def _templates(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jinja"))


def compose(
    messages: Sequence[Message], spec: Specification, prompts: Prompts, order: str
) -> list[Message]:
    """The conversation with the spec in it.

    `spec_first`: the spec stands in the system message, so every prompt of a run shares it as a
    prefix that a server reads once. `question_first` is the published order: a fixed system line,
    and the question, the rules and the instruction in the last user message.
    """
    if order == "spec_first":
        own = "\n\n".join(m.text for m in messages if m.role in ("system", "developer"))
        head = prompts.render(
            "shared/spec_first",
            name=spec.name,
            description=spec.description,
            rules=spec.rules,
            own=own,
        )
        return [system(head), *(m for m in messages if m.role not in ("system", "developer"))]
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    if last is None:
        raise BadInput("a conversation needs a user message")
    asked = user(
        prompts.render("shared/question_first", question=messages[last].text, rules=spec_text(spec))
    )
    out = [*messages[:last], asked, *messages[last + 1 :]]
    if not any(m.role in ("system", "developer") for m in out):
        out.insert(0, system(prompts.render("shared/system")))
    return out
