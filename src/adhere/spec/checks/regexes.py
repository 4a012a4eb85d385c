r"""Regular expressions that cannot hang or flood the program.

Patterns come from spec files, texts from models: neither is trusted. Three guards:

* **Compiling.** `regex` expands counted repeats, so a pattern of 30 characters can take minutes
  and gigabytes. `compile_regex` allows at most 1,000 characters, repeat counts up to 1,000,
  a total of 10,000 symbols once repeats are written out, and groups nested 30 deep.
* **Constructs.** Recursion, conditionals, fuzzy matching, inline comments and switches other
  than `(?i)`, `(?m)`, `(?s)` are refused: none is needed for a rule a person can read, and the
  limits above could not be checked with them.
* **Matching.** Every search runs under a time limit; `OutOfTime` tells the caller.

A literal text matches as a person would look for it: see `literal_pattern`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from adhere.spec.checks.tree import Regex

MAX_PATTERN = 1_000
MAX_REPEAT = 1_000
MAX_WEIGHT = 10_000
MAX_GROUPS_DEEP = 30

_COUNTS = re.compile(r"\{(\d*)(,?)(\d*)\}")
# What may follow "(?": plain, lookaround and atomic groups, a name, or the switches i, m, s.
_GROUP = re.compile(r"\?(?::|=|!|<=|<!|>|P?<[A-Za-z_]\w*>|P=[A-Za-z_]\w*|[ims]+\)|[ims]+:)")
_SINGLE_QUOTES = "'’‘"
_DOUBLE_QUOTES = '"“”'


class OutOfTime(Exception):
    """A search did not end within its time limit (or the memory there is)."""


class PatternError(ValueError):
    """A pattern that will not be compiled. `offset` is the place in the pattern, where known."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@lru_cache(maxsize=1024)
def compile_regex(value: Regex) -> Any:
    """Compile a pattern after the guards. Raises PatternError."""
    _guard(value.pattern)
    import regex

    flags = regex.V0
    for letter, flag in (("i", regex.I), ("m", regex.M), ("s", regex.S)):
        if letter in value.flags:
            flags |= flag
    try:
        # cache_pattern: this cache is the one that counts; the module's own would hold it twice.
        return regex.compile(value.pattern, flags, cache_pattern=False)
    except regex.error as error:
        offset = getattr(error, "pos", None) or 0
        raise PatternError(str(getattr(error, "msg", error)), offset) from None
    except (RecursionError, OverflowError, ValueError, KeyError) as error:
        raise PatternError(f"not a pattern ({error})") from None


def search(pattern: Any, text: str, limit: float) -> str | None:
    """The first match's text, or None. Raises OutOfTime after `limit` seconds."""
    try:
        match = pattern.search(text, timeout=limit)
    except (TimeoutError, MemoryError, RecursionError):
        raise OutOfTime from None
    return None if match is None else str(match[0])


@lru_cache(maxsize=1024)
def literal_pattern(text: str, *, case: bool, start: bool = False, end: bool = False) -> Any:
    """A pattern for a literal text: whole words, any white space for white space, any quotes.

    `case=False` ignores case. `start` and `end` tie it to the beginning or end of the text. An
    edge of the literal that is a letter or digit must be the edge of a word, so "AI" is not
    found in "said"; straight and typographic quotes count as the same.
    """
    import regex

    words = [
        "".join(
            f"[{quotes}]"
            if (quotes := next((q for q in (_SINGLE_QUOTES, _DOUBLE_QUOTES) if char in q), ""))
            else regex.escape(char)
            for char in word
        )
        for word in unicodedata.normalize("NFC", text).split()
    ]
    whole = r"\s+".join(words)
    if _is_word(text.strip()[0]):
        whole = r"(?<!\w)" + whole
    if _is_word(text.strip()[-1]):
        whole += r"(?!\w)"
    flags = regex.V0 | (0 if case else regex.I)
    return regex.compile((r"\A\s*" if start else "") + whole + (r"\Z" if end else ""), flags)


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _guard(pattern: str) -> None:
    """Refuse patterns that are too large once repeats are written out, or use other constructs."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"longer than {MAX_PATTERN:,} characters")
    # One entry a group that is open: the weight of what it holds, and of its last item.
    groups: list[list[int]] = [[0, 0]]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            at += _group(pattern, at)
            groups.append([0, 0])
            if len(groups) > MAX_GROUPS_DEEP + 1:
                raise PatternError(f"groups nested more than {MAX_GROUPS_DEEP} deep", at)
            continue
        if char == ")":
            if len(groups) == 1:
                raise PatternError('")" without "("', at)
            inner = sum(groups.pop())
            _add(groups[-1], inner + 1)
            at += 1
        elif char == "{":
            factor, length = _counts(pattern, at)
            groups[-1][1] *= factor
            at += length
        elif char in "*+?":
            at += 1
        else:
            at += _atom(pattern, at)
            _add(groups[-1], 1)
        if sum(sum(group) for group in groups) > MAX_WEIGHT:
            raise PatternError(
                f"more than {MAX_WEIGHT:,} symbols once its repeats are written out", at
            )


def _add(group: list[int], weight: int) -> None:
    """Make `weight` the group's last item, the one that a following count would repeat."""
    group[0] += group[1]
    group[1] = weight


def _group(pattern: str, at: int) -> int:
    """The length of a group's opening, which must be of an allowed sort."""
    if not pattern.startswith("(?", at):
        if pattern.startswith("(*", at):
            raise PatternError('"(*" is not supported', at)
        return 1
    match = _GROUP.match(pattern, at + 1)
    if not match:
        raise PatternError(f'"{pattern[at : at + 4]}" is not supported', at)
    # A bare switch "(?i)" and a back reference "(?P=name)" close themselves: leave the bracket
    # to the main loop, where it ends an empty group.
    length = 1 + len(match[0])
    return length - 1 if match[0].endswith(")") else length


def _counts(pattern: str, at: int) -> tuple[int, int]:
    """The factor of a counted repeat `{2,5}` and its length in characters."""
    match = _COUNTS.match(pattern, at)
    if not match or not (match[1] or match[3]):
        raise PatternError('"{" that is no count; write \\{ for the character', at)
    counts = [int(text[:9]) for text in (match[1], match[3]) if text]
    if max(counts) > MAX_REPEAT or max(len(match[1]), len(match[3])) > 9:
        raise PatternError(f"a repeat of more than {MAX_REPEAT:,}", at)
    return max(1, *counts), len(match[0])


def _atom(pattern: str, at: int) -> int:
    """The length of an escape, a class or a single character."""
    if pattern[at] == "\\":
        following = pattern[at + 1 : at + 2]
        if following == "L":
            raise PatternError('"\\L" is not supported', at)
        if following in ("p", "P", "N") and pattern[at + 2 : at + 3] == "{":
            end = pattern.find("}", at)
            return (end + 1 if end >= 0 else len(pattern)) - at
        return 2
    if pattern[at] != "[":
        return 1
    end = at + 1
    end += pattern[end : end + 1] == "^"
    end += pattern[end : end + 1] == "]"  # a "]" that comes first stands for itself
    while end < len(pattern) and pattern[end] != "]":
        named = pattern.find(":]", end) if pattern.startswith("[:", end) else -1
        end = named + 2 if named > 0 else end + (2 if pattern[end] == "\\" else 1)
    return min(end + 1, len(pattern)) - at
