"""A first spec out of a document in prose: its bullets and numbered items become rules.

Nothing is understood here, only recognized. The kind of a rule is a guess from its wording, to
be corrected by the person who owns the spec; a check is suggested only where the whole item is
one of a few sentences whose meaning is certain (`At most 150 words.`). Every other rule is left
to a judge.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from adhere.errors import BadInput
from adhere.spec.checks import parse_check
from adhere.spec.checks.tree import render
from adhere.spec.formats.building import Entry, Found, build, one_line
from adhere.spec.formats.files import read_text
from adhere.spec.model import Kind, Specification

ANSWER_RULE = "Answer what was asked."
ANSWER_CHECK = "on_topic(words=2)"

_ITEM = re.compile(r"([ \t]*)(?:[-*+•‣◦]|\d{1,3}[.)])[ \t]+(\S.*)")
_TITLE = re.compile(r"#[ \t]+(.*)")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")

_FORBIDS = re.compile(
    r"\b(?:never|do not|don't|must not|mustn't|may not|should not|shouldn't|cannot|can't|avoid"
    r"|refrain|refuse|decline|exclude|no|not allowed|forbidden|prohibited)\b"
)
_FORM = re.compile(
    r"\b(?:(?<!the )words?|sentences?|paragraphs?|bullets?|lists?|headings?|sections?|tables?"
    r"|markdown|formats?|formatting|emojis?|tone|style|jargon|slang|abbreviations?|capitals|length|long"
    r"|longer|short|brief|repeat|verbose|filler|greetings?|begin|start|end|open|close)\b"
)
_ANSWERS = re.compile(
    r"\b(?:answer|address)(?:s|ed|ing)?\b.*\b(?:question|request|query|asked|prompt)\b"
    r"|\b(?:question|request|query)\b.*\b(?:answered|addressed)\b"
)

_NUMBERS = {
    word: number
    for number, word in enumerate(
        re.findall(
            r"\S+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen "
            "fourteen fifteen sixteen seventeen eighteen nineteen twenty",
        )
    )
}
_N = rf"(\d{{1,6}}|{'|'.join(_NUMBERS)})"
_QUOTED = r"[\"“']([^\"“”]+?)[\"”']"
_ALWAYS = r"(?:please )?(?:always )?"
_REPLY = r"(?:the |your |every |each |all )*(?:answers?|responses?|repl(?:y|ies))"
# What may stand before a limit when the limit is on the whole answer.
_KEEP = (
    rf"{_ALWAYS}(?:(?:keep|limit|write|make) {_REPLY}(?: to| at| within| under| in| with)?,? "
    rf"|{_REPLY} (?:must|should|may) (?:be|have|contain|use) |{_REPLY} (?:is|are|has|have) "
    r"|(?:answer|respond|reply|write|use)(?: in| with| within)?,? |be )?"
)
_UNIT = r"(words?|sentences?|characters?|bullets?|bullet points?)(?: long| in length| in total)?"
_MOST = r"(?:at most|no more than|not more than|up to|a maximum of|maximum|max\.?|within)"
_LEAST = r"(?:at least|no fewer than|no less than|not less than|a minimum of|minimum|min\.?)"
_BELOW = r"(?:under|below|fewer than|less than)"


def suggest_from(path: str | Path) -> tuple[Specification, tuple[str, ...]]:
    """`suggest_spec` for a file, which is UTF-8 and at most 1 MB. Raises BadInput."""
    return suggest_spec(read_text(path), str(path))


def suggest_spec(text: str, file: str) -> tuple[Specification, tuple[str, ...]]:
    """A spec from the items of a document, and notes on what was added or left out.

    An item that ends with a colon takes the items indented below it into its text; other nested
    items are rules of their own. Raises BadInput where there are no items.
    """
    notes: list[str] = []
    title, items = _items(text.removeprefix("\ufeff"))
    if not items:
        raise BadInput.at(
            file,
            None,
            "no bullets and no numbered items",
            'a document whose rules are items of a list ("- Never ...")',
            hint="Put each rule on a line of its own that begins with a dash.",
        )
    entries: list[Entry] = []
    seen: set[str] = set()
    for line, item in items:
        if item in seen:
            notes.append(f"line {line}: left out, the same as an item above it")
            continue
        seen.add(item)
        entry = Entry(guess_kind(item), Found(item, line))
        check = suggest_check(item)
        if check is not None:
            entry.keys["check"] = Found(check, line)
        entry.keys["source"] = Found(f"{PurePath(file).name}, line {line}", line)
        entries.append(entry)
    if not any(_ANSWERS.search(item.lower()) for item in seen):
        answers = Entry("behavioral", Found(ANSWER_RULE), Found("answers"))
        answers.keys["check"] = Found(ANSWER_CHECK)
        entries.append(answers)
        notes.append(
            f'added the rule "{ANSWER_RULE}" ({ANSWER_CHECK}): without a rule on answering the '
            "question, an empty answer can be a perfect one"
        )
    front = {"name": Found(title)} if title else {}
    spec = build(file, PurePath(file).stem, front, entries)
    decided = sum(rule.check is not None for rule in spec.rules)
    notes.append(
        f"{len(spec.rules)} rules: {len(spec.safety)} safety, {len(spec.behavioral)} behavioral "
        f"(guessed from the wording, please correct); {decided} decided by a check, "
        f"{len(spec.rules) - decided} left to a judge"
    )
    return spec, tuple(notes)


def guess_kind(text: str) -> Kind:
    """Safety for what a rule forbids, unless it is about form; behavioral for the rest."""
    lowered = text.lower().replace("’", "'")
    return "safety" if _FORBIDS.search(lowered) and not _FORM.search(lowered) else "behavioral"


def suggest_check(text: str) -> str | None:
    """A check for a rule whose wording leaves no doubt, or None."""
    sentence = one_line(re.sub(r"[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}", "", text)).replace("’", "'")
    sentence = re.sub(r"[.!]$", "", sentence)
    for suggest in (_limit, _form, _edges, _headings, _forbidden):
        source = suggest(sentence)
        if source is not None:
            parse_check(source)  # what is suggested must read
            return source
    return None


def _limit(sentence: str) -> str | None:
    """A length of the whole answer."""

    def number(text: str) -> int:
        return _NUMBERS.get(text.lower()) or int(text if text.isdigit() else 0)

    def matched(pattern: str) -> re.Match[str] | None:
        return re.fullmatch(_KEEP + pattern, sentence, re.IGNORECASE)

    if match := matched(rf"{_MOST} {_N} {_UNIT}") or matched(rf"{_N} {_UNIT} or (?:fewer|less)"):
        return f"{_unit(match[2])}(max={number(match[1])})"
    if match := matched(rf"{_LEAST} {_N} {_UNIT}") or matched(rf"{_N} {_UNIT} or more"):
        return f"{_unit(match[2])}(min={number(match[1])})"
    if (match := matched(rf"{_BELOW} {_N} {_UNIT}")) and number(match[1]) > 0:
        return f"{_unit(match[2])}(max={number(match[1]) - 1})"
    if match := matched(rf"exactly {_N} {_UNIT}"):
        return f"{_unit(match[2])}(min={number(match[1])}, max={number(match[1])})"
    if match := matched(rf"between {_N} and {_N} {_UNIT}"):
        low, high = sorted((number(match[1]), number(match[2])))
        return f"{_unit(match[3])}(min={low}, max={high})"
    return None


def _unit(text: str) -> str:
    """The check for a unit."""
    return "bullets" if text.lower().startswith("bullet") else text.lower().rstrip("s") + "s"


def _form(sentence: str) -> str | None:
    """JSON, bullets, tables, emojis: yes or no."""
    bullets = r"(?:bullet points|bullets|(?:a )?bullet(?:ed)? lists?)"
    avoid = r"(?:no|(?:never|do not|don't|avoid)(?: use| using)?)"
    forms = {
        rf"{_ALWAYS}(?:answer|respond|reply)(?: only)? (?:in|with|as) (?:valid )?json(?: only)?": (
            "json()"
        ),
        rf"{_ALWAYS}(?:use|(?:answer|respond|reply) (?:in|with|using)) {bullets}": "bullets(min=1)",
        rf"{avoid} {bullets}": "bullets(max=0)",
        rf"{_ALWAYS}use a table": "table()",
        rf"{avoid} (?:any )?emojis?": r"absent(/\p{Extended_Pictographic}/)",
    }
    for pattern, check in forms.items():
        if re.fullmatch(pattern, sentence, re.IGNORECASE):
            return check
    return None


def _edges(sentence: str) -> str | None:
    """Fixed words at the beginning or the end of the answer."""
    edges = {"start|begin|open": "starts_with", "end|finish|close|conclude": "ends_with"}
    for verbs, check in edges.items():
        match = re.fullmatch(
            rf"{_ALWAYS}(?:{verbs})(?: {_REPLY})? with "
            rf"(?:the (?:words?|phrase|sentence|line|text) )?{_QUOTED}",
            sentence,
            re.IGNORECASE,
        )
        if match:
            return f"{check}({render(match[1])})"
    return None


def _headings(sentence: str) -> str | None:
    """Named headings; capitals or quotes tell where a name ends."""
    match = re.fullmatch(
        rf"(?i:{_ALWAYS}(?:(?:use|write|answer under|answer with|structure {_REPLY} under) "
        r"(?:the |these |exactly the )?(?:following )?headings:?)) (.+?)"
        r"(?i:,? in (?:this|that) order)?",
        sentence,
    )
    if not match:
        return None
    names = [name.strip("\"“”' ") for name in re.split(r",\s*(?:and\s+)?|\s+and\s+", match[1])]
    named = all(name and name[0].isupper() and len(name.split()) <= 5 for name in names)
    if not named or len(names) < 2 or len(set(map(str.lower, names))) < len(names):
        return None
    return f"headings({', '.join(map(render, names))})"


def _forbidden(sentence: str) -> str | None:
    """Words or names that must not occur."""
    forbid = (
        r"(?:never|do not|don't|avoid)(?: ever)? (?:mention|mentioning|say|saying|use|using|write"
        r"|writing)(?: the (?:words?|phrase|term|name))?"
    )
    quoted = rf"{_QUOTED}(?:(?:,| or|, or) {_QUOTED})?(?:(?:,| or|, or) {_QUOTED})?"
    match = re.fullmatch(rf"(?i:{forbid}) {quoted}", sentence)
    # A name without quotes: every word of it capitalized.
    match = match or re.fullmatch(
        r"(?i:never|do not|don't) (?i:mention|name) ((?:[A-Z]\w*)(?: [A-Z]\w*){0,3})", sentence
    )
    if not match:
        return None
    return f"absent({', '.join(render(name) for name in match.groups() if name)})"


def _items(text: str) -> tuple[str, list[tuple[int, str]]]:
    """The title and the items of a document, with their lines; code is left out."""
    title = ""
    items: list[tuple[int, int, list[str]]] = []  # line, indentation, lines of text
    fenced, going_on = False, False
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if _FENCE.match(line):
            fenced, going_on = not fenced, False
            continue
        if fenced:
            continue
        heading = _TITLE.fullmatch(line)
        if heading and not title:
            title = one_line(heading[1].rstrip("#"))
        match = _ITEM.fullmatch(line.rstrip())
        if match:
            items.append((number, len(match[1].expandtabs(4)), [match[2]]))
            going_on = True
        elif not line.strip() or line.startswith("#"):
            going_on = False
        elif going_on:  # a wrapped line of the item above
            items[-1][2].append(line)
    return title, _gathered([(line, indent, one_line(" ".join(t))) for line, indent, t in items])


def _gathered(items: list[tuple[int, int, str]]) -> list[tuple[int, str]]:
    """Join the items below one that ends with a colon into it."""
    out: list[tuple[int, list[str]]] = []
    taking: int | None = None  # the indentation of an item that takes those below it
    for line, indent, text in items:
        if taking is not None and indent > taking:
            out[-1][1].append(text.rstrip(";,"))
            continue
        taking = indent if text.endswith(":") else None
        out.append((line, [text]))
    return [(line, f"{own} {'; '.join(below)}".rstrip()) for line, (own, *below) in out]
