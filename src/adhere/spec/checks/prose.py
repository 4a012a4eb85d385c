"""What a person would count in a text: words, sentences, headings, bullets, tables, LIX.

Answers are read as Markdown (CommonMark and tables, by markdown-it-py), because that is what
chat models write. The decisions, in one place:

* **Words** are counted in the whole text, code and tables included: pieces between white space
  (or em dashes) that hold a letter or digit. `it's` and `well-known` are one word each. List
  numbers, Markdown markers, the targets of links and the name of a code block's language are
  none. In Chinese and Japanese script every character is a word.
* **Sentences** are counted in paragraphs and list items; headings, tables and code have none.
  One ends at `.`, `!`, `?` or an ellipsis before white space, unless an abbreviation ends there
  or the next word begins in lower case. A paragraph or item without a full stop is one sentence.
* **Headings** are `# ATX` and underlined ones, and lines that are bold as a whole, which have no
  level. A `#` inside code is no heading. Names are compared without case, emphasis, a number in
  front ("1. Overview") and a colon at the end.
* **Bullets** are the items of bulleted lists at any depth, also those written with a typographic
  bullet; numbered items, empty items and lines inside code are none.
* **Tables** are Markdown tables with a header row.
* **LIX** is words per sentence plus the percentage of words of more than six letters, over
  paragraphs and list items.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# Chinese and Japanese characters. Patterns with them take milliseconds to compile, so they are
# compiled when first used (`re` caches them).
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECE = f"[{_CJK}]|[^\\s—{_CJK}]+"
_TERM = f"[{_CJK}]|[^\\W_{_CJK}]+"
_FENCE_LINE = re.compile(r"(?m)^[ \t>]*(?:```|~~~)[^\n]*$")
_LIST_NUMBER = re.compile(r"(?m)^[ \t>]*\d{1,9}[.)](?=\s)")
_LINK_TARGET = re.compile(r"\]\([^()\s]*\)")
_TYPOGRAPHIC_BULLET = re.compile(r"(?m)^([ \t]*)[•‣◦▪●][ \t]+")
_BOLD_LINE = re.compile(r"(\*\*|__)(?!\s)([^*_]+)(?<!\s)\1:?")
_NUMBER_IN_FRONT = re.compile(r"^\(?\d{1,3}[.):]\s+")

_CLOSERS = "\"'”’»)]*_"
_ENDERS = (".", "!", "?", "…", "。", "！", "？")
_FULL_WIDTH_END = re.compile("([。！？])")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "e.g. i.e. cf. vs. dr. mr. mrs. ms. prof. st. approx. ca. fig. sec. ch. vol. jr. sr. "
        "inc. ltd. dept. est.",
    )
)
_INITIALS = re.compile(r"(?:[A-Z]\.)+")

_LIX_LONG = 6

# Words that carry no topic: function words, and the words a request itself is made of.
_STOP_WORDS = frozenset(
    re.findall(
        r"\S+",
        """a about above after again against all also am an and any are aren as at be because been
        before being below between both but by can could couldn did didn do does doesn doing don
        done down during each either else ever every few for from further get give gives go got
        had hadn has hasn have haven having he her here hers herself him himself his how however
        i if in into is isn it its itself just kindly know less let like ll make many may me
        might mine more most much must my myself need no nor not now of off ok okay on once one
        only or other our ours ourselves out over own please re s same say shall she should
        shouldn show since so some someone something such t take tell than thank thanks that the
        their theirs them themselves then there these they thing things this those through to
        too under until up upon us use using ve very want was wasn way we well were weren what
        when where whether which while who whom whose why will with within without won would
        wouldn yes yet you your yours yourself yourselves""",
    )
)


@dataclass(frozen=True)
class Heading:
    """A heading's name without markup, and its level (None for a line in bold)."""

    name: str
    level: int | None


@dataclass(frozen=True)
class Outline:
    """The structure of a Markdown text. `prose` holds its paragraphs and list items."""

    headings: tuple[Heading, ...]
    bullets: int
    tables: tuple[tuple[str, ...], ...]
    prose: tuple[str, ...]


def words(text: str) -> int:
    """The number of words."""
    text = _LIST_NUMBER.sub("", _FENCE_LINE.sub("", _LINK_TARGET.sub("]", text)))
    return len(_pieces(text))


def sentences(text: str) -> int:
    """The number of sentences in paragraphs and list items."""
    return sum(_sentences(block) for block in outline(text).prose)


def lix(text: str) -> float | None:
    """Björnsson's readability index, or None where there are no words in sentences.

    Below 30 reads like a children's book, 40 like a newspaper, above 60 like a statute.
    """
    pieces = [piece for block in outline(text).prose for piece in _pieces(block)]
    if not pieces:
        return None
    long = sum(sum(map(str.isalpha, piece)) > _LIX_LONG for piece in pieces)
    return len(pieces) / max(1, sentences(text)) + 100 * long / len(pieces)


def characters(text: str) -> int:
    """The number of characters, without white space at the beginning and the end."""
    return len(text.strip())


def topics(text: str) -> frozenset[str]:
    """The content words: lower case, no function words, plural endings cut."""
    lowered = (word.lower() for word in re.findall(_TERM, text))
    return frozenset(_singular(word) for word in lowered if word not in _STOP_WORDS)


def plain(text: str) -> str:
    """A name without emphasis, extra white space, case and a colon at its end."""
    bare = " ".join(re.sub(r"[*_`~]", "", text).split())
    return bare.removesuffix(":").rstrip().replace("’", "'").casefold()


def same_name(wanted: str, found: str) -> bool:
    """Whether a heading or column is the wanted one; a number in front of it may be left out."""
    name = plain(found)
    return plain(wanted) in (name, _NUMBER_IN_FRONT.sub("", name))


@lru_cache(maxsize=64)
def outline(text: str) -> Outline:
    """Read the structure of a Markdown text. Cached: all checks of a spec share one reading."""
    tokens = _markdown().parse(_TYPOGRAPHIC_BULLET.sub(r"\1- ", text))
    headings: list[Heading] = []
    prose: list[str] = []
    tables: list[tuple[str, ...]] = []
    for index, token in enumerate(tokens):
        before = tokens[index - 1].type if index else ""
        if token.type == "table_open":
            tables.append(())
        elif token.type != "inline":
            continue
        elif before == "heading_open":
            level = int(tokens[index - 1].tag[1:])
            headings.append(Heading(" ".join(token.content.split()), level))
        elif before == "th_open":
            tables[-1] += (token.content,)
        elif before == "paragraph_open":
            lines = token.content.splitlines()
            bold = [
                _BOLD_LINE.fullmatch(line.strip()) if token.level == 1 else None for line in lines
            ]
            headings += [Heading(match[2], None) for match in bold if match]
            rest = "\n".join(line for line, match in zip(lines, bold, strict=True) if not match)
            if rest.strip():
                prose.append(_LINK_TARGET.sub("]", rest))
    return Outline(tuple(headings), _bullets(tokens), tuple(tables), tuple(prose))


def _bullets(tokens: list[Token]) -> int:
    """Items of bulleted lists that hold anything."""
    lists: list[bool] = []  # for every list that is open: is it a bulleted one
    items: list[bool] = []  # for every item that is open: does it hold anything
    count = 0
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            lists.append(token.type == "bullet_list_open")
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists.pop()
        elif token.type == "list_item_open":
            items.append(False)
        elif token.type == "list_item_close":
            count += items.pop() and lists[-1]
        elif items and token.content.strip():
            items[-1] = True
    return count


def _pieces(text: str) -> list[str]:
    return [piece for piece in re.findall(_PIECE, text) if any(map(str.isalnum, piece))]


def _sentences(block: str) -> int:
    """Sentences of one paragraph or list item."""
    tokens = _FULL_WIDTH_END.sub(r"\1 ", block).split()
    count, begun = 0, False
    for index, token in enumerate(tokens):
        begun = begun or any(map(str.isalnum, token))
        bare = token.rstrip(_CLOSERS)
        if not begun or not bare.endswith(_ENDERS):
            continue
        following = tokens[index + 1].lstrip("\"'“‘«([*_") if index + 1 < len(tokens) else ""
        if following and (following[0].islower() or _abbreviated(bare, following)):
            continue
        count, begun = count + 1, False
    return count + begun


def _abbreviated(token: str, following: str) -> bool:
    """Whether a full stop belongs to an abbreviation rather than to the end of a sentence."""
    bare = token.lstrip("\"'“‘«([*_")
    if bare.lower() == "no.":
        return following[0].isdigit()
    return bare.lower() in _ABBREVIATIONS or _INITIALS.fullmatch(bare) is not None


def _singular(word: str) -> str:
    """Cut a plural ending, roughly: both texts are cut alike, so rough is enough."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@cache
def _markdown() -> MarkdownIt:
    """A reader of blocks alone: what stands inside a line is read here, where needed."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").disable("inline")
