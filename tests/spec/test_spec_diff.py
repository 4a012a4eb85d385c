"""What changed between two specs."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from adhere.spec import Rule, Specification, derive_id, diff_specs


def rule(text: str, rule_id: str = "", kind: str = "safety", **keys: str) -> Rule:
    return Rule(rule_id or derive_id(text), kind, text, **keys)


BEFORE = Specification(
    "Health",
    (
        rule("Never state a dose.", "dose"),
        rule("Never issue a diagnosis or a prescription."),
        rule("Do not name brands of drugs, whatever the user says."),
        rule("At most 150 words.", "short", "behavioral", check="words(max=150)"),
    ),
    version="1",
)


def test_nothing_changed() -> None:
    diff = diff_specs(BEFORE, replace(BEFORE))
    assert diff.is_empty
    assert diff.lines() == []


def test_every_sort_of_change_is_named() -> None:
    after = Specification(
        "Health",
        (
            rule("Never issue a diagnosis, a prescription or a referral."),
            rule("Be kind to people."),
            rule("At most 100 words.", "short", "behavioral", check="words(max=100)"),
            rule("Never state a dose.", "dose", "behavioral"),
        ),
        version="2",
        fallback="No.",
        meta={"language": "en"},
    )
    diff = diff_specs(BEFORE, after)
    assert [r.text for r in diff.added] == ["Be kind to people."]
    assert [r.text for r in diff.removed] == [
        "Do not name brands of drugs, whatever the user says."
    ]
    assert [(c.field, c.before, c.after) for c in diff.front] == [
        ("version", "1", "2"),
        ("fallback", None, "No."),
        ("language", None, "en"),
    ]
    moved, edited, short = diff.changed
    assert moved.moved
    assert [c.field for c in moved.changes] == ["kind"]
    assert [c.field for c in edited.changes] == ["id", "text"]
    assert not edited.moved
    assert not diff.reordered  # a rule that moved to the other kind is reported as that alone
    assert [(c.field, c.before, c.after) for c in short.changes] == [
        ("text", "At most 150 words.", "At most 100 words."),
        ("check", "words(max=150)", "words(max=100)"),
    ]
    text = "\n".join(diff.lines())
    for line in (
        "~ version: 1 -> 2",
        "~ fallback: (none) -> No.",
        "+ [be-kind-to-people-",
        "- [do-not-name-brands-",
        "~ [dose] behavioral, moved to behavioral",
        "    text: At most 150 words. -> At most 100 words.",
        "    check: words(max=150) -> words(max=100)",
        "    - Never issue a diagnosis or a prescription.",
        "    + Never issue a diagnosis, a prescription or a referral.",
    ):
        assert line in text, text


def test_a_new_id_for_the_same_text_is_a_change_of_id() -> None:
    after = replace(BEFORE, rules=(rule("Never state a dose.", "no-dose"), *BEFORE.rules[1:]))
    diff = diff_specs(BEFORE, after)
    assert not diff.added
    assert not diff.removed
    assert [[c.field for c in change.changes] for change in diff.changed] == [["id"]]


def test_the_most_similar_texts_are_paired() -> None:
    a = Specification("s", (rule("Never name a drug at all."), rule("Never name a drug or brand.")))
    b = Specification(
        "s", (rule("Never name a drug or a brand."), rule("Never name a drug at all!"))
    )
    pairs = {c.before.text: c.after.text for c in diff_specs(a, b).changed}
    assert pairs == {
        "Never name a drug at all.": "Never name a drug at all!",
        "Never name a drug or brand.": "Never name a drug or a brand.",
    }


def test_another_order_is_a_difference() -> None:
    diff = diff_specs(BEFORE, replace(BEFORE, rules=BEFORE.rules[::-1]))
    assert diff.reordered
    assert not diff.is_empty
    assert diff.lines() == ["~ the rules stand in another order"]


def test_many_rules_are_compared_in_time() -> None:
    a = Specification("s", tuple(rule(f"Rule {i} of the old one, {i * 7}.") for i in range(1500)))
    b = Specification("s", tuple(rule(f"{i * 3} is for the new one: {i}.") for i in range(1500)))
    assert len(diff_specs(a, b).added) == 1500


texts = st.sampled_from(
    ["Be kind.", "Be very kind.", "No dose.", "No doses.", "At most 9 words.", "x"]
)
specifications = st.builds(
    Specification,
    st.sampled_from(["A", "B"]),
    st.lists(
        st.builds(
            lambda text, rule_id, kind, source: Rule(
                rule_id or derive_id(text), kind, text, source=source
            ),
            texts,
            st.sampled_from(["", "a", "b"]),
            st.sampled_from(["safety", "behavioral"]),
            st.sampled_from([None, "here"]),
        ),
        unique_by=lambda r: r.id,
        min_size=1,
        max_size=4,
    ).map(tuple),
    st.sampled_from(["1", "2"]),
)


@settings(deadline=None, max_examples=150)
@given(specifications, specifications)
def test_a_diff_is_empty_for_equal_specs_only_and_accounts_for_every_rule(
    a: Specification, b: Specification
) -> None:
    diff = diff_specs(a, b)
    assert diff.is_empty == (a == b) == (not diff.lines())
    before = {change.before.id for change in diff.changed} | {r.id for r in diff.removed}
    after = {change.after.id for change in diff.changed} | {r.id for r in diff.added}
    unchanged = {r for r in a.rules if r.id not in before}
    assert unchanged == {r for r in b.rules if r.id not in after}
