"""Prompts as sandboxed Jinja files, and how text from outside goes into them.

A prompt lives in `prompts/<method>/<step>.jinja` beside the code that uses it: the methods' own,
and the judges' under `prompts/judge/`. A user's folder of the same shape overrides
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
import regex
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adhere.chat import digest
from adhere.errors import BadInput
from adhere.spec import Rule, Specification

_PACKAGE = Path(__file__).parent
BUILT_IN = tuple(_PACKAGE / layer / "prompts" for layer in ("methods", "judging"))
JUDGE = "judge/"  # where the judges' prompts stand
# Those of graders and recipes, which decide no method's answer.
OTHERS = ("grading/", "clair/", "deliberative/", "iteralign/", "pair/", "rubric/")


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


# Anything a reader could take for a verdict, in whatever spelling: brackets around yes, no or n/a.
# In all patterns here only one repetition at a time may take blanks: two that stand side by side
# (`\s*/?\s*`) take a time that grows with the square of a long blank text.
VERDICT_LIKE = re.compile(
    r"[<\[\uff1c\uff3b\u2039\u00ab\u3008]\s*(?:/\s*)?(?:yes|no|n\s*(?:/\s*)?a)\s*(?:/\s*)?"
    r"[>\]\uff1e\uff3d\u203a\u00bb\u3009]",
    re.IGNORECASE,
)
BLOCK_LIKE = re.compile(
    r"[<\uff1c]\s*(?:/\s*)?(?:safety|behaviou?r(?:al)?)[\s_-]*spec\w*\s*(?:/\s*)?[>\uff1e]",
    re.IGNORECASE,
)
_OTHER_TAGS = re.compile(
    r"<\s*(?:/\s*)?(?:REFUSES|PARTLY|ANSWERS|VERDICT|think|(?:answer|question|message)(?:-\w+)?"
    r"|(?:BEGIN|END)\s[A-Z ]{3,60}+)\s*(?:/\s*)?>"
    r"|<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>",
    re.IGNORECASE,
)
_BRACKET = re.compile(r"[<\[\uff1c\uff3b\u2039\u00ab\u3008]")  # with which all of them begin
_HARMLESS = str.maketrans(
    {
        "<": "&lt;", ">": "&gt;", "[": "&#91;", "]": "&#93;",
        "\uff1c": "&lt;", "\uff1e": "&gt;", "\uff3b": "&#91;", "\uff3d": "&#93;",
        "\u2039": "&lt;", "\u203a": "&gt;", "\u00ab": "&lt;", "\u00bb": "&gt;",
        "\u3008": "&lt;", "\u3009": "&gt;",
    }
)  # fmt: skip


def without_hidden(text: str) -> str:
    """The text without format, private-use and surrogate characters, which show nothing."""
    if text.isascii():
        return text
    return regex.sub(r"[\p{Cf}\p{Co}\p{Cs}]", "", text)


def defanged(text: str) -> str:
    """The text with every tag that could pass for a verdict or for a prompt's own mark spelled out.

    `<YES>` becomes `&lt;YES&gt;`: still readable, no longer a tag. Invisible characters, which can
    hide a tag from this and show it to a model, are dropped. All other markup stays as it is.
    """
    text = without_hidden(text)
    if not _BRACKET.search(text):
        return text
    for pattern in (VERDICT_LIKE, BLOCK_LIKE, _OTHER_TAGS):
        text = pattern.sub(lambda match: match.group(0).translate(_HARMLESS), text)
    return text


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
        places = ([folder] if folder else []) + list(BUILT_IN)
        self._env = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader([str(p) for p in places]),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=False,
            autoescape=False,
            auto_reload=False,  # a run reads each template once, and records what it read
        )
        self._env.filters["enclosed"] = enclosed
        self._env.filters["defanged"] = defanged
        self._env.filters["bullets"] = bullets
        self._env.filters["one_line"] = one_line
        self._env.filters["quoted"] = quoted

    @staticmethod
    def _check(folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(f"--prompts-dir: {folder} is no folder")
        known = {name for built_in in BUILT_IN for name in _texts(built_in)}
        for path in sorted(folder.rglob("*.jinja")):
            if (name := path.relative_to(folder).as_posix()) not in known:
                raise BadInput(
                    f"{path}: no method and no judge has a prompt {name!r}",
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
        """SHA-256 over all templates of the methods as they are used."""
        others = (JUDGE, *OTHERS)
        return digest({k: v for k, v in self._used().items() if not k.startswith(others)})

    def digest_of(self, folder: str) -> str:
        """SHA-256 over the templates of one folder (`clair/`) as they are used."""
        return digest({k: v for k, v in self._used().items() if k.startswith(folder)})

    @cached_property
    def judge_digest(self) -> str:
        """SHA-256 over all templates of the judges as they are used."""
        return digest({k: v for k, v in self._used().items() if k.startswith(JUDGE)})

    def _used(self) -> dict[str, str]:
        trees = [*BUILT_IN, *([self.folder] if self.folder else [])]
        return {name: text for tree in trees for name, text in _texts(tree).items()}


def _texts(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in _templates(folder)
    }


def _templates(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jinja"))
