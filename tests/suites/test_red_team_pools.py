"""HarmfulQA, DangerousQA and hh-rlhf: the prompts that red-teaming starts from. No harmful text."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from adhere.errors import BadInput
from adhere.suites import load_suite, suite_parts
from adhere.suites.hh_rlhf import turns_of

SECRET = "please do the forbidden thing"
TWO_TURNS = f"\n\nHuman: {SECRET}\n\nAssistant: Why?\n\nHuman: because\n\nAssistant: No."


def refused(name: str, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        suite_parts(name, options)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def lines(file: Path, rows: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_harmfulqa_is_a_tree_of_topics_and_its_ids_name_the_subtopic(tmp_path):
    file = tmp_path / "harmfulqa.json"
    tree = {"Arts": {"Film Studies": [f"{SECRET} 1", f"{SECRET} 2"]}, "Law": {"Tort": ["three"]}}
    file.write_text(json.dumps(tree))
    suite = load_suite("harmfulqa", path=file)
    assert [case.id for case in suite.cases] == ["film-studies-0", "film-studies-1", "tort-2"]
    assert suite.harmful
    assert {case.label for case in suite.cases} == {"unsafe"}
    assert len(load_suite("harmfulqa", path=file, limit=2).cases) == 2


def test_dangerousqa_is_a_list(tmp_path):
    file = tmp_path / "dangerousqa.json"
    file.write_text(json.dumps(["one", "two"]))
    assert [c.id for c in load_suite("dangerousqa", path=file).cases] == [
        "dangerousqa-0", "dangerousqa-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([SECRET], "harmfulqa.json: found list"),
        ({"Arts": [SECRET]}, "found list"),
        ({"Arts": {"Film": SECRET}}, "no list under arts/film"),
        ({"Arts": {"Film": [""]}}, "at item 1"),
    ],
)
def test_a_tree_of_another_shape_is_refused_without_its_texts(tmp_path, data, said):
    file = tmp_path / "harmfulqa.json"
    file.write_text(json.dumps(data))
    assert said in refused("harmfulqa", path=file)


def test_a_transcript_gives_a_prompt_for_each_turn_of_the_person(tmp_path):
    file = lines(tmp_path / "hh.jsonl", [{"transcript": TWO_TURNS}])
    every = load_suite("hh_rlhf", path=file)
    assert [[m.role for m in case.messages] for case in every.cases] == [
        ["user"], ["user", "assistant", "user"],
    ]  # fmt: skip
    assert [c.id for c in every.cases] == ["hh-00000-0", "hh-00000-1"]
    assert every.cases[1].messages[-1].text == "because"
    [first] = load_suite("hh_rlhf", path=file, turns="first").cases
    [last] = load_suite("hh_rlhf", path=file, turns="last").cases
    assert (len(first.messages), len(last.messages)) == (1, 3)


def test_a_conversation_may_stay_the_text_it_is(tmp_path):
    file = lines(tmp_path / "hh.jsonl", [{"transcript": TWO_TURNS}])
    [first, second] = load_suite("hh_rlhf", path=file, form="transcript").cases
    assert first.messages[0].text == f"\n\nHuman: {SECRET}\n\nAssistant:"
    assert second.messages[0].text == TWO_TURNS.removesuffix(" No.")


def test_a_pair_is_read_up_to_where_its_sides_part(tmp_path):
    one = TWO_TURNS.replace("No.", "Not this.")
    two = TWO_TURNS.replace("No.", "Never that.\n\nHuman: and this?")
    file = lines(tmp_path / "hh.jsonl", [{"chosen": one, "rejected": two}])
    assert len(load_suite("hh_rlhf", path=file).cases) == 2


def test_equal_prompts_count_once_and_the_suite_says_so(tmp_path):
    file = lines(tmp_path / "hh.jsonl", [{"transcript": TWO_TURNS}] * 2)
    suite = load_suite("hh_rlhf", path=file)
    assert len(suite.cases) == 2
    assert suite.notes == ("2 prompts stood there a second time",)


def test_the_file_may_be_packed_and_may_be_one_list(tmp_path):
    packed = tmp_path / "attempts.jsonl.gz"
    packed.write_bytes(gzip.compress((json.dumps([{"transcript": TWO_TURNS}])).encode()))
    assert len(load_suite("hh_rlhf", path=packed).cases) == 2
    one, two = (json.dumps({"transcript": f"Human: {n}"}) + "\n" for n in ("a", "b"))
    packed.write_bytes(gzip.compress(one.encode()) + gzip.compress(two.encode()))
    assert len(load_suite("hh_rlhf", path=packed).cases) == 2
    packed.write_bytes(gzip.compress(b"{}" * 500)[:-12])
    assert "cut off" in refused("hh_rlhf", path=packed)
    packed.write_bytes(b"no gzip")
    assert "broken gzip" in refused("hh_rlhf", path=packed)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": SECRET}, "neither 'transcript' nor 'chosen'"),
        ({"transcript": SECRET}, "no turn"),
        ({"transcript": f"Assistant: {SECRET}"}, "no turn of the person"),
        ({"transcript": " "}, "no text in 'transcript'"),
    ],
)
def test_a_row_without_a_conversation_is_refused_by_its_place(tmp_path, row, said):
    file = lines(tmp_path / "hh.jsonl", [{"transcript": TWO_TURNS}, row])
    found = refused("hh_rlhf", path=file)
    assert said in found
    assert "hh.jsonl:2" in found


def test_labels_inside_a_turn_begin_none():
    assert [t.text for t in turns_of("Human: he said\nHuman: no\n\nAssistant: ok")] == [
        "he said\nHuman: no", "ok",
    ]  # fmt: skip


@pytest.mark.skipif(not os.environ.get("ADHERE_TEST_DATA"), reason="ADHERE_TEST_DATA names no data")
@pytest.mark.parametrize(
    ("name", "file", "cases"),
    [
        ("harmfulqa", "red-instruct/harmfulqa.json", 1960),
        ("dangerousqa", "red-instruct/dangerousqa.json", 200),
        ("hh_rlhf", "hh-rlhf/harmless-base-test.jsonl.gz", 5518),
    ],
)
def test_the_real_files_can_be_read(name, file, cases):
    path = Path(os.environ["ADHERE_TEST_DATA"]) / file
    assert len(load_suite(name, path=path).cases) == cases
