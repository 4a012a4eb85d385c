"""Make preference pairs: answer every prompt, mark, revise or compare, and write the pairs.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    pairs.jsonl      the pairs in the order of the prompts, as TRL and `adhere train` read them
    dropped.jsonl    the rows that gave none, each with its reason and its refused tries
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from adhere.experiments.opening import Opening
from adhere.experiments.phases import Listener
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.run import Made, StepwiseRun
from adhere.experiments.stepwise.seats import Open
from adhere.records.run_folder import dump_json, write_atomic
from adhere.training.exporting import write_rows
from adhere.training.recipes.clair.inputs import KIND, ClairInputs, read_clair_inputs
from adhere.training.recipes.clair.making import Making
from adhere.training.recipes.clair.plan import OPERATIONAL, ClairPlan
from adhere.training.recipes.clair.rows import dropped_line, make_pairs, not_pairs
from adhere.training.recipes.clair.seats import check_seats, not_apart, open_seats
from adhere.training.recipes.clair.summary import summarize

PAIRS_FILE = "pairs.jsonl"
DROPPED_FILE = "dropped.jsonl"


async def make_clair_pairs(plan: ClairPlan, listener: Listener | None = None) -> RunResult:
    """Make (or go on making) the pairs of a plan. Raises AdhereError."""
    inputs = read_clair_inputs(plan)
    check_seats(inputs)
    return await ClairRun(inputs, listener or Silent()).run()


@dataclass
class ClairRun(StepwiseRun[ClairInputs]):
    """One start of a run."""

    kind = KIND
    operational = OPERATIONAL

    def steps(self) -> Making:
        """See `StepwiseRun.steps`."""
        return Making(self.inputs)

    def open_seats(self, opening: Opening, seats: list[str]) -> AbstractAsyncContextManager[Open]:
        """See `StepwiseRun.open_seats`."""
        return open_seats(self.inputs, opening, seats)

    def not_apart(self, record: Mapping[str, Any]) -> list[str]:
        """See `StepwiseRun.not_apart`."""
        return not_apart(record)

    def undecided(self, summary: Mapping[str, Any]) -> int:
        """See `StepwiseRun.undecided`."""
        failed, unscored = summary["failed"], summary["unscored"]
        return int(failed + unscored)

    def write(self, made: Made) -> dict[str, Any]:
        """Write pairs and dropped rows; return the summary."""
        inputs, rows = self.inputs, made.rows
        pairs, repeated = make_pairs(inputs, rows, made.record)
        same = {(row["case"], row["repeat"]): row for row in repeated}
        rows = [same.get((row["case"], row["repeat"]), row) for row in rows]
        write_rows(made.folder.path / PAIRS_FILE, [pair.row for pair in pairs])
        dropped = [dump_json(dropped_line(row)) + "\n" for row in not_pairs(rows)]
        write_atomic(made.folder.path / DROPPED_FILE, "".join(dropped))
        return summarize(
            inputs, rows, pairs, made.record,
            planned=len(made.keys), spent=made.spent, facts=made.facts,
        )  # fmt: skip
