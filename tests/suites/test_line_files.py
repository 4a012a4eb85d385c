"""Prompts, responses and labels: what all files of JSON lines have in common."""

from __future__ import annotations

import pytest

from adhere.errors import BadInput
from adhere.suites import load_prompts
from adhere.suites.labels_file import read_labels
from adhere.suites.reading import LONGEST_LINE
from adhere.suites.responses_file import load_responses

GOOD = {
    load_prompts: b'{"prompt": "Why?"}\n',
    load_responses: b'{"prompt": "Why?", "response": "So."}\n',
    read_labels: b'{"prompt": "Why?", "response": "So.", "rule": "r", "mark": "NO"}\n',
}
READERS = pytest.mark.parametrize("read", list(GOOD))


def refused(read, file) -> str:
    with pytest.raises(BadInput) as caught:
        read(file)
    return str(caught.value)


@READERS
def test_blank_lines_and_a_byte_order_mark_are_nothing(tmp_path, read):
    file = tmp_path / "f.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD[read] + b"\n  \n")
    read(file)
    file.write_bytes(b"\n")
    assert f"{file}: found no " in refused(read, file)


@READERS
@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"{", "found broken JSON"),
        (b"[]", "found list; expected an object such as"),
        (b'{"prompt": NaN}', "NaN is no JSON number"),
        (b'{"prompt": "\xe9"}', "found bytes that are no UTF-8"),
        (b'{"prompt": "Why?", "speed": 3}', "the key 'speed'"),
        (b" " * (LONGEST_LINE + 1), "found a line of more than 4 MB"),
        (b"[" * 100_000, "found broken JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, read, line, found):
    file = tmp_path / "f.jsonl"
    file.write_bytes(GOOD[read] + b"\n" + line + b"\n")
    said = refused(read, file)
    assert said.startswith(f"{file}:3: ")
    assert found in said


@READERS
def test_a_file_that_is_not_there(tmp_path, read):
    assert f"{tmp_path / 'f.jsonl'}: cannot be read (No such file" in refused(
        read, tmp_path / "f.jsonl"
    )
    assert "cannot be read" in refused(read, tmp_path)
    assert "cannot be read" in refused(read, "a\0b")


def test_a_prompts_file_says_that_nothing_was_run(tmp_path):
    file = tmp_path / "f.jsonl"
    file.write_bytes(GOOD[load_prompts] * 2)
    assert f"{file}:2: found the same prompt as in line 1" in refused(load_prompts, file)
    file.write_bytes(b'{"prompt": "Why?", "id": 1}\n{"prompt": "How?", "id": "1"}\n')
    assert f"{file}:2: found the id '1', which line 1 has too" in refused(load_prompts, file)
    file.write_bytes(b"{")
    assert refused(load_prompts, file).endswith("Nothing was run.")
    assert refused(load_prompts, tmp_path / "no").endswith("Give a JSONL file with --prompts.")


def test_a_prompts_file_that_was_distilled_on_is_read_as_it_is(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": "a", "prompt": "Hi?", "category": ["x"], "note": "Say hi."}\n')
    [case] = load_prompts(file).cases
    assert (case.id, case.prompt) == ("a", "Hi?")
