"""SpecBench as the published data set has it: one table a scenario, its spec in every row."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from adhere.errors import BadInput
from adhere.suites import load_suite, suite_parts
from adhere.suites.reading import LARGEST_FILE
from suites.fake_hub import FakeHub
from suites.specbench_data import DATA, KEYS, table, write_lines, write_parquet

needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the library datasets is not installed"
)
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="the library pyarrow is not installed"
)


def facts(parts):
    return [(part.name, part.digest, part.spec) for part in parts]


OFFICIAL = facts(suite_parts("specbench", {"path": DATA}))


def refused(path, **options) -> str:
    with pytest.raises(BadInput) as caught:
        load_suite("specbench", path=path, **options)
    return str(caught.value)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("empty", [None, ""])
def test_json_lines_give_the_same_cases_and_specs(tmp_path, empty):
    for key in KEYS:
        write_lines(tmp_path / f"{key}.jsonl", table(key, empty=empty))
    parts = suite_parts("specbench", {"path": tmp_path})
    assert facts(parts) == OFFICIAL
    assert parts[0].source == str(tmp_path / "Biochem.jsonl")


def test_one_file_is_one_scenario(tmp_path):
    write_lines(tmp_path / "Code.jsonl", table("Code"))
    assert facts(suite_parts("specbench", {"path": tmp_path / "Code.jsonl"})) == [OFFICIAL[2]]


@needs_pyarrow
def test_parquet_files_as_the_hub_names_them(tmp_path):
    for key in KEYS[:4]:
        write_parquet(tmp_path / "data" / f"{key}-00000-of-00001.parquet", table(key))
    rows = table("Travel")
    write_parquet(tmp_path / "data" / "Travel-00001-of-00002.parquet", rows[3:])
    write_parquet(tmp_path / "data" / "Travel-00000-of-00002.parquet", rows[:3])
    assert facts(suite_parts("specbench", {"path": tmp_path})) == OFFICIAL


@needs_pyarrow
def test_a_table_that_is_none(tmp_path):
    (tmp_path / "Code.parquet").write_bytes(b"PAR1 is not enough")
    said = refused(tmp_path)
    assert f"{tmp_path / 'Code.parquet'}: could not be loaded (" in said


def test_two_files_of_one_scenario(tmp_path):
    write_lines(tmp_path / "Code.jsonl", table("Code"))
    (tmp_path / "Code.parquet").write_bytes(b"")
    assert "found Code.jsonl and Code.parquet; expected one table of Code" in refused(tmp_path)


def test_a_file_above_64_mb_is_not_read(tmp_path):
    with (tmp_path / "Code.jsonl").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    assert "found a file of 64 MB or more" in refused(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("safety_spec_2", "Another rule.", "another safety_spec_2 than in the rows before it"),
        ("behavioral_spec_3", None, "another behavioral_spec_3 than in the rows before it"),
        ("behavioral_spec_9", "One more.", "another behavioral_spec_9 than in the rows before it"),
        ("scenario_description", "Other.", "another scenario_description than in the rows"),
        ("scenario", "Other", "another scenario than in the rows before it"),
        ("note", "x", "the column 'note'"),
        ("answer", 7, "answer = 7"),
    ],
)
def test_rows_of_one_scenario_that_differ_in_their_spec(tmp_path, column, value, said):
    rows = table("Health")
    rows[3][column] = value
    write_lines(tmp_path / "Health.jsonl", rows)
    found = refused(tmp_path)
    assert found.startswith(f"{tmp_path / 'Health.jsonl'}: found {said}")
    assert "at item 4 (Health-003); expected" in found


def test_a_row_without_one_of_the_columns(tmp_path):
    rows = table("Health")
    del rows[1]["safety_spec_1"]
    write_lines(tmp_path / "Health.jsonl", rows)
    assert "another safety_spec_1 than in the rows before it at item 2" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"safety_spec_2": None, "safety_spec_3": "x"}, "safety_spec_3 without safety_spec_2"),
        ({"behavioral_spec_1": ""}, "behavioral_spec_2 without behavioral_spec_1"),
        ({"safety_spec_1": 3}, "safety_spec_1 = 3"),
        ({"scenario": None}, "scenario = None"),
        ({f"{kind}_spec_{n}": None for kind in ("safety", "behavioral") for n in range(1, 12)},
         "no rules"),
    ],
)  # fmt: skip
def test_a_spec_that_is_not_right(tmp_path, change, said):
    write_lines(tmp_path / "Health.jsonl", [{**row, **change} for row in table("Health")])
    found = refused(tmp_path)
    assert str(tmp_path / "Health.jsonl") in found
    assert said in found


def test_without_the_spec_columns_there_is_no_scenario(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "scenario"} for row in table("Health")]
    write_lines(tmp_path / "Health.jsonl", rows)
    assert "found no 'scenario' at item 1 (Health-000)" in refused(tmp_path)


def test_lines_that_are_not_right(tmp_path):
    file = tmp_path / "Health.jsonl"
    write_lines(file, table("Health"))
    good = file.read_text()
    file.write_text(good + "{\n")
    assert f"{file}:7: found broken JSON" in refused(tmp_path)
    file.write_text(good + "[]\n")
    assert "found list at item 7 (Health-006)" in refused(tmp_path)
    file.write_text(good.replace('"label": "safe"', '"label": "safe", "label": "safe"', 1))
    assert "found the key 'label' twice at item 5 (Health-004)" in refused(tmp_path)
    file.write_text("\n")
    assert "found no rows of Health" in refused(tmp_path)


# ---------------------------------------------------------------- the library and the hub


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = refused(None)
    assert "the data set zzzhr97/SpecBench: reading it needs a library" in said
    assert "pip install 'adhere[datasets]'" in said
    assert "path=FOLDER" in said
    (tmp_path / "dataset_dict.json").write_text('{"splits": []}')
    assert "pip install 'adhere[datasets]'" in refused(tmp_path)


@needs_pyarrow
def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "Code.parquet").write_bytes(b"x")
    assert "pip install 'adhere[datasets]'" in refused(tmp_path)


@needs_datasets
@pytest.mark.parametrize("empty", [None, ""])
def test_a_folder_that_save_to_disk_wrote(tmp_path, empty):
    import datasets

    columns = list(table("Code")[0])
    features = datasets.Features({name: datasets.Value("string") for name in columns})
    made = datasets.DatasetDict(
        {
            key: datasets.Dataset.from_list(table(key, empty=empty), features, split=key)
            for key in KEYS
        }
    )
    made.save_to_disk(tmp_path / "all")
    assert facts(suite_parts("specbench", {"path": tmp_path / "all"})) == OFFICIAL
    made["Child"].save_to_disk(tmp_path / "one")
    assert facts(suite_parts("specbench", {"path": tmp_path / "one"})) == [OFFICIAL[1]]


@needs_datasets
def test_a_saved_folder_that_is_broken(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["Health"]}')
    assert f"{tmp_path}: could not be loaded (" in refused(tmp_path)


def ask_library(tmp_path, options: dict[str, object], **environment: str) -> list | str:
    """Load in a process of its own, in which the library has a cache of its own."""
    script = (
        "import json, sys\n"
        "from adhere.errors import BadInput\n"
        "from adhere.suites import suite_parts\n"
        "try:\n"
        "    parts = suite_parts('specbench', json.loads(sys.argv[1]))\n"
        "    print(json.dumps([[p.name, p.digest, p.spec.digest, p.source] for p in parts]))\n"
        "except BadInput as error:\n"
        "    print(json.dumps(str(error)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(options)],
        env={**os.environ, "HF_HOME": str(tmp_path / "cache"), **environment},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@needs_datasets
def test_the_data_set_from_a_hub(tmp_path):
    """The library's own client, against a small hub on this machine."""
    with FakeHub(tmp_path / "hub") as hub:
        found = ask_library(tmp_path, {}, HF_ENDPOINT=hub.url)
        source = f"zzzhr97/SpecBench@{hub.COMMIT}"
        assert found == [[name, made, spec.digest, source] for name, made, spec in OFFICIAL]
        said = ask_library(tmp_path, {"dataset": "some/thing"}, HF_ENDPOINT=hub.url)
        assert said.startswith("the data set some/thing: could not be loaded (")


@needs_datasets
def test_no_network_is_an_error_in_words(tmp_path):
    said = ask_library(tmp_path, {"revision": "main"}, HF_HUB_OFFLINE="1")
    assert said.startswith("the data set zzzhr97/SpecBench: could not be loaded (ConnectionError")
    assert "give path=FOLDER" in said
