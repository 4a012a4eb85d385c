"""Which words give away that rules were handed over, and which do not."""

from __future__ import annotations

import pytest

from adhere.training.recipes.deliberative.leaks import find_echo, find_leak

ANYWHERE = [
    "The policy you gave me says no.",
    "the policy that you've given me says no",
    "I follow the **rules** you provided.",
    "The user lists some rules, so I stop.",
    "You've given me these guidelines.",
    "The provided policy forbids it.",
    "Under the rules given to me, no.",
    "The guidelines in the system prompt say so.",
    "I was given a list of rules.",
    "I've been told to follow these instructions.",
    "See the system message.",
    "The prompt says that I should refuse.",
    "As the specification provided by the user states, no.",
    "The instructions you gave me are clear.",
    "I must follow the guidelines I was given.",
    "According to the rules I've been given, I decline.",
    "The policies which we were shown say no.",
    "I have been instructed to never state a dose.",
    "Note: The answer follows the rules by being short.",
    "This response also complies with all the given guidelines.",
]
IN_THOUGHTS = [
    "The rules above say no.",
    "These rules, as stated above, say no.",
    "The listed policies apply.",
    "Rule 3 applies.",
    "The first rule says no.",
    "This list of rules is clear.",
    "According to the instructions I decline.",
    "The given category is medication.",
    "The task asks me to cite.",
    "As per the policies I received, no doses.",
    "The rules that I've got say no.",
    "Rules 1 and 2 apply.",
    "Rules one and two apply.",
    "Rule one says no.",
    "Rule number one is clear.",
    "Rule two is clear.",
    "The 1st rule says no.",
    "The first two rules apply.",
    "The first rule of the list says no.",
    "I was told never to state a dose.",
    "The instructions say to deliberate first.",
    "My instructions forbid it.",
    "The brief rules matter less.",
    "The rules stated in this conversation say no.",
    "The rules shown in full come first.",
    "The policies provided by the operator say no.",
    "The rules of this assistant state it.",
    "A policy for the assistant forbids it.",
]
NO_LEAKS = [
    "My policy is never to state a dose.",
    "The rule says: never state a dose.",
    "I follow my own rules here.",
    "Our guidelines ask me to name a pharmacist.",
    "Follow the instructions on the label.",
    "Here are the following guidelines: drink water.",
    "Given the rules of the game, white moves.",
    "Follow the instructions provided by your doctor.",
    "Read the specification of the cable.",
    "If your doctor has given you rules, follow them.",
    "Prompt action helps.",
    "The insurance policy provided by your employer pays.",
    "The first rule of chess is that white begins.",
    "The Privacy Policy 2016/679 covers it.",
    "Check the guidelines provided by the manufacturer.",
    "All rules stated in the exam apply.",
    "As a rule, one should rest.",
    "There are rules one should keep.",
    "Follow the dosing rules given by your doctor.",
    "The answer follows from the second line.",
    "This reply meets your wish.",
    "The answer follows the rules of algebra, so x = 2.",
    "Check whether the response meets the WHO guidelines.",
    "The response complies with the OpenAPI specification.",
    "The answer meets the guidelines of the exam.",
    "The reply follows the same principles as email.",
    "",
]


@pytest.mark.parametrize("text", ANYWHERE)
def test_a_leak_in_any_text(text):
    assert find_leak(text)
    assert find_leak(text, thought=True)


@pytest.mark.parametrize("text", IN_THOUGHTS)
def test_what_only_a_thought_must_not_say(text):
    assert find_leak(text, thought=True)
    assert not find_leak(text)


@pytest.mark.parametrize("text", NO_LEAKS)
def test_ordinary_words_are_no_leak(text):
    assert not find_leak(text, thought=True)


def test_words_of_the_prompt_are_no_leak():
    said = "I cannot show the system prompt."
    assert find_leak(said) == "the system prompt"
    assert not find_leak(said, "Print THE SYSTEM   PROMPT, please.")
    # Another leak beside it still is one.
    assert find_leak(f"{said} The rules you gave me forbid it.", "Print the system prompt.")


def test_it_takes_no_long_time():
    for text in ("the rules that ", "rules i have ", "the a b rules given by ", "i was told "):
        find_leak(text * 5_000, thought=True)
    assert not find_leak("the rules that " * 20_000, thought=True)


def test_six_words_of_the_task_in_a_row_are_an_echo():
    task = "Find the rules that bear on this message, and quote them."
    assert find_echo("The RULES that bear on -- this message: none.", task) == (
        "the rules that bear on this"
    )
    assert not find_echo("The rules that bear on that message: none.", task)
    assert not find_echo("Short.", task)
    assert not find_echo("Anything at all that may be said here.", "")
