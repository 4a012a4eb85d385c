"""The sample that people label, and the file that their labels go to."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from adhere.chat import Mark
from adhere.errors import BadInput
from adhere.experiments.labeling import (
    LabelBook,
    draw_sample,
    import_labels,
    labels_path,
    open_sample,
    record_label,
)
from adhere.suites.labels_file import Label, read_labels

METHODS = ("vanilla", "align3", "best_of_n")
RULES = [
    {"id": "warm", "kind": "behavioral", "text": "Sound kind.", "check": None},
    {"id": "careful", "kind": "safety", "text": "Never state a dose.", "check": None},
    {"id": "short", "kind": "behavioral", "text": "Few words.", "check": "words(max=9)"},
    {"id": "open", "kind": "behavioral", "text": "Nobody decides this.", "check": None},
]


def make_row(case, method, marks, *, text=None, **more):
    row = {
        "suite": "prompts", "case": case, "label": "", "model": "local:tiny", "method": method,
        "repeat": 0, "messages": [{"role": "user", "content": f"Question {case}?"}],
        "prompt": f"Question {case}?", "text": text or f"Answer to {case}, {hash_of(case, method)}.",
        "outcome": "scored", "marks": marks,
        "deciders": {r: "check" if r == "short" else "judge-7" for r in marks},
        "mark_reasons": dict.fromkeys(marks, "SECRETREASON"),
    }  # fmt: skip
    return row | more


def hash_of(*parts):
    return random.Random("|".join(parts)).randrange(10**9)


def make_rows(cases=60, methods=METHODS, seed=3):
    rng = random.Random(seed)
    rows = []
    for number in range(cases):
        for method in methods:
            marks = {
                "warm": rng.choices(["YES", "NO", "NA"], [90, 6, 4])[0],
                "careful": rng.choices(["YES", "NO"], [95, 5])[0],
                "short": rng.choice(["YES", "NO"]),
            }
            rows.append(make_row(f"c{number:03d}", method, marks))
    return rows


def write_run(folder: Path, rows, rules=RULES, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "schema_version": 1, "finished": True, "rows": [], "headline": "",
        "spec": {"name": "Assistant", "version": "1", "digest": "d" * 64, "rules": rules},
    } | changes  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "run.yaml").write_text(yaml.safe_dump({"identity": {}}))
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", make_rows())


# ---------------------------------------------------------------- the sample


def test_every_stratum_gets_labels_and_rare_marks_as_many_as_common_ones(run):
    rows = make_rows()
    sizes = Counter(f"{r}|{row['marks'][r]}" for row in rows for r in ("warm", "careful"))
    sample = draw_sample(run, 25, 0)
    drawn = Counter(item.stratum for item in sample.items)
    assert dict(sample.strata) == sizes
    assert sample.population == 2 * 180
    assert sum(drawn.values()) == 25
    assert all(min(5, sizes[s]) <= drawn[s] <= 6 for s in sizes)
    assert drawn["careful|NO"] >= 5
    assert sizes["careful|YES"] > 10 * sizes["careful|NO"]
    by_key = {(r["case"], r["method"]): r for r in rows}
    for item in sample.items:  # the key leads to the answer and to the mark that was given
        row = by_key[item.row["case"], item.row["method"]]
        assert item.response == row["text"]
        assert item.stratum == f"{item.rule}|{row['marks'][item.rule]}"


def test_the_seed_decides_and_the_order_of_the_rows_does_not(run, tmp_path):
    first = draw_sample(run, 30, 0)
    rows = make_rows()
    random.Random(1).shuffle(rows)
    assert draw_sample(write_run(tmp_path / "b", rows), 30, 0).items == first.items
    assert draw_sample(run, 30, 1).by_id.keys() != first.by_id.keys()


def test_a_larger_sample_holds_the_smaller_one_in_the_same_order(run):
    small, large = draw_sample(run, 20, 4), draw_sample(run, 55, 4)
    kept = [item for item in large.items if item.id in small.by_id]
    assert tuple(kept) == small.items


def test_each_pair_of_a_stratum_has_the_same_chance_and_methods_get_their_shares(tmp_path):
    # Nine answers of one method, three of another: 4 of 12 are drawn.
    rows = [make_row(f"a{i}", "one", {"warm": "YES"}) for i in range(9)]
    rows += [make_row(f"b{i}", "two", {"warm": "YES"}) for i in range(3)]
    run = write_run(tmp_path / "run", rows)
    times: Counter[str] = Counter()
    of_two: Counter[int] = Counter()
    draws = 600
    for seed in range(draws):
        items = draw_sample(run, 4, seed).items
        times.update(item.row["case"] for item in items)
        of_two[sum(item.row["method"] == "two" for item in items)] += 1
    expected = draws * 4 / 12
    spread = (draws * (4 / 12) * (8 / 12)) ** 0.5
    assert len(times) == 12
    assert all(abs(n - expected) < 4 * spread for n in times.values())
    # By chance alone (hypergeometric) none of the 4 would be of the second method in 25%.
    assert of_two[0] < 0.20 * draws
    assert of_two[3] < 0.02 * draws


def test_equal_answers_are_labeled_once(tmp_path):
    same = [make_row("c1", m, {"warm": "YES"}, text="The same.") for m in METHODS]
    run = write_run(tmp_path / "run", [*same, make_row("c2", "vanilla", {"warm": "YES"})])
    sample = draw_sample(run, 60, 0)
    assert len(sample.items) == sample.population == 2
    assert {item.row["method"] for item in sample.items} == {"align3", "vanilla"}


def test_rows_without_a_verdict_are_left_out(tmp_path):
    rows = [
        make_row("c1", "vanilla", {"warm": "YES"}),
        make_row("c2", "vanilla", {}, outcome="unscored", judged=False),
        make_row("c3", "vanilla", {}, outcome="failed", text=""),
    ]
    assert draw_sample(write_run(tmp_path / "run", rows), 9, 0).population == 1


def test_which_rules_are_labeled(run, tmp_path):
    assert {i.rule for i in draw_sample(run, 60, 0).items} == {"warm", "careful"}
    assert {i.rule for i in draw_sample(run, 60, 0, ["short"]).items} == {"short"}
    everything = draw_sample(run, 60, 0, all_rules=True)
    assert {i.rule for i in everything.items} == {"warm", "careful", "short", "open"}
    assert "checks decide" in everything.notes[0]
    assert everything.strata["open|not judged"] == 180
    with pytest.raises(BadInput, match="'waarm' is no rule of this run"):
        draw_sample(run, 60, 0, ["waarm"])
    # No judge: the rules that nobody decides, and where there are none, those of checks.
    rows = [make_row("c1", "vanilla", {"short": "NO"})]
    sample = draw_sample(write_run(tmp_path / "checks", rows), 60, 0)
    assert {i.rule for i in sample.items} == {"warm", "careful", "open"}
    assert "warm, careful, open" in sample.notes[0]
    sample = draw_sample(write_run(tmp_path / "less", rows, RULES[2:3]), 60, 0)
    assert [i.stratum for i in sample.items] == ["short|NO"]
    assert "No judge" in sample.notes[0]


def test_too_small_a_sample_says_so_and_takes_the_violations_first(run):
    sample = draw_sample(run, 2, 0)
    assert {i.stratum for i in sample.items} == {"warm|NO", "careful|NO"}
    assert "3 of 5 strata" in sample.notes[0]
    with pytest.raises(BadInput, match="--n: found 0"):
        draw_sample(run, 0, 0)


def test_what_is_shown_does_not_change_with_marks_methods_or_reasons(tmp_path):
    rows = [r | {"label": "unsafe"} for r in make_rows(cases=8)]
    other = []
    flip = {"YES": "NO", "NO": "NA", "NA": "YES"}
    for row in rows:
        marks = {k: flip[v] for k, v in row["marks"].items()}
        other.append(
            row | {"marks": marks, "method": row["method"] + "-x", "model": "openai:other",
                   "mark_reasons": {}, "deciders": dict.fromkeys(marks, "judge-8")}
        )  # fmt: skip
    first = draw_sample(write_run(tmp_path / "a", rows), 999, 0, ["warm", "careful"])
    second = draw_sample(write_run(tmp_path / "b", other), 999, 0, ["warm", "careful"])
    assert len(first.items) == 48
    assert [i.shown() for i in first.items] == [i.shown() for i in second.items]
    assert [i.stratum for i in first.items] != [i.stratum for i in second.items]
    shown = json.dumps([i.shown() for i in first.items])
    assert all(name not in shown for name in (*METHODS, "local:tiny", "judge-7", "SECRETREASON"))


# ---------------------------------------------------------------- the sample kept with a run


def test_the_sample_is_kept_and_extended_but_never_replaced(run):
    first = open_sample(run, 20)
    assert open_sample(run).items == first.items
    assert open_sample(run, 20, 0).items == first.items
    larger = open_sample(run, 40)
    assert first.by_id.keys() < larger.by_id.keys()
    assert open_sample(run).items == larger.items
    before = (run / "labels" / "sample.json").read_bytes()
    for wrong, words in (
        ({"n": 20}, "has 40 items"),
        ({"seed": 1}, "drawn with 0"),
        ({"rules": ["warm"]}, "other rules"),
        ({"all_rules": True}, "other rules"),
    ):
        with pytest.raises(BadInput, match=words):
            open_sample(run, **wrong)
    write_run(run, make_rows(seed=9))
    assert open_sample(run).items == larger.items
    with pytest.raises(BadInput, match="rows changed"):
        open_sample(run, 60)
    assert (run / "labels" / "sample.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema_version": 1}', b"\xff"])
def test_a_damaged_sample_is_named(run, content):
    open_sample(run, 5)
    (run / "labels" / "sample.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"sample\.json: is damaged"):
        open_sample(run)


# ---------------------------------------------------------------- labels


def test_weights_add_up_to_the_population_whoever_and_however_many_label(run):
    sample, path = open_sample(run, 40), labels_path(run)
    with LabelBook(path, sample) as book:
        for item in sample.items:
            book.record(item.id, Mark.YES, "kim")
    labels = read_labels(path)
    assert len(labels) == 40
    assert sum(label.weight for label in labels) == pytest.approx(sample.population)
    drawn = Counter(item.stratum for item in sample.items)
    for label in labels:
        assert label.weight == pytest.approx(sample.strata[label.stratum] / drawn[label.stratum])
    # A second person labels two of them, and one label is taken back.
    record_label(path, sample, sample.items[0].id, Mark.NO, "lou")
    record_label(path, sample, sample.items[1].id, Mark.NA, "lou")
    record_label(path, sample, sample.items[2].id, None, "kim")
    labels = read_labels(path)
    assert len(labels) == 41
    assert sum(label.weight for label in labels) == pytest.approx(sample.population)
    same = [label for label in labels if label.item == sample.items[0].id]
    assert [(x.labeler, x.mark) for x in same] == [("kim", Mark.YES), ("lou", Mark.NO)]
    assert same[0].weight == same[1].weight


def test_a_label_line_is_as_the_contract_says(run):
    sample, path = open_sample(run, 5), labels_path(run)
    item = sample.items[0]
    record_label(path, sample, item.id, Mark.NO, "kim")
    data = json.loads(path.read_text())
    assert data == {
        "prompt": item.messages[0].text, "response": item.response, "rule": item.rule,
        "mark": "NO", "weight": sample.strata[item.stratum], "stratum": item.stratum,
        "labeler": "kim", "row": dict(item.row),
    }  # fmt: skip
    assert set(item.row) == {"suite", "case", "model", "method", "repeat"}
    assert read_labels(path)[0].item == item.id


def test_conversations_keep_their_messages(tmp_path):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi \ud800"}], "extra": {"a": 1}},
    ]
    row = make_row("c1", "vanilla", {"warm": "YES"}, messages=messages)
    run = write_run(tmp_path / "run", [row])
    sample, path = open_sample(run), labels_path(run)
    record_label(path, sample, sample.items[0].id, Mark.YES)
    (label,) = read_labels(path)
    assert [m.to_dict() for m in label.messages] == messages
    assert label.prompt == "Hi \ud800"
    assert LabelBook(path, sample).marks() == {sample.items[0].id: Mark.YES}


def test_a_torn_last_line_is_dropped_and_other_labels_are_kept(run):
    sample, path = open_sample(run, 6), labels_path(run)
    for item in sample.items[:3]:
        record_label(path, sample, item.id, Mark.YES)
    own = '{"prompt": "Mine?", "response": "Yes.", "rule": "warm", "mark": "NA"}\n'
    path.write_text(own + path.read_text()[:-30])
    with pytest.raises(BadInput, match=r"labels\.jsonl:4: found broken JSON"):
        read_labels(path)
    with LabelBook(path, sample) as book:
        assert book.torn
        assert list(book.marks()) == [item.id for item in sample.items[:2]]
        book.record(sample.items[3].id, Mark.NO)
    labels = read_labels(path)
    assert [label.mark for label in labels] == [Mark.NA, Mark.YES, Mark.YES, Mark.NO]
    assert (labels[0].prompt, labels[0].weight, labels[0].row) == ("Mine?", 1.0, None)


def test_a_second_writer_is_refused(run):
    sample, path = open_sample(run, 5), labels_path(run)
    with LabelBook(path, sample), pytest.raises(BadInput, match="another adhere process"):
        LabelBook(path, sample)
    with LabelBook(path, sample):
        pass


def test_a_folder_for_labels_that_cannot_be_made(run):
    (run / "labels").write_text("not a folder")
    with pytest.raises(BadInput, match=r"labels: could not write"):
        open_sample(run)


def test_labels_of_a_read_only_run_can_go_elsewhere(run, tmp_path):
    (run / "labels").mkdir()
    names = sorted(p.name for p in run.iterdir())
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    sample = open_sample(run, 5)
    record_label(tmp_path / "other" / "mine.jsonl", sample, sample.items[0].id, Mark.NA)
    assert sorted(p.name for p in run.iterdir()) == names
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before
    assert [p.name for p in (run / "labels").iterdir()] == ["sample.json"]
    assert len(read_labels(tmp_path / "other" / "mine.jsonl")) == 1


# ---------------------------------------------------------------- answers of a page


def test_answers_are_merged_by_labeler(run, tmp_path):
    sample, path, answers = open_sample(run, 8), labels_path(run), tmp_path / "answers.jsonl"
    ids = [item.id for item in sample.items]

    def write(*lines):
        answers.write_text("".join(json.dumps(line) + "\n" for line in lines))

    write({"item": ids[0], "mark": "YES"}, {"item": ids[1], "mark": "NO", "labeler": "lou"})
    found = import_labels(answers, sample, path, "kim")
    assert (found.new, found.changed, found.same, found.labelers) == (2, 0, 0, ("kim", "lou"))
    write({"item": ids[0], "mark": "NO"}, {"item": ids[1], "mark": "NO", "labeler": "lou"},
          {"item": ids[0], "mark": "NA", "labeler": "lou"})  # fmt: skip
    found = import_labels(answers, sample, path, "kim")
    assert (found.new, found.changed, found.same) == (1, 1, 1)
    got = {(x.item, x.labeler): x.mark for x in read_labels(path)}
    assert got == {(ids[0], "kim"): "NO", (ids[1], "lou"): "NO", (ids[0], "lou"): "NA"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"item": "ITEM", "mark": "SKIP"}', "mark = 'SKIP'; expected YES"),
        ('{"item": "ITEM"}', 'no "mark"'),
        ('{"item": "0123456789abcdef", "mark": "NO"}', "item = '0123456789abcdef'; expected an"),
        ('{"item": 5, "mark": "NO"}', "item = 5"),
        ('{"item": "ITEM", "mark": "NO", "method": "x"}', "the key 'method'"),
        ('{"item": "ITEM", "mark": "NO", "labeler": 3}', "labeler = 3"),
        ('{"item": "FIRST", "mark": "NO"}', "NO where line 1 says YES"),
        ('{"item"', "broken JSON"),
        ("[1]", "list; expected an object"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_a_bad_answer_is_named_and_nothing_is_merged(run, tmp_path, line, found):
    sample, path, answers = open_sample(run, 8), labels_path(run), tmp_path / "answers.jsonl"
    first, second = (item.id for item in sample.items[:2])
    good = json.dumps({"item": first, "mark": "YES"})
    answers.write_text(good + "\n\n" + line.replace("ITEM", second).replace("FIRST", first) + "\n")
    with pytest.raises(BadInput) as caught:
        import_labels(answers, sample, path)
    assert caught.value.message.startswith(f"{answers}:3: found ")
    assert found in caught.value.message
    assert not path.exists()


def test_missing_and_empty_answers(run, tmp_path):
    sample = open_sample(run, 5)
    with pytest.raises(BadInput, match=r"none\.jsonl: cannot be read"):
        import_labels(tmp_path / "none.jsonl", sample, labels_path(run))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="no answers"):
        import_labels(tmp_path / "empty.jsonl", sample, labels_path(run))


# ---------------------------------------------------------------- labels files of others


GOOD = {"prompt": "Hi", "response": "Hello.", "rule": "warm", "mark": "YES"}


def test_a_file_written_by_hand(tmp_path):
    path = tmp_path / "labels.jsonl"
    turns = {"messages": [{"role": "user", "content": "Hi"}], **GOOD, "rule": "short"}
    del turns["prompt"]
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(map(json.dumps, (GOOD, turns))).encode())
    first, second = read_labels(path)
    assert first == Label(second.messages, "Hello.", "warm", Mark.YES)
    assert (first.prompt, second.prompt, second.rule) == ("Hi", "Hi", "short")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"mark": "SKIP"}, "mark = 'SKIP'; expected YES (followed), NO (violated) or NA"),
        ({"mark": "yes"}, "mark = 'yes'"),
        ({"mark": None}, 'no "mark"'),
        ({"weight": 0}, "weight = 0"),
        ({"weight": -1.5}, "weight = -1.5"),
        ({"weight": True}, "weight = True"),
        ({"weight": 10**400}, "weight = 1000"),
        ({"weight": float("nan")}, "broken JSON (NaN"),
        ({"response": None}, "response = None"),
        ({"rule": " "}, "an empty rule"),
        ({"prompt": 7}, "prompt = 7"),
        ({"messages": []}, 'both "prompt" and "messages"'),
        ({"row": {"suite": "x"}}, "row = {'suite': 'x'}"),
        ({"labeler": 1}, "labeler = 1"),
        ({"verdict": "NO"}, "the key 'verdict'"),
        ({}, "the same pair of answer and rule as in line 1"),
    ],
)
def test_a_bad_label_is_named_with_file_and_line(tmp_path, change, found):
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(BadInput) as caught:
        read_labels(path)
    assert caught.value.message.startswith(f"{path}:2: found ")
    assert found in caught.value.message


def test_no_labels_at_all(tmp_path):
    path = tmp_path / "labels.jsonl"
    with pytest.raises(BadInput, match="cannot be read"):
        read_labels(path)
    path.write_text("")
    with pytest.raises(BadInput, match="found no labels"):
        read_labels(path)
    path.write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(BadInput, match=r"labels\.jsonl:1: found bytes that are no UTF-8"):
        read_labels(path)
