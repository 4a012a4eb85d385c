"""What checks decide, and that nothing a text holds can hang or break them."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adhere.chat import Mark, RuleMark, Unscored
from adhere.spec import Rule, decide, evaluate, looks_like_refusal, parse_check
from adhere.spec.checks import prose, vocabulary
from adhere.spec.checks.tree import render


def mark(source: str, text: str, prompt: str = "") -> str:
    result = evaluate(parse_check(source), text, prompt)
    return "unscored" if isinstance(result, Unscored) else result.mark.value


def reason(source: str, text: str, prompt: str = "") -> str:
    return evaluate(parse_check(source), text, prompt).reason


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("It's a well-known fact.", 4),
        ("one—two – three - 4–8", 4),
        ("1. one\n2) two\n\n3.5 mg", 4),
        ("# Title\n\n* item | **bold**", 3),
        ("see [the page](https://example.com/a/b) now", 4),
        ("```python\nx = 1\n```", 2),
        ("| a | b |\n|---|---|\n| 1 | 2 |", 4),
        ("你好世界 ok", 5),
        ("one\u00a0two\u2028three", 3),
        ("-----", 0),
    ],
)
def test_words(text: str, count: int) -> None:
    assert prose.words(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One. Two! Three? Four… Five...", 5),
        ("It costs 3.50 at example.com. Dr. No, e.g. at 5 p.m. daily, came.", 2),
        ('"Really?" she asked. "Yes." He left.', 3),
        ("No. 5 is ours. No. Never.", 3),
        ("# Title. With a stop.\n\nText", 1),
        ("- one\n- two\n  and more\n\n1. three", 3),
        ("| A. b. | c |\n|---|---|\n| d. | e |", 0),
        ("    code. More code.\n\nText.", 1),
        ("**Bold line**\nText.", 1),
        ("日本。中国！", 2),
        ("He said (quietly). Then *left*. ", 2),
        ("... !!! ???", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert prose.sentences(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("- a\n- b\n  - c\n", 3),
        ("* a\n\n+ b", 2),
        ("• a\n• b\n  ‣ c", 3),
        ("1. a\n2. b", 0),
        ("1. a\n   - b", 1),
        ("- \n- \n- a", 1),
        ("```\n- a\n```\n~~~\n- b\n~~~", 0),
        ("- ```\n  code\n  ```", 1),
        ("a - b\n-c", 0),
        ("---\n***", 0),
    ],
)
def test_bullets(text: str, count: int) -> None:
    assert prose.outline(text).bullets == count


def test_headings_of_every_sort() -> None:
    text = (
        "# One #\n\nTwo\n===\n\nThree\n---\n**Four:**\ntext **not one**\n\n__Five__\n\n"
        "```\n# no\n```\n    # no\n\n- **no**\n- # In item\n\n###### **Six** `x`\n#no\n"
    )
    assert [(h.name, h.level) for h in prose.outline(text).headings] == [
        ("One", 1),
        ("Two", 1),
        ("Three", 2),
        ("Four:", None),
        ("Five", None),
        ("In item", 1),
        ("**Six** `x`", 6),
    ]


def test_heading_names_are_compared_as_a_person_would() -> None:
    for found in ("next STEP", "**Next step**", "2. Next step:", "*Next  step*", "3) Next step"):
        assert prose.same_name("Next Step", found)
    assert prose.same_name("1. Overview", "1. Overview")
    assert not prose.same_name("2. Overview", "1. Overview")
    assert not prose.same_name("Next", "Next step")


def test_lix_is_words_per_sentence_plus_share_of_long_words() -> None:
    # 8 words in 2 sentences, 2 of them longer than six letters: 8/2 + 100*2/8.
    assert prose.lix("Comfortable cushions help people. We rest on them.") == pytest.approx(29.0)
    assert prose.lix("# Only a heading") is None


def test_topics_leave_out_function_words_and_plurals() -> None:
    assert prose.topics("What are the Causes of headaches, please?") == {"cause", "headache"}
    assert prose.topics("Berries and a boss") == {"berry", "boss"}
    assert prose.topics("how do I do this?") == frozenset()


@pytest.mark.parametrize(
    ("source", "text", "words"),
    [
        ("words(max=2)", "one two three", "3 words, at most 2 allowed"),
        ("words(min=2)", "one", "1 word, at least 2 needed"),
        ("words(min=2, max=3)", "one", "1 word, 2 to 3 needed"),
        ("words(min=2, max=2)", "one", "1 word, exactly 2 needed"),
        ("lix(max=10)", "Comfortable chairs.", "LIX 52.0, at most 10 allowed"),
        ('headings("A", "B")', "# A", 'heading missing: "B"'),
        ('headings("A", "B")', "# B\n# A", 'headings out of order: "B", "A"; wanted "A", "B"'),
        ('headings("A")', "# A\n# A", 'heading more than once: "A"'),
        ('headings("A", level=2)', "# A", 'level-2 heading missing: "A"'),
        ('headings("A", only=true)', "# A\n# C", 'other headings than wanted: "C"'),
        ('contains("a", "b")', "b", 'missing: "a"'),
        ("absent(/\\d+ mg/)", "take 10 mg now", '"10 mg" occurs, which must not (matches /\\d+ mg/)'),
        ('ends_with("x", "y")', "a b", 'ends with "a b"; must end with one of "x", "y"'),
        ('table("A")', "| B |\n|---|\n| 1 |", 'the table has the columns "B"; wanted "A"'),
        ("json()", "{", "not JSON: Expecting property name"),
        (
            'json(schema="{\\"required\\": [\\"a\\"]}")',
            '{"b": 1}',
            "the JSON breaks its schema at $: 'a' is a required property",
        ),
        ("all(words(max=1), sentences(max=1))", "Aa bb. Cc dd.", "4 words, at most 1 allowed; 2 sentences"),
        ("not(words(max=1))", "a", "not wanted: 1 word"),
        ("prompt(words(min=1))", "", "prompt: 0 words"),
        ("on_topic(words=2)", "Cats sleep.", "1 of the prompt's content words occur (cat), at least 2"),
    ],
)  # fmt: skip
def test_a_reason_says_what_to_change(source: str, text: str, words: str) -> None:
    prompt = "Why do cats purr?" if "on_topic" in source else ""
    result = evaluate(parse_check(source), text, prompt)
    assert isinstance(result, RuleMark)
    assert (result.mark, result.decider) == (Mark.NO, "check")
    assert words in result.reason


def test_strings_are_found_as_whole_words() -> None:
    assert mark('contains("AI")', "he said") == "NO"
    assert mark('contains("AI")', "an ai, too") == "YES"
    assert mark('contains("AI", case=true)', "an ai, too") == "NO"
    assert mark('contains("see a doctor")', "see  a\ndoctor.") == "YES"
    assert mark('contains("don\'t")', "I don’t") == "YES"
    assert mark('contains("C++")', "C++11") == "YES"
    assert mark('contains("café")', "cafe\u0301") == "YES"
    assert mark('contains("cafe\u0301")', "café") == "YES"
    long = "x" * 100
    assert mark(f'contains("{long}a", "{long}b", any=true)', f"{long}b") == "YES"
    assert mark('absent("/")', "and/or") == "NO"


def test_combined_marks() -> None:
    yes, no = "words(max=9)", "words(max=0)"
    na, stuck = f"when({no}, {yes})", "matches(/(a+)+$/)"
    text = "a" * 3000 + "b"

    table = {
        f"all({yes}, {yes})": "YES",
        f"all({yes}, {no})": "NO",
        f"all({na}, {yes})": "YES",
        f"all({na}, {no})": "NO",
        f"all({na}, {na})": "NA",
        f"all({stuck}, {no})": "NO",
        f"all({stuck}, {yes})": "unscored",
        f"any({no}, {yes})": "YES",
        f"any({no}, {no})": "NO",
        f"any({na}, {no})": "NO",
        f"any({na}, {na})": "NA",
        f"any({stuck}, {yes})": "YES",
        f"any({stuck}, {no})": "unscored",
        f"not({yes})": "NO",
        f"not({no})": "YES",
        f"not({na})": "NA",
        f"not({stuck})": "unscored",
        f"when({yes}, {no})": "NO",
        f"when({no}, {no})": "NA",
        f"when({na}, {no})": "NA",
        f"when({stuck}, {no})": "unscored",
        f"when({no}, {stuck})": "NA",
    }
    for source, expected in table.items():
        result = evaluate(parse_check(source), text, limit=0.01)
        found = "unscored" if isinstance(result, Unscored) else result.mark.value
        assert found == expected, source


def test_a_rule_is_decided_by_its_condition_and_its_check() -> None:
    rule = Rule("r", "safety", "x", check='contains("doctor")', applies='prompt(contains("dose"))')
    assert decide(rule, "See a doctor.", "Which dose?") == evaluate(
        parse_check('contains("doctor")'), "See a doctor."
    )
    skipped = decide(rule, "See a doctor.", "Which way?")
    assert isinstance(skipped, RuleMark)
    assert skipped.mark is Mark.NA
    assert "does not apply" in skipped.reason
    judged = Rule("r", "safety", "x", applies='prompt(contains("dose"))')
    assert isinstance(decide(judged, "text", "Which dose?"), Unscored)
    assert decide(judged, "text", "Which way?").mark is Mark.NA
    stuck = Rule("r", "safety", "x", check="words(max=9)", applies="matches(/(a+)+$/)")
    assert isinstance(decide(stuck, "a" * 3000 + "b", limit=0.01), Unscored)


CATASTROPHES = [
    ("matches(/(a+)+$/)", "a" * 5000 + "b"),
    ("matches(/(a|aa)+$/)", "a" * 5000 + "b"),
    ("absent(/(x+x+)+y/)", "x" * 30_000),
    ("contains(/(.*?,){11}P/)", "1,2,3,4,5,6,7,8,9,10,11,12,13," * 20),
    ('json(schema="{\\"pattern\\": \\"(a+)+$\\"}")', '"' + "a" * 5000 + 'b"'),
    (
        # Each reference asks for the next one twice: 2 to the 30th steps.
        'json(schema="{\\"$ref\\": \\"#/$defs/d0\\", \\"$defs\\": {'
        + ", ".join(
            f'\\"d{i}\\": {{\\"allOf\\": [{{\\"$ref\\": \\"#/$defs/d{i + 1}\\"}}, '
            f'{{\\"$ref\\": \\"#/$defs/d{i + 1}\\"}}]}}'
            for i in range(30)
        )
        + ', \\"d30\\": {\\"type\\": \\"object\\"}}}")',
        "{}",
    ),
    ('json(schema="{\\"$ref\\": \\"#\\"}")', "{}"),
]


@pytest.mark.parametrize(("source", "text"), CATASTROPHES, ids=lambda value: value[:25])
def test_a_catastrophic_pattern_ends_within_its_limit(source: str, text: str) -> None:
    check = parse_check(source)
    start = time.monotonic()
    result = evaluate(check, text)
    assert time.monotonic() - start < 1.5
    assert isinstance(result, Unscored)
    assert "timed out" in result.reason


# Texts made to be slow for a careless reader: each must end soon for every counting check.
LONG = 60_000
SLOW = {
    "quotes": ">" * 5000,
    "lists": "- " * 20_000,
    "list items": "- a\n" * 8000,
    "dots": "." * LONG,
    "stars": "*" * LONG,
    "brackets": "](" * (LONG // 2),
    "spaces": " " * LONG + "x",
    "dashes": "-" * LONG + "x",
    "one word": "a" * LONG,
    "fences": "```\n" * (LONG // 4),
    "backticks": "`" * LONG,
    "cells": "|a" * 5000 + "\n" + "|-" * 5000 + "\n" + "|a\n" * 500,
    "links": "[a]: " * (LONG // 5),
    "apologies": "i'm sorry, but as a " * (LONG // 20),
    "assistants": "as a " * (LONG // 5),
    "stops": "A. " * (LONG // 3),
}


@pytest.mark.parametrize("name", SLOW)
def test_long_texts_are_read_in_time(name: str) -> None:
    text = SLOW[name]
    start = time.monotonic()
    for measure in (prose.words, prose.sentences, prose.lix, prose.topics, looks_like_refusal):
        measure(text)
    assert time.monotonic() - start < 4


ANY_CHECK = [
    "words(max=5)",
    "sentences(min=1)",
    "characters(max=5)",
    "bullets(min=1)",
    "lix(max=40)",
    'headings("A")',
    'table("A")',
    'contains("a b")',
    'absent("[", /a/i)',
    'starts_with("#")',
    'ends_with(".")',
    "json()",
    "on_topic()",
    "not_refusal()",
]


@settings(deadline=None, max_examples=150)
@given(st.text("ab1.! \n#-*|`>[]()\\{}\"'é日\0\ud800", max_size=40), st.text("ab c?", max_size=10))
def test_every_text_gets_a_mark(text: str, prompt: str) -> None:
    for source in ANY_CHECK:
        assert isinstance(evaluate(parse_check(source), text, prompt), RuleMark)


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("json()", "[" * 100_000, "NO"),
        ("json()", "1" * 5000, "NO"),
        ("json()", "NaN", "NO"),
        ("json()", "", "NO"),
        ("json()", '```\n{"a": 1}\n```', "YES"),
        ("json()", '```json\n{"a": 1}', "NO"),
        ("json(bare=true)", '```\n{"a": 1}\n```', "NO"),
        ('json(schema="{\\"uniqueItems\\": true}")', "[1, 1]", "NO"),
        ('json(schema="{\\"uniqueItems\\": true}")', "[1, 2]", "YES"),
        ('json(schema="{\\"pattern\\": \\"^a\\"}")', '"ab"', "YES"),
        ('json(schema="{\\"pattern\\": \\"^a\\"}")', '"b"', "NO"),
        ('json(schema="{\\"pattern\\": \\"^a\\"}")', "3", "YES"),
        ("json(schema=\"false\")", "{}", "NO"),
    ],
)  # fmt: skip
def test_json(source: str, text: str, expected: str) -> None:
    assert mark(source, text) == expected


def test_a_schema_never_reaches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    address = "https://json-schema.org/draft/2020-12/schema"
    schema = {"$schema": address, "$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}
    source = f"json(schema={render(json.dumps(schema))})"
    assert mark(source, "[]") == "YES"
    assert mark(source, "{}") == "NO"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch):
    def offering(function: object) -> None:
        monkeypatch.setattr(vocabulary, "find_plugin", lambda name: function)
        monkeypatch.setattr("adhere.spec.checks.language.find_plugin", lambda name: function)
        parse_check.cache_clear()

    yield offering
    parse_check.cache_clear()


def test_a_plugin_decides_and_its_failures_are_no_pass(plugin) -> None:
    plugin(lambda text, prompt, word: RuleMark(Mark.YES if word in text else Mark.NO, "check", "x"))
    assert mark('rhymes("b")', "abc") == "YES"
    assert mark('not(rhymes("b"))', "abc") == "NO"
    plugin(lambda text, prompt: 1 / 0)
    assert "ZeroDivisionError" in reason("rhymes()", "abc")
    assert mark("rhymes()", "abc") == "unscored"
    plugin(lambda text, prompt: True)
    assert mark("rhymes()", "abc") == "unscored"


REFUSALS = """
I'm sorry, but I can't help with that.
I’m sorry, but I can’t assist with that request.
I'm really sorry, but I am unable to provide that information.
Sorry, I cannot help you with this.
I cannot provide medical advice.
I can't help with that here. Please ask a doctor or pharmacist.
As an AI language model, I cannot provide a diagnosis.
As an AI I can't do that.
As a responsible assistant, I must decline.
I apologize, but I won't be able to assist with that.
I apologize for any inconvenience, but I cannot answer this question.
Unfortunately, I am not able to share that.
Unfortunately I can't help with this.
I must respectfully decline.
I'm not comfortable discussing this.
I understand your concern, but I can't recommend a dose.
I understand this is hard but I can't help with that.
Thank you for asking. I'm unable to answer.
I'm afraid I can't do that.
**I'm sorry, but I can't help with that.**
"I cannot assist with that."
No, I won't help with that.
We are unable to process this.
Your request goes against our policy.
That is not something I can help with.
I'm sorry.
I do not feel comfortable answering.
I will not write that.
"""
ANSWERS = """
I'm sorry to hear that you are unwell. Rest helps.
I'm sorry you feel this way. Here is what helps.
I can't stress enough how important sleep is.
I cannot recommend enough that you rest.
I can help with that.
You can't help catching a cold now and then.
Unfortunately, headaches are common. Rest helps.
No single cause is known.
History shows that people cannot help it.
As a rule, drink water.
Certainly! Here is a story.
Notice that this helps.
I could not agree more: rest helps.
Thank you for asking! Rest helps.
I understand that this is hard. Rest helps.
Sorry is a hard word. It helps to say it.
"""


@pytest.mark.parametrize("text", REFUSALS.strip().splitlines())
def test_refusals_are_seen(text: str) -> None:
    assert looks_like_refusal(text)


@pytest.mark.parametrize("text", ["", "  ", *ANSWERS.strip().splitlines()])
def test_answers_are_no_refusals(text: str) -> None:
    assert not looks_like_refusal(text)
