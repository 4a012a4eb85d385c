"""The pages on specs and checks say what the program does."""

import re
from pathlib import Path

import pytest

from adhere.chat import Unscored
from adhere.spec import derive_id, evaluate, parse_check, read_spec, write_specbench
from adhere.spec.checks import BUILTINS, syntax
from adhere.spec.formats.building import FRONT_KEYS, RULE_KEYS

DOCS = Path(__file__).parents[2] / "docs"
CHECKS = (DOCS / "checks.md").read_text()
SPEC = (DOCS / "spec.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language; a fence inside a block does not begin a line."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page)


MARKS = {"follows": "YES", "violates": "NO", "does not apply": "NA"}
EXAMPLES: list[tuple[str, str, str, str]] = []
for _block in blocks(CHECKS, "check"):
    _check, *_lines = _block.splitlines()
    _prompt = ""
    for _line in _lines:
        _word, _, _text = _line.partition(":")
        _text = _text.strip().replace("\\n", "\n")
        if _word == "prompt":
            _prompt = _text
        else:
            EXAMPLES.append((_check, _prompt, _text, MARKS[_word]))


def test_every_check_has_a_heading_and_every_heading_a_check() -> None:
    section = CHECKS.split("\n## The checks\n")[1].split("\n## ")[0]
    assert sorted(re.findall(r"(?m)^### (.+)$", section)) == sorted(BUILTINS)


def test_every_check_is_shown_followed_and_violated() -> None:
    for name in BUILTINS:
        marks = {mark for check, _, _, mark in EXAMPLES if parse_check(check).name == name}
        assert {"YES", "NO"} <= marks, name


@pytest.mark.parametrize(("check", "prompt", "text", "mark"), EXAMPLES)
def test_the_examples_come_out_as_the_page_says(
    check: str, prompt: str, text: str, mark: str
) -> None:
    result = evaluate(parse_check(check), text, prompt)
    assert not isinstance(result, Unscored)
    assert result.mark == mark, result.reason


def test_every_keyword_is_on_the_page() -> None:
    for name, builtin in BUILTINS.items():
        section = CHECKS.split(f"\n### {name}\n")[1].split("\n#")[0]
        for keyword in builtin.keywords:
            assert f"{keyword}=" in section.split("```")[0], (name, keyword)


def test_the_grammar_is_the_parsers() -> None:
    (grammar,) = blocks(CHECKS, "ebnf")
    assert grammar.strip() in re.sub(r"(?m)^    ", "", syntax.__doc__ or "")


def test_the_forms_of_the_spec_page_are_one_specification() -> None:
    markdown = next(block for block in blocks(SPEC, "markdown") if block.startswith("---"))
    (yaml,) = blocks(SPEC, "yaml")
    (specbench,) = blocks(SPEC, "json")
    spec = read_spec(markdown, "spec.md", "markdown")
    assert read_spec(yaml, "spec.yaml", "yaml") == spec
    assert write_specbench(spec) == specbench


def test_rules_shown_alone_are_rules() -> None:
    for block in blocks(SPEC + CHECKS, "markdown"):
        if not block.startswith("---"):
            text = block if block.startswith("##") else f"## Behavioral\n{block}"
            assert read_spec(text, "spec.md", "markdown").rules


def test_keys_and_ids_are_on_the_page() -> None:
    for key in (*RULE_KEYS, *FRONT_KEYS):
        assert f"`{key}`" in SPEC
    assert f"`{derive_id('At most 150 words.')}`" in SPEC
