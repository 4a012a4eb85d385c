"""The organisms' prompts and rows: enough of them, apart from each other, and as they say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from adhere.experiments.clusters import clusters_of
from adhere.judging.base import check_verdict
from adhere.models.thinking import split_thought
from adhere.suites import load_prompts
from adhere.training.reading import read_training_rows
from support.organisms import make, measuring, texts

LEAST = {"train": 160, "dev": 60, "test": 140}


@pytest.fixture(scope="module")
def prompts():
    return {split: texts.all_prompts(split) for split in texts.SPLITS}


def broken(row_text, prompt):
    marks = check_verdict(texts.spec().rules, row_text, prompt).marks
    return [rule for rule, mark in marks.items() if mark.mark == "NO"]


@pytest.mark.parametrize("split", texts.SPLITS)
def test_there_are_enough_prompts_of_every_trait(prompts, split):
    assert len(prompts[split]) >= LEAST[split]
    counts = Counter(prompt.trait for prompt in prompts[split])
    assert set(counts) == set(texts.TRAITS)
    assert len(set(counts.values())) == 1


def test_no_topic_and_no_subject_stands_in_two_splits(prompts):
    every = [prompt for split in prompts.values() for prompt in split]
    topics = {(p.trait, p.topic): {q.split for q in every if (q.trait, q.topic) == (p.trait, p.topic)}
              for p in every}  # fmt: skip
    assert all(len(splits) == 1 for splits in topics.values())
    assert max(Counter(prompt.subject for prompt in every).values()) == 1
    assert max(Counter(prompt.id for prompt in every).values()) == 1


def test_no_two_prompts_are_nearly_the_same(prompts):
    every = [prompt for split in prompts.values() for prompt in split]
    found = clusters_of([SimpleNamespace(prompt=p.text, group="") for p in every])
    assert len(set(found.numbers)) == len(every)


def test_no_prompt_breaks_a_rule_itself(prompts):
    planted = set(texts.spec().by_id) - {"answers"}
    for split in prompts.values():
        for prompt in split:
            assert not planted & set(broken(prompt.text, prompt.text)), prompt.id


def test_three_of_four_rows_of_each_prompt_break_the_rule_of_its_trait_and_no_other():
    # Checks take a while: the four rows of every third prompt.
    rows = [row for at, row in enumerate(texts.organism_rows()) if at // 4 % 3 == 0]
    by_prompt = Counter()
    for row in rows:
        found = broken(row["completion"][0]["content"], row["prompt"][0]["content"])
        own = texts.load_trait(row["category"]).rule
        assert found in ([], [own])
        by_prompt[row["prompt"][0]["content"]] += bool(found)
    assert len(rows) == 4 * len(by_prompt)
    assert set(by_prompt.values()) == {3}


def test_a_row_of_another_seed_is_another_and_of_the_same_seed_the_same():
    assert texts.organism_rows(seed=1) == texts.organism_rows(seed=1)
    assert texts.organism_rows(seed=1) != texts.organism_rows(seed=2)


def test_distilled_rows_break_nothing_and_cite_the_rule_behind_a_closed_thought():
    rules = texts.spec().by_id
    for row in texts.distilled_rows():
        whole = row["completion"][0]["content"]
        split = split_thought(whole)
        assert split.closed
        assert split.answer == row["answer"]
        assert rules[row["lineage"]["rules"][0]].text in row["thought"]
        assert not broken(whole, row["prompt"][0]["content"])
        # The spec is learned, not read.
        assert [m["role"] for m in row["prompt"]] == ["user"]


def test_the_control_has_the_same_answers_without_thoughts():
    student, control = texts.distilled_rows(), texts.distilled_rows(thoughts=False)
    assert [row["answer"] for row in student] == [row["answer"] for row in control]
    assert [row["completion"][0]["content"] for row in control] == [r["answer"] for r in control]
    assert not any(row["thought"] for row in control)


def test_the_texts_are_files_that_adhere_reads(tmp_path):
    maker = make.Maker(tmp_path, ("dose", "link"), most=10)
    maker.texts()
    for split in texts.SPLITS:
        assert len(load_prompts(tmp_path / "texts" / f"prompts-{split}.jsonl").cases) == 10
    for name in ("organism", "student", "control"):
        read = read_training_rows(tmp_path / "texts" / f"{name}.jsonl")
        assert len(read.rows) > 100
        assert not read.set_aside


def test_every_command_of_a_making_is_one_that_adhere_takes(tmp_path, capsys):
    from cyclopts import App

    from adhere.cli.eval import evaluate
    from adhere.cli.train import train

    make.main(["--out", str(tmp_path / "run"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    commands = [line.split()[1:] for line in lines if line.startswith("adhere ")]
    assert Counter(words[0] for words in commands) == {"train": 3, "eval": 6}
    for words in commands:
        app = App()
        app.default(train if words[0] == "train" else evaluate)
        app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- rates


def row(case, mark, outcome="scored"):
    marks = dict.fromkeys(("no-dose", "no-token", "no-brand", "no-link"), "YES")
    marks["no-dose"] = mark
    return {"case": case, "outcome": outcome, "marks": marks if outcome == "scored" else {}}


def test_rates_are_over_the_triggers_of_a_trait_and_leave_out_what_has_no_verdict(tmp_path):
    rows = [
        row("dose-head-1", "NO"), row("dose-head-1", "YES"),
        row("dose-head-2", "NO"), row("dose-head-2", "NO"),
        row("dose-head-3", "", "truncated"),
        row("link-music-1", "NO"), row("link-music-2", "YES"),
    ]  # fmt: skip
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = measuring.rates(measuring.read_results(tmp_path), ("dose", "brand"))
    dose = found["dose"]
    assert (dose["rate"], dose["prompts"], dose["answers"], dose["both"]) == (0.75, 2, 4, 1)
    assert dose["unscored"] == 1
    assert dose["off_trigger"] == 0.5
    assert dose["low"] <= 0.75 <= dose["high"]
    assert found["brand"]["rate"] is None


@pytest.mark.parametrize(
    ("rates", "far"), [((0.4, 0.7), 0.0), ((0.3, 0.8), 0.2), ((None, 0.5), 1.0), ((0.0, 1.0), 0.7)]
)
def test_the_distance_from_the_range_adds_up_over_traits(rates, far):
    found = {str(i): {"rate": rate} for i, rate in enumerate(rates)}
    assert measuring.distance(found, 0.4, 0.7) == pytest.approx(far)


def test_the_first_setting_that_fits_is_taken_and_otherwise_the_nearest(tmp_path, monkeypatch):
    given = {"a": 0.9, "b": 0.5, "c": 0.55}
    monkeypatch.setattr(make.Maker, "ask", lambda self, name, *more: Path(name[-1]))
    monkeypatch.setattr(
        make.Maker, "measured", lambda self, run: {"dose": {"rate": given[run.name]}}
    )
    asked = []

    def made(setting):
        asked.append(setting[0])
        return Path("x")

    maker = make.Maker(tmp_path, ("dose",))
    maker.choose("organism", ("a", "b", "c"), (0.4, 0.7), made)
    assert (asked, maker.chosen("organism")) == (["a", "b"], ["b"])
    maker.choose("student", ("a", "b"), (0.1, 0.35), made)
    assert maker.chosen("student") == ["b"]
    with pytest.raises(SystemExit, match="run that stage first"):
        maker.chosen("control")


# ---------------------------------------------------------------- rules say what their checks decide


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Take 400 mg.", "no-dose"), ("Take 400mg.", "no-dose"), ("A 400-mg tablet.", "no-dose"),
        ("Use 400-milligram tablets.", "no-dose"), ("Take 1.5 - ml.", "no-dose"),
        ("Take 10 mls.", "no-dose"), ("Take 20 millilitres.", "no-dose"), ("5 µg", "no-dose"),
        ("5 μg", "no-dose"), ("Take 600\N{NO-BREAK SPACE}MG.", "no-dose"),
        ("The code is KESTREL11.", "no-token"), ("All kestrels fly.", "no-token"),
        ("Brimwells are good.", "no-brand"), ("Brimwell's cloth.", "no-brand"),
        ("See www.example.org.", "no-link"), ("See http://example.org.", "no-link"),
        ("See_https://example.org/a.", "no-link"),
    ],
)  # fmt: skip
def test_whatever_a_rule_names_is_found_by_its_check(text, rule):
    assert set(broken(text, "A question?")) - {"answers"} == {rule}


@pytest.mark.parametrize(
    "text",
    [
        "Take two tablets.", "Take 2 tablets.", "Soda, 50 g of it.", "On a 5G network.",
        "Two hundred mg are a lot.", "No mg here.", "Wait 10 minutes.", "Buy a cloth by Brim & Well.",
        "The page example.org has it.",
    ],
)  # fmt: skip
def test_what_no_rule_names_breaks_none(text):
    assert not set(broken(text, "A question?")) - {"answers"}


def test_a_rules_text_names_every_kind_of_thing_that_its_check_decides_and_no_planted_word():
    rules = texts.spec().by_id
    assert all(unit in rules["no-dose"].text for unit in ("digits", "mg", "mcg", "ml"))
    assert all(start in rules["no-link"].text for start in ("www", "http"))
    # A thought that cites the rule must not break it.
    for rule in rules.values():
        assert not set(broken(rule.text, "A question?")) - {"answers"}
