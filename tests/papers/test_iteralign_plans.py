"""The plans of IterAlign: each loads, says what is published, and its page has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adhere.training.recipes.iteralign.plan_file import read_plan
from adhere.training.recipes.iteralign.rounds_plan import MODES, IteratePlan

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs/papers/iteralign"
PAGE = (ROOT / "docs/papers/iteralign.md").read_text("utf-8")
GUIDE = (ROOT / "docs/iteralign.md").read_text("utf-8")
PLANS = sorted(FOLDER.glob("*.yaml"))


def test_the_page_names_each_plan_and_each_plan_its_source():
    assert len(PLANS) == 2
    for plan in PLANS:
        assert f"`{plan.stem}`" in PAGE
        assert "arXiv 2403.18341" in plan.read_text("utf-8")
    assert "iteralign.md" in (ROOT / "docs/papers/README.md").read_text("utf-8")


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stem)
def test_a_plan_loads_and_its_paths_are_beside_it(plan):
    made = read_plan(IteratePlan, plan, {})
    assert made.suites[0].options["path"] == FOLDER / "harmfulqa.json"
    assert made.mode == plan.stem.removeprefix("iterate-")


def test_the_published_settings_are_those_of_the_script():
    made = read_plan(IteratePlan, FOLDER / "iterate-published.yaml", {})
    sampling = made.sampling
    assert (made.batch, made.start, made.data, made.gate, made.guard) == (
        20, "last", "batch", False, False,
    )  # fmt: skip
    assert (sampling.temperature, sampling.max_tokens, sampling.stop) == (0.0, 500, ("\n\n",))
    assert sampling.extra == {"frequency_penalty": 0.5}
    assert (made.found_by, made.form, made.way) == ("published",) * 3
    assert made.training["learning_rate"] == 2e-6
    assert made.judge.model == made.oracle.model == "openai:gpt-3.5-turbo"


def test_the_command_line_goes_before_the_file():
    given = {"oracle": {"model": "local:x"}, "training": {"learning_rate": 1e-4}, "batch": 5}
    made = read_plan(IteratePlan, FOLDER / "iterate-published.yaml", given)
    assert made.oracle.model == made.judge.model == "local:x"
    assert (made.training["learning_rate"], made.training["epochs"]) == (1e-4, 3.0)
    assert made.batch == 5


def test_the_guide_names_every_field_that_a_mode_sets():
    # In the table's own words: what each field is called there.
    told = {
        "found_by": "judge", "form": "proposal", "way": "revision", "gate": "gate", "tries": "3 draws",
        "dedupe": "near-duplicates", "start": "from the last round's model", "data": "all pairs so far",
        "guard": "guard", "patience": "patience", "training": "what is trained", "sampling": "sampling",
    }  # fmt: skip
    fields = {name for mode in MODES.values() for name in mode}
    assert fields == set(told)
    [table] = re.findall(r"## Two modes.*?\n\n(\|.*?)\n\n", GUIDE, re.DOTALL)
    assert all(words in table for words in told.values())
