"""Whatever a specification says, it says after writing and reading too."""

import re
import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adhere.errors import BadInput
from adhere.spec import (
    Rule,
    Specification,
    derive_id,
    diff_specs,
    read_spec,
    write_markdown,
    write_scenario,
    write_specbench,
    write_yaml,
)
from adhere.spec.formats.building import RULE_KEYS, block, one_line
from adhere.spec.formats.specbench import read_specbench

CHECKS = (
    "words(max=150)",
    'absent(/\\b\\d+\\/(mg|ml)\\b/i, "a: b")',
    'headings("Overview",  "Next: step", only=true)',
    'contains("# no heading", "- no bullet", "[x]", any=true)',
    'json(schema="{\\"type\\": \\"object\\"}")',
    "matches(/\t|\u2028|\\{/)",
)

thorough = settings(deadline=None, max_examples=60)

# Characters from all over Unicode (st.characters() would first make a table of it, which takes
# seconds), without control characters and lone surrogates, but with white space of all sorts.
ALPHABET = "abcXYZ 0123 .,:;-_#*[]()\\/'\"\t\n\r\v\f\x1c\x85\u2028" + "".join(
    char
    for char in map(chr, range(0xA0, 0x20000, 97))
    if unicodedata.category(char) not in ("Cc", "Cs")
)

# What is most likely to be taken for something else.
PIECES = [
    *("[x] ", "[no-dose]", "\\[", "\\\\[", "\\", "[", "]", "- ", "* ", "+ ", "1. ", "- -", "| a |"),
    *("# ", " #", "## Safety", "---", "--", "==", "=", "...", "```", "<!-- ", "-->"),
    *("\n  check: words(max=1)", "\n  note: x", "\n", "check: ", "key: value", ": "),
    *("'", '"', "{", "}", "!tag", "&a", "*a", "%", "@", "`", "yes", "null", "~", "3", "1.10"),
    *("\u00a0", "\ufeff", "é", "日本", "🩺"),
]
tricky = st.sampled_from(PIECES)
texts = st.lists(tricky | st.text(ALPHABET, max_size=12), max_size=5).map("".join)


def printable(text: str) -> bool:
    """No control character is left once white space is normalized; those are refused."""
    return not any(
        unicodedata.category(c) == "Cc" for c in block(text).replace("\n", "").replace("\t", "")
    )


lines = texts.filter(lambda text: one_line(text) and printable(one_line(text)))
blocks = texts.filter(printable)
ids = st.text("abzAZ059_-", min_size=1, max_size=64).map(lambda t: f"a{t[1:]}")


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    text = draw(lines)
    rule_id = draw(st.none() | ids) or derive_id(text)
    checks = st.none() | st.sampled_from(CHECKS)
    return Rule(
        rule_id,
        draw(st.sampled_from(["safety", "behavioral"])),
        text,
        check=draw(checks),
        applies=draw(checks),
        category=draw(st.none() | lines),
        summary=draw(st.none() | lines),
        source=draw(st.none() | lines),
    )


@st.composite
def specifications(draw: st.DrawFn) -> Specification:
    return Specification(
        name=draw(lines),
        rules=tuple(draw(st.lists(rules(), min_size=1, max_size=4, unique_by=lambda r: r.id))),
        version=draw(lines | st.just("1") | st.just("1.10")),
        description=draw(blocks),
        fallback=draw(st.none() | blocks),
        meta=draw(st.just({}) | st.just({"language": "en"})),
    )


def expected(spec: Specification) -> Specification:
    """The specification with white space and order normalized, written out independently."""

    def rule(r: Rule) -> Rule:
        keys = {key: getattr(r, key) for key in RULE_KEYS}
        for key in ("category", "summary", "source"):
            keys[key] = None if keys[key] is None else " ".join(keys[key].split())
        return Rule(r.id, r.kind, " ".join(r.text.split()), **keys)

    normal = [rule(r) for r in spec.rules]
    return Specification(
        name=" ".join(spec.name.split()),
        rules=tuple(r for kind in ("safety", "behavioral") for r in normal if r.kind == kind),
        version=" ".join(spec.version.split()),
        description=block(spec.description),
        fallback=block(spec.fallback or "") or None,
        meta=spec.meta,
    )


@thorough
@given(specifications())
def test_markdown_and_yaml_round_trip(spec: Specification) -> None:
    written = write_markdown(spec)
    read = read_spec(written, "s.md", "markdown")
    assert read == expected(spec)
    assert write_markdown(read) == written
    assert diff_specs(expected(spec), read).is_empty
    assert read_spec(write_yaml(spec), "s.yaml", "yaml") == expected(spec)


@thorough
@given(st.lists(lines, min_size=1, max_size=6), lines, blocks)
def test_specbench_round_trip(rule_texts: list[str], name: str, description: str) -> None:
    rules = tuple(
        Rule(derive_id(t), "safety" if i % 2 else "behavioral", t) for i, t in enumerate(rule_texts)
    )
    assume(len({rule.id for rule in rules}) == len(rules))
    spec = Specification(name, rules, description=description)
    read = read_specbench(write_specbench(spec), "specifications.json", write_scenario(spec))
    assert read == expected(spec)


@thorough
@given(st.lists(lines, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_place_or_neighbors(rule_texts: list[str], random) -> None:
    assume(len({derive_id(text) for text in rule_texts}) == len(rule_texts))

    def ids_of(texts: list[str]) -> dict[str, str]:
        spec = Specification("s", tuple(Rule(derive_id(t), "safety", t) for t in texts))
        read = read_spec(write_markdown(spec), "s.md", "markdown")
        return {rule.text: rule.id for rule in read.rules}

    before = ids_of(rule_texts)
    kept, edited = rule_texts[:-1], rule_texts[-1] + " edited"
    assume(derive_id(edited) not in before.values())
    shuffled = [*kept, edited]
    random.shuffle(shuffled)
    after = ids_of(shuffled)
    for text in kept:
        assert after[one_line(text)] == before[one_line(text)]
    assert after[one_line(edited)] != before[one_line(rule_texts[-1])]


@thorough
@given(st.text(ALPHABET + "\0\a\ud800"), st.sampled_from(["markdown", "yaml", "specbench"]))
def test_any_text_is_read_or_refused(text: str, format: str) -> None:
    try:
        read_spec(text, "file", format)
    except BadInput as error:
        assert re.fullmatch(r"file(:\d+)?: found .+; expected .+", error.message)


@thorough
@given(st.lists(tricky | st.sampled_from(["\n## Safety\n- ", "\n- ", "safety:\n  - ", '"', "x"])))
def test_any_tricky_text_is_read_or_refused(parts: list[str]) -> None:
    for format in ("markdown", "yaml", "specbench"):
        try:
            spec = read_spec("".join(parts), "file", format)
        except BadInput as error:
            assert re.fullmatch(r"file(:\d+)?: found .+; expected .+", error.message)
        else:
            assert read_spec(write_markdown(spec), "file", "markdown") == spec


@pytest.mark.parametrize(
    "rule",
    [
        Rule("a", "safety", " \n"),
        Rule("a b", "safety", "text"),
        Rule("a", "safety", "text", check="nope()"),
        Rule("a", "safety", "text", check="words(max=1)\n"),
        Rule("a", "safety", "bell \a"),
        Rule("a", "safety", "half \ud800 of a pair"),
        Rule("a", "safety", "x" * 16_001),
    ],
)
def test_what_cannot_be_read_back_is_not_written(rule: Rule) -> None:
    spec = Specification("s", (rule,))
    for write in (write_markdown, write_yaml, write_specbench):
        if rule.check and rule.check.endswith("\n"):
            assert read_spec(write_markdown(spec), "s", "markdown").rules[0].check == "words(max=1)"
            continue
        with pytest.raises(BadInput):
            write(spec)


def test_other_meta_is_not_lost_in_silence() -> None:
    with pytest.raises(BadInput, match="author"):
        write_yaml(Specification("s", (Rule("a", "safety", "text"),), meta={"author": "me"}))
