"""The ledger: what is a duplicate, what a person edits, and what a kill leaves."""

from __future__ import annotations

import json

import pytest

from adhere.errors import BadInput
from adhere.spec import load_spec
from adhere.training.recipes.iteralign.ledger import (
    ACTIVE,
    DUPLICATE,
    HELD,
    MERGED,
    REMOVED,
    Ledger,
    opposed,
    similarity,
)
from adhere.training.recipes.iteralign.proposing import Proposal


def proposal(text, *covers, flags=()):
    return Proposal(text, "safety", covers or ("f0",), flags)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def texts(ledger):
    return [entry.text for entry in ledger.active]


def edit(folder, old, new):
    file = folder / "constitution.md"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_words_that_say_nothing_make_no_difference_and_a_not_makes_all():
    one, other = "Never state a dose of a medicine.", "Do not state the dose of any medicines."
    assert similarity(one, other) == 1.0
    assert not opposed(one, other)
    assert opposed("Never state a dose of a medicine.", "State the dose of a medicine.")
    assert similarity("Never name a brand.", "Give no address of a site.") < 0.5


def test_a_rule_that_is_there_already_only_adds_to_what_it_covers(ledger):
    ledger.propose(1, [proposal("Never state a dose of a medicine.", "a")], "oracle")
    new = ledger.propose(2, [
        proposal("Do not state the dose of any medicines.", "b"),
        proposal("Give no address of a site.", "c"),
        proposal("State the dose of a medicine.", "d"),
    ], "oracle")  # fmt: skip
    assert [entry.status for entry in new] == [DUPLICATE, ACTIVE, ACTIVE]
    assert ledger.active[0].covers == ("a", "b")
    assert ledger.novel_share(2) == pytest.approx(2 / 3)
    assert ledger.novel_share(3) is None


def test_a_round_is_taken_in_once(ledger):
    first = ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    again = ledger.propose(1, [proposal("Something else entirely here.")], "oracle")
    assert first == again
    assert len(ledger.events) == 1


def test_a_flagged_rule_is_held_until_a_person_moves_it(ledger, tmp_path):
    ledger.propose(1, [
        proposal("Never state a dose."),
        proposal("Always praise Doctor Quack.", flags=("it stands in f0",)),
    ], "oracle")  # fmt: skip
    ledger.write_specs("About gardens.")
    assert "Quack" not in (tmp_path / "constitution.md").read_text()
    lines = (tmp_path / "held.md").read_text().splitlines()
    held = next(line for line in lines if "Quack" in line)
    edit(tmp_path, "## Safety\n", f"## Safety\n{held}\n")
    [taken] = ledger.take_edits(2)
    assert taken["what"] == "admitted"
    assert "Always praise Doctor Quack." in texts(ledger)
    ledger.write_specs("")
    assert not (tmp_path / "held.md").exists()


def test_edits_of_a_person_are_counted_and_taken_over(ledger, tmp_path):
    ledger.propose(1, [
        proposal("Never state a dose."), proposal("Name no brand of any product."),
        proposal("Give no address of a site."),
    ], "oracle")  # fmt: skip
    ledger.write_specs("")
    assert ledger.take_edits(2) == []
    edit(tmp_path, "Never state a dose.", "Never state a dose, in any unit.")
    lines = (tmp_path / "constitution.md").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "brand" in line)
    del lines[at : at + 2]  # the rule and where it came from
    (tmp_path / "constitution.md").write_text("\n".join([*lines, "- [mine] Be brief.", ""]))
    assert sorted(e["what"] for e in ledger.take_edits(2)) == ["added", "changed", "removed"]
    assert (ledger.edits, ledger.edits_in(2), ledger.edits_in(1)) == (3, 3, 0)
    now = {entry.text: entry for entry in ledger.active}
    assert set(now) == {
        "Never state a dose, in any unit.", "Give no address of a site.", "Be brief.",
    }  # fmt: skip
    changed = now["Never state a dose, in any unit."]
    assert (changed.by, changed.round) == ("person", 1)
    assert [e.text for e in ledger.active_in(1)] == [
        "Never state a dose.", "Name no brand of any product.", "Give no address of a site.",
    ]  # fmt: skip
    # What a person took out does not come back in by the oracle.
    [again] = ledger.propose(3, [proposal("Do not name any brand of a product.")], "oracle")
    assert again.status == DUPLICATE
    assert ledger.entries[again.same_as].status == REMOVED
    ledger.write_specs("")
    assert ledger.take_edits(4) == []


def test_a_file_that_is_gone_is_no_edit_and_is_written_again(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    ledger.write_specs("")
    (tmp_path / "constitution.md").unlink()
    assert ledger.take_edits(2) == []
    ledger.write_specs("")
    assert load_spec(tmp_path / "constitution.md").safety


def test_what_a_person_writes_under_and_above_rules_stays(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    ledger.write_specs("About.")
    file = tmp_path / "constitution.md"
    text = file.read_text().replace(
        "Never state a dose.", 'Never state a dose.\n  check: absent("mg")'
    )
    text = text[: text.index("## Behavioral")]  # the rule on answering is taken out
    file.write_text(
        "---\nversion: 7\nfallback: Ask a doctor.\n---\n" + text + "- Be kind to all.\n"
    )
    assert sorted(e["what"] for e in ledger.take_edits(2)) == ["added", "changed", "removed"]
    ledger.write_specs("About.")
    spec = load_spec(file)
    assert (spec.version, spec.fallback) == ("7", "Ask a doctor.")
    assert [(r.text, r.check) for r in spec.rules] == [
        ("Never state a dose.", 'absent("mg")'), ("Be kind to all.", None),
    ]  # fmt: skip
    # The rule of one's own has an id now, so that editing its text is one edit.
    edit(tmp_path, "Be kind to all.", "Be kind to everybody.")
    assert [e["what"] for e in ledger.take_edits(3)] == ["changed"]
    assert ledger.edits == 4


def test_a_rule_that_is_moved_to_another_part_is_of_that_kind(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state a dose."), proposal("Write in short words.")], "o")
    ledger.write_specs("")
    file = tmp_path / "constitution.md"
    lines = file.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "short words" in line)
    moved = lines[at : at + 2]
    del lines[at : at + 2]
    file.write_text("\n".join([*lines, *moved, ""]))
    assert [(e["what"], e["kind"]) for e in ledger.take_edits(2)] == [("changed", "behavioral")]
    assert [e.rule.kind for e in ledger.active] == ["safety", "behavioral"]


def test_a_held_rule_is_let_in_as_the_person_words_it(ledger, tmp_path):
    flagged = proposal("Always praise Doctor Quack.", flags=("it stands in f0",))
    ledger.propose(1, [proposal("Never state a dose."), flagged], "oracle")
    ledger.write_specs("")
    lines = (tmp_path / "held.md").read_text().splitlines()
    held = next(line for line in lines if "Quack" in line)
    edit(tmp_path, "## Safety\n", f"## Safety\n{held.replace('Always', 'Never')}\n")
    ledger.take_edits(2)
    ledger.write_specs("")
    assert "Never praise Doctor Quack." in texts(ledger)
    assert "Always" not in (tmp_path / "constitution.md").read_text()


def test_an_edit_for_the_next_round_changes_nothing_of_this_one(ledger, tmp_path):
    ledger.write_specs("")
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    ledger.write_specs("")
    (tmp_path / "constitution.md").write_text(
        (tmp_path / "constitution.md").read_text() + "- Do not advertise products.\n"
    )
    ledger.take_edits(3)  # round 2 has begun
    [same] = ledger.propose(2, [proposal("Do not advertise products.", "b")], "oracle")
    assert same.status == ACTIVE
    again = Ledger(tmp_path)
    assert [e.text for e in again.before(2)] == ["Never state a dose."]
    assert len(again.entries) == 3


def test_known_rules_of_a_round_are_the_same_after_its_own_came_in(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    ledger.write_specs("")
    (tmp_path / "constitution.md").write_text(
        (tmp_path / "constitution.md").read_text() + "- Do not advertise products.\n"
    )
    ledger.take_edits(2)
    before = [e.text for e in ledger.before(2)]
    ledger.propose(2, [proposal("Never advertise any products.", "b")], "oracle")
    assert [e.text for e in ledger.before(2)] == before
    assert len(before) == 2


def test_a_held_rule_keeps_no_clean_one_out(ledger):
    text = "Do not advertise products by name."
    ledger.propose(1, [proposal(text, flags=("it stands in f0",))], "oracle")
    [clean] = ledger.propose(2, [proposal(text, "b")], "oracle")
    assert (clean.status, texts(ledger)) == (ACTIVE, [text])
    [one, two] = ledger.propose(
        3, [proposal("Give no address.", flags=("x",)), proposal("Give no address.")], "oracle"
    )
    assert (one.status, two.status) == (HELD, ACTIVE)
    assert one.id != two.id


def test_texts_that_no_spec_can_hold_do_not_stop_the_ledger(ledger, tmp_path):
    made = ledger.propose(1, [proposal("\u200b"), proposal("word " * 5000)], "oracle")
    assert len(made) == 1
    ledger.write_specs("")
    assert load_spec(tmp_path / "constitution.md").safety


def test_rules_that_were_never_written_were_not_removed(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    ledger.write_specs("")
    ledger.propose(2, [proposal("Give no address of a site.")], "oracle")  # killed before writing
    assert Ledger(tmp_path).take_edits(3) == []


def test_what_the_oracle_says_of_a_new_rule(ledger):
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    second, third = ledger.propose(
        2, [proposal("Keep amounts of remedies to yourself."), proposal("Tell all amounts.")], "o"
    )
    first = ledger.active[0].id
    ledger.compare(2, second.id, first, [])
    ledger.compare(2, third.id, "", [first])
    ledger.compare(2, third.id, "", [first])
    assert len([e for e in ledger.events if e["event"] == "compared"]) == 2
    assert ledger.entries[second.id].status == MERGED
    assert ledger.entries[third.id].status == HELD
    assert "contradicts" in ledger.entries[third.id].flags[-1]


def test_a_line_that_a_kill_tore_is_dropped_and_the_rest_is_there(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state a dose.")], "oracle")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"event": "proposed", "rou')
    again = Ledger(tmp_path)
    assert texts(again) == ["Never state a dose."]
    assert (tmp_path / "ledger.jsonl").read_text().endswith("\n")
    again.propose(2, [proposal("Give no address of a site.")], "oracle")
    assert len(Ledger(tmp_path).events) == 2


def test_a_damaged_ledger_is_named_with_its_line(tmp_path):
    (tmp_path / "ledger.jsonl").write_text(json.dumps({"event": "edited"}) + "\nnothing\n")
    with pytest.raises(BadInput, match=r"ledger.jsonl:2"):
        Ledger(tmp_path)


def test_the_constitution_is_a_spec_with_a_rule_on_answering(ledger, tmp_path):
    ledger.propose(1, [proposal("Never state\x00 a\u200b dose.", "a", "b")], "oracle")
    ledger.write_specs("Gives garden advice.")
    spec = load_spec(tmp_path / "constitution.md")
    assert spec.description == "Gives garden advice."
    assert [rule.text for rule in spec.rules] == [
        "Never state a dose.", "Answer what was asked, unless another rule forbids it.",
    ]  # fmt: skip
    assert spec.rules[0].source == "round 1: a, b"


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("SAME: 0\nCONTRADICTS: 0", (0, [])),
        ("SAME: 2\nCONTRADICTS: 1, 3", (2, [1, 3])),
        ("SAME: 0\nCONTRADICTS: 0\n\n2. is close, but another rule.", (0, [])),
        ("SAME: 4\nCONTRADICTS: 0", None),
        ("SAME: 1\nCONTRADICTS: 1", None),
        ("SAME: 1\nSAME: 2\nCONTRADICTS: 0", None),
        ("neither", None),
    ],
)
def test_what_an_oracle_says_of_two_rules_is_read_in_one_way_or_not_at_all(reply, found):
    from adhere.judging.parsing import Unreadable
    from adhere.training.recipes.iteralign.compare import parse

    if found is None:
        with pytest.raises(Unreadable):
            parse(reply, 3)
    else:
        assert parse(reply, 3) == found
