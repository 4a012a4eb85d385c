"""`adhere spec check` and `adhere spec diff`."""

from pathlib import Path

import pytest

from adhere.cli.spec import app
from adhere.errors import BadInput
from adhere.spec import load_spec, read_spec
from adhere.spec.review import warnings

SPEC = """\
# Health
## Safety
- [no-dose] Never state a dose.
  check: absent(/\\d+ mg/)
## Behavioral
- [short] At most 5 words.
  check: words(max=5)
- [answers] Answer what was asked.
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "health.md"
    path.write_text(SPEC)
    return path


def run(*words: object) -> None:
    app([str(word) for word in words], exit_on_error=False, result_action="return_value")


def test_check_says_what_is_in_a_spec(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("check", file)
    out = capsys.readouterr().out
    assert f"{file}: Health, version 1\n3 rules: 1 safety, 2 behavioral" in out
    assert "2 decided by a check, 1 by a judge" in out
    assert "safety      no-dose  check  Never state a dose.\n" in out
    assert "behavioral  answers  judge  Answer what was asked.\n" in out
    assert "warning" not in out


def test_check_marks_a_response(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("check", file, "--response", "Take 10 mg.")
    out = capsys.readouterr().out
    assert 'NO     safety      no-dose  "10 mg" occurs' in out
    assert "YES    behavioral  short    3 words, at most 5 allowed" in out
    assert "judge  behavioral  answers" in out
    response = file.with_name("response.txt")
    response.write_text("One two three four five six.")
    run("check", file, "--text", response)
    assert "NO     behavioral  short    6 words" in capsys.readouterr().out
    run("check", file, "--response", "")
    assert "YES    behavioral  short    0 words" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["markdown", "yaml", "specbench"])
def test_check_converts(file: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    run("check", file, "--to", format)
    printed = capsys.readouterr()
    read = read_spec(printed.out, "health", format)
    assert [rule.text for rule in read.rules] == [rule.text for rule in load_spec(file).rules]
    if format == "specbench":
        assert "left out" in printed.err
        assert "check of 2 rules" in printed.err
    else:
        assert read == load_spec(file)
        assert printed.err == ""


def test_check_reads_all_files_and_reports_all_that_are_wrong(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = file.with_name("one.md"), file.with_name("two.md")
    one.write_text("## Safety\n- x\n  chek: y\n")
    with pytest.raises(BadInput) as caught:
        run("check", one, file, two)
    assert "one.md:3" in str(caught.value)
    assert "two.md" in str(caught.value)
    assert "Health, version 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["check", "{file}", "--text", "a", "--response", "b"],
        ["check", "{file}", "{file}", "--to", "yaml"],
        ["check", "{file}", "--to", "yaml", "--response", "a"],
        ["check", "{file}", "--text", "nowhere.txt"],
        ["diff", "{file}", "nowhere.md"],
    ],
)
def test_wrong_use_is_bad_input(file: Path, words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        run(*(word.format(file=file) for word in words))
    assert caught.value.exit_code == 2


def test_diff(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("diff", file, file)
    assert capsys.readouterr().out == "no difference\n"
    other = file.with_name("other.md")
    other.write_text(SPEC.replace("5 words", "9 words").replace("max=5", "max=9"))
    run("diff", file, other)
    assert capsys.readouterr().out == (
        "~ [short] behavioral\n"
        "    text: At most 5 words. -> At most 9 words.\n"
        "    check: words(max=5) -> words(max=9)\n"
    )


def warned(text: str) -> str:
    return "\n".join(warnings(read_spec(text, "a.md", "markdown")))


def test_a_spec_that_empty_text_follows_is_warned_about() -> None:
    assert "an empty answer follows every rule" in warned(
        "## Behavioral\n- x\n  check: words(max=9)\n"
    )
    assert "an empty answer" in warned('## Safety\n- x\n  check: absent("y")\n')
    # Empty text is caught, though by no rule on the question.
    headed = '## Behavioral\n- x\n  check: headings("A")\n'
    assert "no rule is about answering" in warned(headed)
    assert "no rule is about answering" in warned("## Safety\n- x\n")


@pytest.mark.parametrize(
    "check",
    ["on_topic(words=2)", "words(min=5)", "all(sentences(min=1), words(max=9))", "lix(max=50)"],
)
def test_a_rule_that_asks_for_an_answer_is_enough(check: str) -> None:
    assert warned(f"## Behavioral\n- x\n  check: {check}\n") == ""


def test_a_judged_behavioral_rule_is_enough() -> None:
    assert warned("## Behavioral\n- Answer what was asked.\n") == ""


def test_other_things_that_are_likely_wrong() -> None:
    assert "only an empty answer follows it" in warned(
        "## Behavioral\n- y\n- x\n  check: all(words(max=0))\n"
    )
    assert "the fallback itself violates it" in warned(
        '---\nfallback: Ask a doctor.\n---\n## Safety\n- x\n  check: absent("doctor")\n'
        "## Behavioral\n- y\n"
    )
