"""The run folder: one writer, one identity, files whole or not at all."""

from __future__ import annotations

import json

import pytest

from adhere.errors import BadInput
from adhere.records import RunFolder


def record(**identity):
    return {
        "created": "2026-01-01T00:00:00+00:00",
        "identity": {"spec": "s", "methods": {"a": {"n": 1}}, **identity},
    }


def row(case="c", method="a", **more):
    return {"suite": "s", "case": case, "model": "m", "method": method, "repeat": 0, **more}


def test_one_writer(tmp_path):
    with RunFolder(tmp_path / "r"), pytest.raises(BadInput, match="another adhere process"):
        RunFolder(tmp_path / "r")
    RunFolder(tmp_path / "r").close()


def test_a_path_under_a_regular_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(BadInput, match="regular file"):
            RunFolder(path)


def test_a_folder_with_other_files_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match="other files"):
        RunFolder(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_another_identity_is_refused_and_every_field_named(tmp_path):
    with RunFolder(tmp_path / "r") as folder:
        folder.claim(record())
        before = (tmp_path / "r" / "run.yaml").read_bytes()
        with pytest.raises(BadInput) as caught:
            folder.claim(record(spec="t", methods={"a": {"n": 2}, "b": {}}))
        assert "spec: " in str(caught.value)
        assert "methods.a" in str(caught.value)
        assert (tmp_path / "r" / "run.yaml").read_bytes() == before


def test_a_new_method_extends_the_run(tmp_path):
    with RunFolder(tmp_path / "r") as folder:
        folder.claim(record())
        folder.claim(record(methods={"b": {}}))
        assert folder.read_record()["identity"]["methods"] == {"a": {"n": 1}, "b": {}}
        with pytest.raises(BadInput, match=r"methods\.a"):
            folder.claim(record(methods={"a": {"n": 9}}))


def test_rows_are_replaced_by_key_and_exported_in_order(tmp_path):
    with RunFolder(tmp_path / "r") as folder:
        folder.start_rows([])
        folder.put_row(row("c2", text="\u2028 line\nbreak"))
        folder.put_row(row("c1", text="old"))
        folder.put_row(row("c1", text="new"))
        order = [("s", c, "m", "a", 0) for c in ("c1", "c2")]
        assert [r["text"] for r in folder.export_rows(order)] == ["new", "\u2028 line\nbreak"]
    lines = (tmp_path / "r" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["c1", "c2"]


def test_a_torn_results_file_is_made_anew_from_the_journal(tmp_path):
    with RunFolder(tmp_path / "r") as folder:
        folder.claim(record())
        folder.start_rows([])
        folder.put_row(row("c1"))
    results = tmp_path / "r" / "results.jsonl"
    results.write_text(results.read_text()[:20])
    with RunFolder(tmp_path / "r") as folder:
        folder.start_rows([])
    assert json.loads(results.read_text())["case"] == "c1"


def test_discard_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.discard()
    assert not (tmp_path / "r").exists()


def test_a_damaged_record_is_named(tmp_path):
    with RunFolder(tmp_path / "r") as folder:
        folder.claim(record())
    (tmp_path / "r" / "run.yaml").write_text("identity: [")
    with RunFolder(tmp_path / "r") as folder, pytest.raises(BadInput, match=r"run\.yaml"):
        folder.claim(record())
