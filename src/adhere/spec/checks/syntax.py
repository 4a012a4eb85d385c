r"""The grammar of the check language, and its parser.

A check is one call of a named check, such as `words(max=150)`. Calls nest; nothing else does.
The text is parsed by hand, one function for each production below. It is never evaluated as
code, and no name in it means anything beyond the vocabulary (`vocabulary.py`).

    check     = name, "(", [ arguments ], ")" ;
    arguments = argument, { ",", argument } ;          (* values first, keywords after *)
    argument  = value | keyword, "=", value ;
    value     = string | regex | number | boolean | check ;
    string    = '"', { character | "\", ( '"' | "\" | "n" ) }, '"' ;
    regex     = "/", { character | "\", character }, "/", { "i" | "m" | "s" } ;
    number    = digit, { digit }, [ ".", digit, { digit } ] ;
    boolean   = "true" | "false" ;
    name      = letter, { letter | digit | "_" } ;
    keyword   = name ;

White space may stand between any two symbols. `character` is anything but a line break, the
closing quote or slash, or a backslash; a slash inside a regex is written `\/`. A check is at
most 10,000 characters long and nests at most 20 deep; a number has at most 12 characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from adhere.spec.checks.tree import Call, Check, CheckSyntaxError, Regex, Value, quoted

MAX_SOURCE = 10_000
MAX_DEPTH = 20
MAX_NUMBER = 12

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_ESCAPES = {'"': '"', "\\": "\\", "n": "\n"}
_REGEX_FLAGS = "ims"
_SPACE = " \t"


def parse(source: str, verify: Callable[[Call], None]) -> Check:
    """Read one check. `verify` is called for every call in it, inner ones first.

    Raises CheckSyntaxError, and nothing else, for any text that is no check.
    """
    if len(source) > MAX_SOURCE:
        raise CheckSyntaxError(
            source,
            MAX_SOURCE,
            f"a check of {len(source):,} characters",
            f"at most {MAX_SOURCE:,}",
            "Split it into several rules.",
        )
    reader = _Parser(source, verify)
    check = reader.check(depth=1)
    reader.space()
    if reader.at < len(source):
        reader.refuse(
            "nothing after the check", "To join two checks, write all(first, second) or any(...)."
        )
    return check


class _Parser:
    """The reading position in one source text. Methods read the production of their name."""

    def __init__(self, source: str, verify: Callable[[Call], None]) -> None:
        self.source = source
        self.verify = verify
        self.at = 0

    def refuse(
        self, expected: str, hint: str = "", *, at: int | None = None, found: str = ""
    ) -> NoReturn:
        """Raise the error for the symbol at `at` (default: the reading position)."""
        position = self.at if at is None else at
        raise CheckSyntaxError(
            self.source, position, found or self.symbol(position), expected, hint
        )

    def symbol(self, position: int) -> str:
        """What stands at a position, for a message."""
        if position >= len(self.source):
            return "the end of the check"
        match = _NAME.match(self.source, position)
        return f'"{(match[0] if match else self.source[position])[:40]}"'

    def space(self) -> None:
        """Skip white space."""
        while self.at < len(self.source) and self.source[self.at] in _SPACE:
            self.at += 1

    def peek(self) -> str:
        """The next character that is no white space, or an empty text at the end."""
        self.space()
        return self.source[self.at] if self.at < len(self.source) else ""

    def take(self, symbol: str) -> bool:
        """Step over a symbol if it is next."""
        if self.peek() != symbol:
            return False
        self.at += 1
        return True

    def check(self, depth: int) -> Check:
        """Read `name(...)`."""
        self.peek()
        start = self.at
        match = _NAME.match(self.source, self.at)
        if not match:
            self.refuse("the name of a check", "A check is written like words(max=150).")
        self.at = match.end()
        return self.call(match[0], start, depth)

    def call(self, name: str, start: int, depth: int) -> Check:
        """Read the brackets of a call whose name was read, and have the whole verified."""
        if depth > MAX_DEPTH:
            self.refuse(f"checks nested at most {MAX_DEPTH} deep", at=start)
        if not self.take("("):
            self.refuse(f'"(" after {quoted(name)}', f"A check is written like {name[:40]}(...).")
        args: list[Value] = []
        args_at: list[int] = []
        keywords: dict[str, Value] = {}
        keywords_at: dict[str, int] = {}
        if not self.take(")"):
            while True:
                self.peek()
                at = self.at
                keyword, value = self.argument(depth)
                if keyword is None and keywords:
                    self.refuse("values before keywords", at=at, found="a value after a keyword")
                if keyword is None:
                    args.append(value)
                    args_at.append(at)
                elif keyword in keywords:
                    self.refuse("each keyword once", at=at, found=f"{quoted(keyword)} again")
                else:
                    keywords[keyword], keywords_at[keyword] = value, at
                if self.take(")"):
                    break
                if not self.take(","):
                    self.refuse('"," or ")"')
        check = Check(name, tuple(args), tuple(sorted(keywords.items())))
        self.verify(Call(self.source, check, start, tuple(args_at), keywords_at))
        return check

    def argument(self, depth: int) -> tuple[str | None, Value]:
        """Read a value, or `keyword=value`."""
        start = self.at
        match = _NAME.match(self.source, self.at)
        if not match:
            return None, self.literal()
        name, self.at = match[0], match.end()
        following = self.peek()
        if following == "=":
            self.at += 1
            self.peek()
            inner = _NAME.match(self.source, self.at)
            if not inner:
                return name, self.literal()
            at, self.at = self.at, inner.end()
            return name, self.word(inner[0], at, depth)
        return None, self.word(name, start, depth)

    def word(self, name: str, start: int, depth: int) -> Value:
        """A value that begins with a name: true, false or a nested check."""
        if self.peek() == "(":
            return self.call(name, start, depth + 1)
        if name not in ("true", "false"):
            self.refuse(
                'a "string", /regex/, number, true, false or check(...)',
                "Text is written in double quotes.",
                at=start,
            )
        return name == "true"

    def literal(self) -> Value:
        """Read a string, a regex or a number."""
        char = self.peek()
        if char == '"':
            return self.string()
        if char == "/":
            return self.regex()
        match = _NUMBER.match(self.source, self.at)
        if not match:
            hint = {
                "'": 'Write text in straight double quotes: "like this".',
                "“": 'Write text in straight double quotes: "like this".',
                "”": 'Write text in straight double quotes: "like this".',
                "-": "Numbers are never negative here.",
            }.get(char, "")
            self.refuse('a value: "string", /regex/, number, true, false or check(...)', hint)
        if len(match[0]) > MAX_NUMBER:
            self.refuse(
                f"at most {MAX_NUMBER} characters", found=f"a number of {len(match[0])} characters"
            )
        self.at = match.end()
        return float(match[0]) if "." in match[0] else int(match[0])

    def string(self) -> str:
        """Read a string in double quotes."""
        start = self.at
        self.at += 1
        out: list[str] = []
        while (char := self.inside("string", start)) != '"':
            if char != "\\":
                out.append(char)
                continue
            escape = self.inside("string", start)
            if escape not in _ESCAPES:
                self.refuse(
                    r"one of the escapes \" \\ \n",
                    "For a pattern, write a /regex/ instead of a string.",
                    at=self.at - 2,
                    found=f'"\\{escape}"',
                )
            out.append(_ESCAPES[escape])
        return "".join(out)

    def regex(self) -> Regex:
        """Read a regex between slashes, and its flags."""
        start = self.at
        self.at += 1
        out: list[str] = []
        while (char := self.inside("regex", start)) != "/":
            if char == "\\":
                escaped = self.inside("regex", start)
                char = "/" if escaped == "/" else char + escaped
            out.append(char)
        if not out:
            self.refuse("a pattern between the slashes", at=start, found="an empty regex")
        flags = _NAME.match(self.source, self.at)
        if not flags:
            return Regex("".join(out))
        unknown = [flag for flag in flags[0] if flag not in _REGEX_FLAGS]
        if unknown or len(set(flags[0])) < len(flags[0]):
            self.refuse(
                "the flags i (ignore case), m (^ and $ at every line), s (. matches line breaks), "
                "each once",
                at=self.at,
                found=f"the flags {quoted(flags[0])}",
            )
        self.at = flags.end()
        return Regex("".join(out), "".join(sorted(flags[0])))

    def inside(self, what: str, start: int) -> str:
        """The next character inside a string or regex that began at `start`."""
        if self.at >= len(self.source) or self.source[self.at] in "\n\r":
            closing = '"' if what == "string" else "/"
            self.refuse(
                f"a closing {closing}",
                f"The {what} that begins at column {start + 1} has no end."
                + (r" A slash inside a regex is written \/." if what == "regex" else ""),
                found="the end of the line",
            )
        self.at += 1
        return self.source[self.at - 1]
