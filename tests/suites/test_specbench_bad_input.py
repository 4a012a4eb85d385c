"""Every mistake in SpecBench's files is named: the file, the item, what was found and expected."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adhere.errors import BadInput
from adhere.suites import load_suite, suite_parts
from adhere.suites.reading import LARGEST_FILE
from suites.specbench_data import DATA, copy, edit


def refused(folder, **options) -> str:
    with pytest.raises(BadInput) as caught:
        load_suite("specbench", path=folder, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("name", ["scenario.json", "specifications.json", "prompts.json"])
def test_a_missing_file(tmp_path, name):
    folder = copy(tmp_path)
    (folder / name).unlink()
    said = refused(tmp_path)
    assert f"{folder}: found no {name}" in said
    assert "expected scenario.json, specifications.json and prompts.json" in said


def test_a_missing_folder(tmp_path):
    said = refused(tmp_path / "nothing")
    assert f"{tmp_path / 'nothing'}: found no such folder; expected a folder" in said


def test_a_folder_without_a_scenario(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "found no scenario in it" in refused(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    assert "found no scenario in it" in refused(tmp_path / "file.txt")


def test_the_folder_above_names_the_right_one(tmp_path):
    (tmp_path / "data").mkdir()
    copy(tmp_path / "data")
    assert f"give path={tmp_path / 'data'}" in refused(tmp_path)


def test_an_unknown_scenario():
    said = refused(DATA, scenarios="Helth")
    assert f"{DATA}: unknown scenario 'Helth'; did you mean 'Health'?" in said
    assert "There are: Biochem, Child, Code, Health, Travel" in said
    assert "did you mean" not in refused(DATA, scenarios=["Code", "Zzz"])


def test_a_half_that_is_not_there(tmp_path):
    folder = copy(tmp_path)
    edit(folder, lambda rows: rows[:4])
    assert f"{folder}: found no safe rows" in refused(folder, half="safe")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "found an empty list; expected a list of prompts"),
        ("{}", "found an object; expected a list of prompts"),
        ('{"a": 1}', "found an object; expected a list of prompts"),
        ("3", "found int; expected a list of prompts"),
        ("", "broken JSON"),
        ("[{}", "broken JSON"),
        ("[" * 100_000, "broken JSON (nested too deep)"),
        ("[NaN]", "NaN is no JSON number"),
        ('["text"]', "found str at item 1 (Health-000)"),
        ("[[]]", "found list at item 1 (Health-000)"),
    ],
)
def test_prompts_that_are_no_list_of_rows(tmp_path, text, found):
    folder = copy(tmp_path)
    (folder / "prompts.json").write_text(text)
    said = refused(folder)
    assert str(folder / "prompts.json") in said
    assert found in said


def test_broken_json_names_its_line(tmp_path):
    folder = copy(tmp_path)
    (folder / "prompts.json").write_text('[\n\n{"a" 1}]')
    assert f"{folder / 'prompts.json'}:3: found broken JSON" in refused(folder)


CHANGES = {
    "a missing column": (
        lambda row: row.pop("source"),
        "found no 'source'", "every row with adversarial_prompt, prompt, label, source, answer",
    ),
    "an unknown column": (lambda row: row.update(notes="x"), "the column 'notes'", "only adv"),
    "an unknown label": (lambda row: row.update(label="attack"), "label = 'attack'", "unsafe or"),
    "a label in capitals": (lambda row: row.update(label="SAFE"), "label = 'SAFE'", "unsafe or"),
    "a label that is no text": (lambda row: row.update(label=["safe"]), "label = ['safe']", "uns"),
    "a number as an answer": (lambda row: row.update(answer=42), "answer = 42", "text, or null"),
    "a list as an answer": (lambda row: row.update(answer=["x"]), "answer = ['x']", "text, or null"),
    "an object as an answer": (lambda row: row.update(answer={"a": "b"}), "answer = ", "text, or"),
    "a source that is no text": (lambda row: row.update(source=1), "source = 1", "text, or null"),
    "a comment that is no text": (
        lambda row: row.update(prompt_comment=False), "prompt_comment = False", "text, or null",
    ),
    "an empty question": (lambda row: row.update(prompt=" \n"), "an empty prompt", "text"),
    "an empty attack": (
        lambda row: row.update(adversarial_prompt=""), "an empty adversarial_prompt", "text",
    ),
    "half of a character": (
        lambda row: row.update(prompt="a \ud83d b"), "half of a surrogate pair in prompt", "UTF-8",
    ),
    "no text as a question": (lambda row: row.update(prompt=None), "prompt = None", "text"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_that_is_not_right(tmp_path, name):
    change, found, expected = CHANGES[name]
    folder = copy(tmp_path)
    edit(folder, lambda rows: change(rows[2]) and None)
    said = refused(tmp_path)
    assert str(folder / "prompts.json") in said
    assert "at item 3 (Health-002); expected" in said
    before, after = said.split("; expected", 1)
    assert found in before
    assert expected in after


def test_a_key_that_stands_twice(tmp_path):
    folder = copy(tmp_path)
    file = folder / "prompts.json"
    text = file.read_text().replace('"label": "safe"', '"label": "unsafe", "label": "safe"', 1)
    file.write_text(text)
    said = refused(folder)
    assert f"{file}: found the key 'label' twice at item 5 (Health-004)" in said


PLACES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["scenario.json", "specifications.json", "prompts.json"]), at=PLACES)
def test_a_damaged_file_is_read_or_refused_and_never_more(tmp_path_factory, name, at):
    folder = copy(tmp_path_factory.mktemp("damaged"), "Code")
    raw = bytearray((folder / name).read_bytes())
    for place, value in at:
        raw[place % len(raw)] = value
    (folder / name).write_bytes(raw)
    try:
        suite = load_suite("specbench", path=folder)
    except BadInput as error:
        assert str(folder) in str(error)
    else:
        assert len(suite.cases) == 6
        assert len({case.id for case in suite.cases}) == 6


@pytest.mark.parametrize("name", ["scenario.json", "specifications.json", "prompts.json"])
def test_bytes_that_are_no_utf_8(tmp_path, name):
    folder = copy(tmp_path)
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw.replace(b"e", b"\xe9", 1))
    said = refused(folder)
    assert str(folder / name) in said
    assert "UTF-8" in said


def test_a_file_above_64_mb_is_not_read(tmp_path):
    folder = copy(tmp_path)
    with (folder / "prompts.json").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    said = refused(folder)
    assert f"{folder / 'prompts.json'}: found a file of 64 MB or more; expected at most" in said


def test_a_folder_in_a_files_place(tmp_path):
    folder = copy(tmp_path)
    (folder / "prompts.json").unlink()
    (folder / "prompts.json").mkdir()
    assert "found no prompts.json" in refused(folder)


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("specifications.json", {"safety_specifications": "x"}, "no list under safety"),
        ("specifications.json", {"safety_specifications": [1]}, "safety_specifications, item 1"),
        ("specifications.json", {"safety_specifications": []}, "no rules"),
        ("specifications.json", {"safety_rules": []}, 'the unknown key "safety_rules"'),
        ("scenario.json", {"name": 5, "description": ""}, "under name"),
        ("scenario.json", [], "no object"),
    ],
)
def test_a_spec_that_is_not_right(tmp_path, name, data, found):
    folder = copy(tmp_path)
    (folder / name).write_text(json.dumps(data))
    said = refused(folder)
    assert str(folder / name) in said
    assert found in said


def test_two_rows_that_ask_the_same(tmp_path):
    folder = copy(tmp_path)
    edit(folder, lambda rows: rows[3].update(adversarial_prompt=rows[1]["adversarial_prompt"]))
    said = refused(folder)
    assert "the same prompt at item 4 (Health-003) as at item 2 (Health-001)" in said
    assert "duplicates=share" in said
    assert len(load_suite("specbench", path=folder, duplicates="share").cases) == 6
    # Without the attack they ask two things.
    assert len(load_suite("specbench", path=folder, adversarial=False).cases) == 6


def test_two_scenarios_may_ask_the_same(tmp_path):
    copy(tmp_path, "Health")
    (tmp_path / "Health").rename(tmp_path / "Other")
    copy(tmp_path, "Health")
    assert len(load_suite("specbench", path=tmp_path).cases) == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"half": "both"}, "option 'half'"),
        ({"sample": 0}, "option 'sample'"),
        ({"sampel": 3}, "option 'sampel'"),
        ({"seed": "x"}, "option 'seed'"),
        ({"duplicates": "drop"}, "option 'duplicates'"),
        ({"revision": "main"}, "a folder has no revision"),
    ],
)
def test_a_wrong_option(options, said):
    with pytest.raises(BadInput, match="suite specbench") as caught:
        suite_parts("specbench", {"path": DATA, **options})
    assert said in str(caught.value)
    assert "Its options are: path, scenarios, adversarial, half, sample, seed" in str(caught.value)
