"""docs/training.md says what the program does: its commands, its presets, the names in its log."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from cyclopts import App

from adhere.cli.main import COMMANDS
from adhere.training.plan import PRESETS, TrainPlan
from adhere.training.steps import StepLog

DOC = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
TRAIN = [line.strip() for line in DOC.splitlines() if line.startswith("    adhere train ")]


def table_after(words):
    """The rows of the table below a heading that begins so, as lists of cells."""
    rows = re.search(r"\n((?:\|.*\n)+)", DOC[DOC.index(words) :])[1].splitlines()
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("line", TRAIN)
def test_its_commands_are_real(line):
    app = App(name="adhere")
    app.command(COMMANDS["train"][0], name="train")
    words = shlex.split(line)[1:]
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    given = bound.arguments
    assert given.get("config") or {"pairs", "model", "out"} <= set(given)


def test_there_are_commands_to_look_at():
    assert len(TRAIN) >= 3


def test_its_table_of_presets_is_theirs():
    _, *rows = table_after("| `--preset` |")
    assert [row[0] for row in rows] == list(PRESETS)
    for name, rate, batch, passes, beta, _ in rows:
        plan = TrainPlan(model="weights:m", pairs=Path("p"), out=Path("o"), **PRESETS[name])
        assert float(rate) == plan.learning_rate
        assert int(batch) == plan.batch_size
        assert float(passes) == plan.epochs
        assert float(beta) == plan.beta


def test_it_explains_every_number_of_the_log():
    rows = table_after("| in train.jsonl")
    explained = set(re.findall(r"\w+", " ".join(row[0] for row in rows)))
    fields = {field.name for field in dataclasses.fields(StepLog)} - {"step", "split"}
    assert fields <= explained


def test_every_option_that_it_names_is_one():
    from adhere.cli.train import train

    options = {name.rstrip("_").replace("_", "-") for name in train.__annotations__}
    # of other commands, which the same page shows
    others = {"spec", "prompts", "method", "reviser", "enable-lora", "max-lora-rank", "teacher"}
    others |= {"rows", "html"}  # the other name of --pairs, and of `adhere compare`
    named = set(re.findall(r"--([a-z][a-z-]+)", DOC)) - {"lora-modules"}
    assert named <= options | others
