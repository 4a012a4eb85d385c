"""Reading the three forms: what is accepted, and that each mistake gives one clear message."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adhere.errors import BadInput
from adhere.spec import derive_id, load_spec, read_spec, specbench_losses, write_specbench

MARKDOWN = """\
---
version: 1.10
fallback: "Sorry: no."
---
# Health: a guide #
We educate.

We do not treat.

## SAFETY RULES
- [no-dose] Never state a dose,
  not even a usual one:
  say so.
  check: absent(/\\b\\d+ mg\\/ml/i)
  category: medication

<!-- - [old] A rule that is out of use. -->
<!--
- [older] Another.
-->
* \\[x] is no check mark
1. https://example.com is
   https://example.com again
## Behavioural:
+ [short]   At most 150 words.
  check: words(max=150)
  applies: prompt(contains("a: b # c"))

  summary: short
## Safety
- Late rule.
"""


def test_markdown_is_read_as_written() -> None:
    spec = read_spec(MARKDOWN, "health.md", "markdown")
    assert spec.name == "Health: a guide"
    assert spec.version == "1.10"
    assert spec.fallback == "Sorry: no."
    assert spec.description == "We educate.\n\nWe do not treat."
    assert [rule.text for rule in spec.safety] == [
        "Never state a dose, not even a usual one: say so.",
        "[x] is no check mark",
        "https://example.com is https://example.com again",
        "Late rule.",
    ]
    dose, mark, _, _, short = spec.rules
    assert dose.id == "no-dose"
    assert dose.check == "absent(/\\b\\d+ mg\\/ml/i)"
    assert dose.category == "medication"
    assert mark.id == derive_id("[x] is no check mark")
    assert short.applies == 'prompt(contains("a: b # c"))'
    assert short.summary == "short"


def test_line_ends_and_byte_order_mark_make_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "health.md"
    path.write_bytes(b"\xef\xbb\xbf" + MARKDOWN.replace("\n", "\r\n").encode())
    assert load_spec(path) == read_spec(MARKDOWN, "health.md", "markdown")


def test_yaml_scalars_are_texts_as_written() -> None:
    spec = read_spec(
        "version: 1.10\nname: yes\nfallback: ~\nsafety:\n- 007\n- text: no\n  id: on\n"
        "behavioural:\n- |\n  two\n  lines\n",
        "a.yaml",
        "yaml",
    )
    assert (spec.version, spec.name, spec.fallback) == ("1.10", "yes", None)
    assert [rule.text for rule in spec.rules] == ["007", "no", "two lines"]
    assert spec.rules[1].id == "on"


def test_the_name_falls_back_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "tone.md").write_text("## Safety\n- a rule\n")
    assert load_spec(tmp_path / "tone.md").name == "tone"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spec", "# A\n## Safety\n- a rule\n"),
        ("spec.txt", "name: A\nsafety:\n- a rule\n"),
        ("spec", '{"safety_specifications": ["a rule"]}'),
        ("spec.MD", "# A\n## Safety\n- a rule\n"),
        ("spec.yml", "safety: [a rule]"),
    ],
)
def test_the_format_is_recognized(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert [rule.text for rule in load_spec(tmp_path / name).rules] == ["a rule"]


# Every mistake: the text, the line its message names, and words the message must hold.
BAD_MARKDOWN = {
    "empty": ("", None, "empty file"),
    "white space": (" \n\n", None, "empty file"),
    "headings only": ("# A\n## Safety\n## Behavioral\n", None, "no rules"),
    "prose only": ("Be nice.\n", None, "no rules"),
    "unknown section": ("# A\n## Tone\n- x\n", 2, '"## Safety" or "## Behavioral"'),
    "near section": ("# A\n## Safty\n- x\n", 2, 'Did you mean "safety"'),
    "deep heading": ("## Safety\n### Drugs\n- x\n", 2, "category"),
    "indented heading": ("## Safety\n- x\n  ## Behavioral\n- y\n", 3, "margin"),
    "two titles": ("# A\n# B\n## Safety\n- x\n", 2, "one name"),
    "late title": ("words\n# A\n## Safety\n- x\n", 2, "the title first"),
    "underlined": ("A\n===\n## Safety\n- x\n", 2, 'headings written with "#"'),
    "bullet above": ("# A\n- x\n## Safety\n", 2, "above the first section"),
    "loose text": ("## Safety\n- x\nand y\n", 3, "Indent it by two spaces"),
    "indented bullet": ("## Safety\n  - x\n", 2, "at the margin"),
    "unknown key": ("## Safety\n- x\n  chek: words(max=1)\n", 3, 'Did you mean "check"'),
    "foreign key": ("## Safety\n- x\n  note: y\n", 3, "check, applies, category, summary, source"),
    "capital key": ("## Safety\n- x\n  Check: words(max=1)\n", 3, "small letters"),
    "key twice": ("## Safety\n- x\n  source: a\n  source: b\n", 4, "once"),
    "empty key": ("## Safety\n- x\n  check:\n", 3, "without a value"),
    "text below keys": ("## Safety\n- x\n  source: a\n  and y\n", 4, "before its keys"),
    "empty rule": ("## Safety\n- [x]\n", 2, "without a text"),
    "bare bullet": ("## Safety\n-\n", 2, "without a text"),
    "strange id": ("## Safety\n- [no dose!] x\n", 2, 'the id "no dose!"'),
    "check box": ("## Safety\n- [ ] x\n", 2, "\\["),
    "long id": (f"## Safety\n- [{'a' * 65}] x\n", 2, "1 to 64"),
    "accented id": ("## Safety\n- [dosé] x\n", 2, "a to z"),
    "no space after id": ("## Safety\n- [dose]x\n", 2, "a space after the id"),
    "same id": ("## Safety\n- [a] x\n## Behavioral\n- [a] y\n", 4, "line 2 has it"),
    "same text": ("## Safety\n- x y\n- x\n  y\n", 3, "the same rule text"),
    "unknown check": ("## Safety\n- x\n  check: wrods(max=1)\n", 3, 'Did you mean "words"'),
    "import": ('## Safety\n- x\n  check: __import__("os")\n', 3, "unknown check"),
    "bad check": ("## Safety\n- x\n  check: words(max=)\n", 3, "Here:\n    words(max=)\n              ^"),
    "bad applies": ("## Safety\n- x\n  applies: words(\n", 3, "in applies"),
    "bad regex": ("## Safety\n- x\n  check: absent(/(/)\n", 3, "regex"),
    "control": ("## Safety\n- x \x07 y\n", 2, "U+0007"),
    "null": ("## Safety\n- x \x00 y\n", 2, "U+0000"),
    "long rule": (f"## Safety\n- {'x' * 16_001}\n", 2, "16,001 characters"),
    "open comment": ("## Safety\n- x\n<!-- \n- y\n", 3, "-->"),
    "text after comment": ("## Safety\n<!-- a --> - x\n", 2, "lines of its own"),
    "front key": ("---\nverison: 2\n---\n## Safety\n- x\n", 2, 'Did you mean "version"'),
    "front foreign key": ("---\na: 1\nauthor: me\n---\n", 2, "name, version, description"),
    "front key twice": ("---\nversion: 1\nversion: 2\n---\n", 3, "each key once"),
    "front open": ("---\nversion: 1\n## Safety\n- x\n", 1, "without an end"),
    "front list": ("---\n- a\n---\n## Safety\n- x\n", 2, "key: value"),
    "front broken": ('---\nversion: "1\n---\n## Safety\n- x\n', 2, "broken YAML"),
    "front nested": ("---\nversion: [1]\n---\n## Safety\n- x\n", 2, "a list under version"),
    "two names": ("---\nname: A\n---\n# B\n## Safety\n- x\n", 4, "one name"),
    "two descriptions": ("---\ndescription: A\n---\nB\n## Safety\n- x\n", 2, "one of the two"),
}  # fmt: skip
BAD_YAML = {
    "broken": ("safety:\n- [a\nx: y\n", None, "broken YAML"),
    "broken quote": ('name: A\nsafety:\n- "a\n', 3, "broken YAML"),
    "tab": ("safety:\n\t- a\n", 2, "broken YAML"),
    "control": ("safety:\n- a\x07\n", 2, "U+0007"),
    "escaped control": ('safety:\n- "a\\a"\n', 2, "U+0007"),
    "surrogate": ('safety:\n- "a\\ud800"\n', 2, "U+D800"),
    "no mapping": ("- a\n- b\n", 1, "a list"),
    "a text": ("just a text\n\nof two lines\n", 1, 'the text "just a text of two lines"'),
    "escape sequence": ('"\\e[31m": x\n', 1, "unknown key"),
    "unknown key": ("saftey:\n- a\n", 1, 'Did you mean "safety"'),
    "unknown rule key": ("safety:\n- text: a\n  chekc: words(max=1)\n", 3, 'Did you mean "check"'),
    "colon": ("safety:\n- Use these: a, b\n", 2, "quotes"),
    "key twice": ("safety:\n- a\nsafety:\n- b\n", 3, "again"),
    "both spellings": ("behavioral:\n- a\nbehavioural:\n- b\n", 3, "once"),
    "rule key twice": ("safety:\n- text: a\n  text: b\n", 3, "again"),
    "no text": ("safety:\n- id: a\n", 2, "without a text"),
    "null rule": ("safety:\n-\n", 1, "nothing"),
    "list in list": ("safety:\n- [a, b]\n", 2, "a list"),
    "no list": ("safety: a\n", 1, "a list of rules"),
    "empty lists": ("safety:\nbehavioral: []\n", None, "no rules"),
    "tag": ("safety: !!python/object/apply:os.system ['id']\n", 1, "tag"),
    "anchor": ("a: &a [x]\nsafety: *a\n", 1, "alias or anchor"),
    "alias": ("safety: *a\n", 1, "alias or anchor"),
    "two documents": ("safety: [a]\n---\nsafety: [b]\n", 2, "second document"),
    "merge": ("safety:\n- <<: {text: a}\n  text: b\n", 2, "<<"),
    "deep": ("safety: " + "[" * 500_000, 1, "deep nesting"),
    "line break in check": ("safety:\n- text: a\n  check: |\n    all(\n    x)\n", 3, "one line"),
    "bad check": ("safety:\n- text: a\n  check: words(max=)\n", 3, "in check"),
    "bad id": ("safety:\n- text: a\n  id: a b\n", 3, "id"),
    "complex key": ("? [a]\n: b\n", 1, "key"),
}  # fmt: skip
BAD_SPECBENCH = {
    "broken": ('{\n"safety_specifications": [\n}', 3, "broken JSON"),
    "no object": ("[]", None, "object"),
    "unknown key": ('{"safety_specs": []}', 1, 'Did you mean "safety_specifications"'),
    "key twice": ('{"safety_specifications": [],\n"safety_specifications": []}', 2, "again"),
    "no list": ('{"safety_specifications": "a"}', None, "list"),
    "no text": ('{"safety_specifications": ["a", 3]}', None, "safety_specifications, item 2"),
    "empty text": ('{"safety_specifications": [""]}', None, "item 1"),
    "no rules": ('{"safety_specifications": []}', None, "no rules"),
    "surrogate": ('{"safety_specifications": ["\\ud800"]}', None, "U+D800"),
    "same text": ('{"safety_specifications": ["a", "a"]}', None, "safety_specifications, item 2"),
    "deep": ('{"safety_specifications": ' + "[" * 200_000, None, "nested too deep"),
    "big number": ('{"safety_specifications": ' + "1" * 5000 + "}", None, "broken JSON"),
}  # fmt: skip
CASES = [
    pytest.param(format, *case, id=f"{format}: {name}")
    for format, cases in (
        ("markdown", BAD_MARKDOWN),
        ("yaml", BAD_YAML),
        ("specbench", BAD_SPECBENCH),
    )
    for name, case in cases.items()
]


@pytest.mark.parametrize(("format", "text", "line", "words"), CASES)
def test_every_mistake_gives_one_clear_message(
    format: str, text: str, line: int | None, words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read_spec(text, "dir/spec", format)
    message = str(caught.value)
    if line is not None:
        assert message.startswith(f"dir/spec:{line}: found ")
    assert message.startswith("dir/spec")
    assert "; expected " in caught.value.message
    assert words in message
    assert caught.value.message.isprintable()
    assert caught.value.exit_code == 2
    assert len(message) < 1000


def test_billion_laughs_end_at_once() -> None:
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    with pytest.raises(BadInput, match="alias or anchor"):
        read_spec(laughs, "a.yaml", "yaml")


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_spec(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    assert "no such file" in refused(tmp_path / "b.md")
    assert "through a file" in refused(tmp_path / "a.md" / "b.md")
    assert "without specifications.json" in refused(tmp_path)
    assert "cannot be read" in refused(Path("a\0b.md"))
    assert "cannot be read" in refused(tmp_path / ("a" * 300))
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    assert "cannot be read" in refused(tmp_path / "loop.md")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "a.md").chmod(0)
    assert "cannot be read" in refused(tmp_path / "a.md")


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"# A\n## Safety\n- caf\xe9\n")
    assert refused(path).startswith(f"{path}:3: found the byte 0xE9 at offset 19")
    path.write_bytes(b"\xef\xbb\xbf# A\n\xff\n")
    assert "offset 7" in refused(path)
    path.write_text("# A\n## Safety\n- a rule\n", encoding="utf-16")
    assert "UTF-8" in refused(path)


def test_limits_of_size(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"## Safety\n- " + b"x" * 70_000)
    assert f"{path}:2: found a line of 70,002 bytes" in refused(path)
    path.write_bytes(b"## Safety\n" + b"- x\n" * 300_000)
    assert "1.2 MB" in refused(path)
    assert "more than 1 MB" in refused(Path("/dev/zero"))


def test_a_huge_line_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)  # a sparse file; reading it would take a while
    start = time.monotonic()
    assert "10,000.0 MB" in refused(path)
    assert time.monotonic() - start < 0.2
    path.write_bytes(b"x" * 10_000_000)
    start = time.monotonic()
    assert "10.0 MB" in refused(path)
    assert time.monotonic() - start < 0.2


def test_a_full_size_file_is_read_in_seconds() -> None:
    start = time.monotonic()
    many = "".join(f"- Rule number {i} of this document.\n" for i in range(28_000))
    assert len(read_spec("## Safety\n" + many, "a.md", "markdown").rules) == 28_000
    wrapped = "## Safety\n- x\n" + "  y\n" * 250_000
    with pytest.raises(BadInput, match="characters"):
        read_spec(wrapped, "a.md", "markdown")
    with pytest.raises(BadInput):
        read_spec("# " + " #" * 500_000 + "x", "a.md", "markdown")
    assert time.monotonic() - start < 10


def test_a_scenario_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Travel"
    folder.mkdir()
    rules = {"safety_specifications": ["No visas."], "behavioral_specifications": ["Be  brief."]}
    (folder / "specifications.json").write_text(json.dumps(rules))
    alone = load_spec(folder)
    assert alone.name == "Travel"
    assert [(rule.kind, rule.text, rule.id) for rule in alone.rules] == [
        ("safety", "No visas.", derive_id("No visas.")),
        ("behavioral", "Be brief.", derive_id("Be brief.")),
    ]
    (folder / "scenario.json").write_text('{"name": "Trips", "description": "Plans."}')
    whole = load_spec(folder)
    assert (whole.name, whole.description) == ("Trips", "Plans.")
    assert load_spec(folder / "specifications.json") == whole
    (folder / "scenario.json").write_text('{"name": 3}')
    with pytest.raises(BadInput, match=r"scenario\.json"):
        load_spec(folder)


def test_what_specbench_cannot_hold_is_named() -> None:
    spec = read_spec(MARKDOWN, "health.md", "markdown")
    assert specbench_losses(spec) == (
        "id of 2 rules",
        "check of 2 rules",
        "applies of 1 rule",
        "category of 1 rule",
        "summary of 1 rule",
        "version",
        "fallback",
    )
    assert specbench_losses(read_spec("## Safety\n- x\n", "a", "markdown")) == ()


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, adhere.spec\n"
        "heavy = ('yaml', 'regex', 'markdown_it', 'jsonschema', 'pydantic', 'numpy', 'cyclopts')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The published scenarios themselves, which are not ours to ship.
SPECBENCH = Path(os.environ.get("ADHERE_TEST_DATA", "/nowhere")) / "specbench"


@pytest.mark.skipif(not SPECBENCH.is_dir(), reason="ADHERE_TEST_DATA names no specbench folder")
def test_real_specbench_scenarios() -> None:
    folders = sorted(path.parent for path in SPECBENCH.glob("*/specifications.json"))
    assert folders
    for folder in folders:
        raw = json.loads((folder / "specifications.json").read_text())
        spec = load_spec(folder)
        assert [rule.text for rule in spec.safety] == raw["safety_specifications"]
        assert [rule.text for rule in spec.behavioral] == raw["behavioral_specifications"]
        assert json.loads(write_specbench(spec)) == raw
        assert spec.name == json.loads((folder / "scenario.json").read_text())["name"]
