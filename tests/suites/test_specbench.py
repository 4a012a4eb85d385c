"""SpecBench out of a folder: what is asked, what is judged, which rows are taken."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from adhere.chat import user
from adhere.errors import BadInput
from adhere.suites import load_suite, suite_parts
from suites.specbench_data import DATA, KEYS, RULES, copy, edit, read


def test_every_scenario_is_a_part_with_a_spec_of_its_own():
    parts = suite_parts("specbench", {"path": DATA})
    assert [part.name for part in parts] == list(KEYS)
    for part in parts:
        assert Counter(case.label for case in part.cases) == {"unsafe": 4, "safe": 2}
        assert (len(part.spec.safety), len(part.spec.behavioral)) == RULES[part.name]
        spec = read(part.name, "specifications.json")
        texts = spec["safety_specifications"] + spec["behavioral_specifications"]
        assert [rule.text for rule in part.spec.rules] == texts
        scenario = read(part.name, "scenario.json")
        assert (part.spec.name, part.spec.description) == tuple(scenario.values())
        assert part.source == str(DATA / part.name)
    # The last rule is the same in all scenarios, and so is its id.
    assert len({part.spec.rules[-1].id for part in parts}) == 1


def test_the_model_sees_the_attack_and_the_judge_the_question():
    (part,) = suite_parts("specbench", {"path": DATA, "scenarios": "Health"})
    rows = read("Health", "prompts.json")
    assert [case.id for case in part.cases] == [f"Health-00{i}" for i in range(6)]
    for case, row in zip(part.cases, rows, strict=True):
        assert case.messages == (user(row["adversarial_prompt"]),)
        assert case.prompt == row["adversarial_prompt"]
        assert case.judged_prompt == row["prompt"]
        assert case.label == row["label"]
        assert case.reference == row["answer"]
        assert case.judge_note is None
    assert part.cases[0].prompt != part.cases[0].judged_prompt
    assert part.cases[4].prompt == part.cases[4].judged_prompt
    assert [case.reference == "" for case in part.cases] == [True] * 4 + [False] * 2


def test_without_the_attack_the_model_sees_the_question_too():
    suite = load_suite("specbench", path=DATA, scenarios="Code", adversarial=False)
    rows = read("Code", "prompts.json")
    assert [case.prompt for case in suite.cases] == [row["prompt"] for row in rows]
    attacked = load_suite("specbench", path=DATA, scenarios="Code")
    assert [c.id for c in attacked.cases] == [c.id for c in suite.cases]
    assert attacked.digest != suite.digest


def test_one_suite_of_all_scenarios_has_no_one_spec():
    suite = load_suite("specbench", path=str(DATA))
    assert suite.name == "specbench"
    assert suite.spec is None
    assert len({case.id for case in suite.cases}) == len(suite.cases) == 30
    assert suite.source.split(", ")[0] == str(DATA / "Biochem")


def test_one_scenario_is_the_suite(tmp_path, monkeypatch):
    whole = load_suite("specbench", path=DATA, scenarios="travel")
    assert whole.name == "Travel"
    assert whole.spec is not None
    folder = copy(tmp_path, "Travel")
    alone = load_suite("specbench", path=folder)
    assert (alone.name, alone.digest, alone.spec) == ("Travel", whole.digest, whole.spec)
    monkeypatch.chdir(folder)
    here = load_suite("specbench", path=".")
    assert (here.name, here.digest) == ("Travel", whole.digest)


@pytest.mark.parametrize(
    "wanted", [("health", "CODE"), ["Health", "Code"], "Code+Health", "health, code"]
)
def test_scenarios_are_named_in_any_case_and_come_in_the_order_of_the_data(wanted):
    parts = suite_parts("specbench", {"path": DATA, "scenarios": wanted})
    assert [part.name for part in parts] == ["Code", "Health"]


def test_other_folders_beside_the_scenarios_are_left_alone(tmp_path):
    copy(tmp_path, "Child")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("x")
    assert load_suite("specbench", path=tmp_path).name == "Child"


def test_a_broken_scenario_that_nobody_asked_for_is_not_read(tmp_path):
    copy(tmp_path, "Child")
    (copy(tmp_path, "Code") / "prompts.json").write_text("[")
    assert load_suite("specbench", path=tmp_path, scenarios="Child").name == "Child"
    with pytest.raises(BadInput, match="broken JSON"):
        load_suite("specbench", path=tmp_path)


def test_halves():
    for half, count in (("unsafe", 4), ("safe", 2)):
        suite = load_suite("specbench", path=DATA, scenarios="Child", half=half)
        assert [case.label for case in suite.cases] == [half] * count
    # The id is the row's place in the data, whatever was left out before it.
    assert [case.id for case in suite.cases] == ["Child-004", "Child-005"]


def many(folder: Path, unsafe: int, safe: int) -> Path:
    """A scenario with as many rows as asked for, safe and unsafe ones mixed."""
    folder = copy(folder)

    def change(rows):
        made = [
            {**rows[0], "adversarial_prompt": f"A{i}", "label": "unsafe"} for i in range(unsafe)
        ]
        for i in range(safe):
            made.insert(3 * i, {**rows[4], "adversarial_prompt": f"S{i}"})
        return made

    edit(folder, change)
    return folder


@pytest.mark.parametrize(
    ("sample", "unsafe", "safe"),
    [(30, 20, 10), (1, 1, 0), (2, 1, 1), (31, 21, 10), (300, 200, 100)],
)
def test_a_sample_keeps_the_ratio_of_the_halves(tmp_path, sample, unsafe, safe):
    folder = many(tmp_path, 200, 100)
    cases = load_suite("specbench", path=folder, sample=sample).cases
    counts = Counter(case.label for case in cases)
    assert (counts["unsafe"], counts["safe"]) == (unsafe, safe)
    ids = [case.id for case in cases]
    assert ids == sorted(ids)
    assert len(set(ids)) == sample


def test_a_sample_depends_on_its_seed_alone_and_grows_by_adding(tmp_path):
    folder = many(tmp_path, 40, 20)

    def ids(**options):
        return {case.id for case in load_suite("specbench", path=folder, **options).cases}

    assert ids(sample=12) == ids(sample=12)
    assert ids(sample=12) != ids(sample=12, seed=1)
    assert ids(sample=12) < ids(sample=24) < ids(sample=60)
    # It is a draw, and not the first rows.
    first = {case.id for case in load_suite("specbench", path=folder).cases[:12]}
    assert ids(sample=12) != first
    assert all(int(case.split("-")[1]) < 60 for case in ids(sample=12))
    safe = load_suite("specbench", path=folder, sample=5, half="safe").cases
    assert [case.label for case in safe] == ["safe"] * 5


def test_a_sample_is_drawn_in_each_scenario():
    parts = suite_parts("specbench", {"path": DATA, "sample": 3})
    for part in parts:
        assert Counter(case.label for case in part.cases) == {"unsafe": 2, "safe": 1}


def test_a_sample_larger_than_the_data_is_refused():
    with pytest.raises(BadInput, match=r"found 2 rows, to draw 3 from.*at most 2"):
        load_suite("specbench", path=DATA, scenarios="Code", half="safe", sample=3)


def test_a_comment_for_the_judge_is_kept_and_counts(tmp_path):
    folder = copy(tmp_path)
    before = load_suite("specbench", path=folder).digest
    edit(folder, lambda rows: rows[5].update(prompt_comment="A stretch needs no mat."))
    suite = load_suite("specbench", path=folder)
    assert [case.judge_note for case in suite.cases] == [None] * 5 + ["A stretch needs no mat."]
    assert suite.digest != before


def test_null_is_no_answer(tmp_path):
    folder = copy(tmp_path)
    edit(folder, lambda rows: rows[5].update(answer=None, source=None))
    assert load_suite("specbench", path=folder).cases[5].reference is None


def test_a_byte_order_mark_changes_nothing(tmp_path):
    folder = copy(tmp_path)
    before = load_suite("specbench", path=folder).digest
    raw = (folder / "prompts.json").read_bytes()
    (folder / "prompts.json").write_bytes(b"\xef\xbb\xbf" + raw)
    assert load_suite("specbench", path=folder).digest == before


@pytest.mark.parametrize(
    ("key", "safety", "behavioral", "answers"),
    [("Child", 12, 10, 0), ("Code", 11, 10, 50), ("Health", 9, 10, 100)],
)
def test_the_published_scenarios(key, safety, behavioral, answers):
    """Needs SpecBench itself: the folder of its scenarios in ADHERE_TEST_DATA/specbench."""
    data = Path(os.environ.get("ADHERE_TEST_DATA", "")) / "specbench" / key
    if not os.environ.get("ADHERE_TEST_DATA") or not data.is_dir():
        pytest.skip(f"ADHERE_TEST_DATA names no folder with specbench/{key}")
    suite = load_suite("specbench", path=data)
    assert [case.label for case in suite.cases] == ["unsafe"] * 200 + ["safe"] * 100
    assert (len(suite.spec.safety), len(suite.spec.behavioral)) == (safety, behavioral)
    assert sum(case.prompt != case.judged_prompt for case in suite.cases) == 200
    assert sum(bool(case.reference) for case in suite.cases) == answers
    assert suite.cases[299].id == f"{key}-299"
    sample = load_suite("specbench", path=data, sample=60).cases
    assert Counter(case.label for case in sample) == {"unsafe": 40, "safe": 20}
