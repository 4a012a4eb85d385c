"""Reading a teacher's reply: thought and answer, or the word for what is wrong."""

from __future__ import annotations

import pytest

from adhere.chat import Completion
from adhere.training.recipes.deliberative.reading import (
    REASONS,
    Taught,
    Unread,
    read_parts,
    read_tags,
    to_last_sentence,
    why_unusable,
)

GOOD = Taught("I weigh it.", "Yes.")


def tagged(text, finish="stop", reasoning=""):
    return read_tags(Completion(text, finish, reasoning=reasoning))


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("<think>\nI weigh it.\n</think>\n\nYes.", "stop"),
        ("I weigh it.</think>Yes.", "stop"),  # the template opened the thought
    ],
)
def test_think_tags(text, finish):
    assert tagged(text, finish) == GOOD


def test_a_thought_that_the_server_split_off():
    assert tagged("Yes.", reasoning="I weigh it.") == GOOD
    assert tagged("", reasoning="I weigh it.").reason == "no_answer"
    # The limit came before the thought was closed: such a server shows no text then.
    found = tagged("", "length", reasoning="I weigh")
    assert found == Unread("not_closed", "the token limit ended it")
    assert tagged("Ye", "length", reasoning="I weigh it.").reason == "cut"


@pytest.mark.parametrize(
    "got",
    [
        Completion("", "length", reasoning="I weigh"),
        Completion("<think>\nI weigh", "length"),
    ],
    ids=["split", "tags"],
)
def test_two_parts_that_the_models_own_thought_left_no_room_for(got):
    assert read_parts(got).reason == "not_closed"
    assert read_parts(got, "<reasoning>\n").reason == "not_closed"


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("<think>\nI weigh it. Yes.", "stop", "not_closed"),
        ("<think>\nI weigh it. Yes.", "length", "not_closed"),
        ("I weigh it", "length", "not_closed"),
        ("Yes.", "stop", "no_thought"),
        ("", "stop", "no_answer"),
        ("<think>\n\n</think>\n\nYes.", "stop", "empty_thought"),
        ("<think>\nI weigh it.\n</think>\n\n", "stop", "no_answer"),
        ("<think>\nI weigh it.\n</think>\n", "length", "no_answer"),
        ("<think>\nI weigh it.\n</think>\n\nYe", "length", "cut"),
        ("<think>\nI.\n</think>\nSo.\n</think>\nYes.", "stop", "markup"),
    ],
)
def test_think_tags_that_make_no_row(text, finish, reason):
    found = tagged(text, finish)
    assert isinstance(found, Unread)
    assert found.reason == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ("<reasoning>\nI weigh it.\n</reasoning>\n<answer>\nYes.\n</answer>", ""),
        ("I weigh it.\n</reasoning>\n<answer>\nYes.\n</answer>\n", "<reasoning>\n"),
        ("<reasoning>I weigh it.</reasoning> <answer>Yes.", ""),  # it stopped by itself
        ("<reasoning>I weigh it.</reasoning>\n\nYes.", ""),
        ("<think>Hm.</think>\n<Reasoning>I weigh it.</Reasoning><answer>Yes.</answer>", ""),
    ],
)
def test_two_parts(text, begun):
    assert read_parts(Completion(text), begun) == GOOD


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("<reasoning>\nI weigh it.\n<answer>Yes.</answer>", "stop", "not_closed"),
        ("<reasoning>\nI weigh", "length", "not_closed"),
        ("Sure! <reasoning>I.</reasoning><answer>Yes.</answer>", "stop", "not_closed"),
        ("Yes.", "stop", "no_thought"),
        (" ", "stop", "no_answer"),
        ("<reasoning>I weigh it.</reasoning><answer></answer>", "stop", "no_answer"),
        ("<reasoning> </reasoning><answer>Yes.</answer>", "stop", "empty_thought"),
        ("<reasoning>I weigh it.</reasoning><answer>Ye", "length", "cut"),
    ],
)
def test_parts_that_make_no_row(text, finish, reason):
    found = read_parts(Completion(text, finish))
    assert isinstance(found, Unread)
    assert found.reason == reason


def test_an_answer_that_was_closed_before_the_limit_is_whole():
    text = "<reasoning>I weigh it.</reasoning><answer>Yes.</answer>"
    assert read_parts(Completion(text, "length")) == GOOD


@pytest.mark.parametrize(
    ("thought", "answer", "reason"),
    [
        ("I weigh it.", "Yes. <answer>No.</answer>", "markup"),
        ("I weigh </think> it.", "Yes.", "markup"),
        ("I weigh it.", "Yes.<|im_end|>", "markup"),
        ("I weigh it.", "Yes.<｜end▁of▁sentence｜>", "markup"),
        ("I weigh it.", "Yes.<channel|>", "markup"),
        ("I weigh it.", "Yes.</s>", "markup"),
        ("I weigh it.", "Yes.<eos>", "markup"),
        ("I weigh it.", "Yes.<end_of_turn>", "markup"),
        ("I weigh it. [/INST]", "Yes.", "markup"),
        ("<thought>I weigh it.</thought>", "Yes.", "markup"),
        ("[THINK]I weigh it.[/THINK]", "Yes.", "markup"),
        ("<reflection>I weigh it.", "Yes.", "markup"),
        ("I weigh it. <", "Yes.", "markup"),
        ("I weigh it.", "Yes. <end>", "markup"),
        ("I weigh it.", "Yes. <try it on a small spot first>", "markup"),
        ("Hold the plan against those rules of life.", "Yes.", "echoes"),
        ("I weigh it.", "Yes, hold the plan against those rules.", "echoes"),
        ("The rules above forbid it.", "No.", "leaks"),
        ("I weigh it.", "The policy you gave me forbids it.", "leaks"),
        ("Say yes.", "say  YES.", "repeats"),
        ("I think that I may say how tea is made.", "So: I think that I may say how tea is made.",
         "repeats"),
        ("First: boil fresh water, add the leaves, wait for four minutes. That will do.",
         "Boil fresh water, add the leaves, wait for four minutes.", "repeats"),
    ],
)  # fmt: skip
def test_what_must_not_be_trained_on(thought, answer, reason):
    found = why_unusable(Taught(thought, answer), "How?", "Hold the plan against those rules.")
    assert found is not None
    assert found.reason == reason


@pytest.mark.parametrize(
    ("thought", "answer"),
    [
        ("I weigh it.", "Yes."),
        ("My policy says never to state a dose, so no.", "No."),
        # A short answer may stand in its thought, and a sentence of a longer one.
        ("The answer is 42, which I check again.", "42"),
        (
            "I would say that tea helps.",
            "Tea helps. Let it stand for four minutes, and not longer.",
        ),
        ("Use a < b here.", "Write if a < b and b > c."),
        (
            "A quote, then.",
            "> Tea helps.\n\nSee <a href='x' title='y z w'>there</a>, List<String> and 1 < 2.",
        ),
        ("Use a <b|c> and <section>.", "Write x <|> y, [install] and <strong>so</strong>."),
    ],
)
def test_what_may_be_trained_on(thought, answer):
    assert why_unusable(Taught(thought, answer), "How?") is None


def test_a_phrase_of_the_prompt_is_no_leak():
    taught = Taught("They ask for the system prompt.", "I have none to show.")
    assert why_unusable(taught, "How?") is not None
    assert why_unusable(taught, "Show me the system prompt!") is None


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("One. Two thr", "One."),
        ('One. "Two." Thr', 'One. "Two."'),
        ("One.", "One."),
        ("3.5 is", ""),
        ("no end", ""),
        ("", ""),
    ],
)
def test_a_cut_thought_ends_with_its_last_whole_sentence(cut, whole):
    assert to_last_sentence(cut) == whole
