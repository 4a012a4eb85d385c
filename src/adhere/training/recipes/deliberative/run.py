"""Make rows to train a student on: ask the teacher about every prompt, read, filter, strip spec.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    rows.jsonl       the rows in the order of the prompts, as TRL and `adhere train` read them
    rejected.jsonl   the prompts that gave none, each with its reason and its refused tries
    report.html      the numbers as a page; it shows no prompt and no answer
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from adhere.experiments.opening import Opening
from adhere.experiments.phases import Listener
from adhere.experiments.starts import RunResult, Silent, new_record
from adhere.experiments.stepwise.rows import FAILED
from adhere.experiments.stepwise.run import Made, StepwiseRun
from adhere.experiments.stepwise.seats import Open
from adhere.records import RunFolder
from adhere.records.run_folder import write_atomic
from adhere.training.recipes.clair.seats import not_apart
from adhere.training.recipes.deliberative.inputs import (
    KIND,
    DistillInputs,
    read_distill_inputs,
)
from adhere.training.recipes.deliberative.making import REJECTED, Making
from adhere.training.recipes.deliberative.plan import OPERATIONAL, DistillPlan
from adhere.training.recipes.deliberative.rows import (
    as_text,
    make_rows,
    mix_facts,
    mixed_rows,
    rejected_line,
)
from adhere.training.recipes.deliberative.seats import check_seats, open_seats
from adhere.training.recipes.deliberative.summary import summarize

ROWS_FILE = "rows.jsonl"
REJECTED_FILE = "rejected.jsonl"
REPORT_FILE = "report.html"


async def distill(plan: DistillPlan, listener: Listener | None = None) -> RunResult:
    """Make (or go on making) the rows of a plan. Raises AdhereError."""
    inputs = read_distill_inputs(plan)
    check_seats(inputs)
    return await DistillRun(inputs, listener or Silent()).run()


def check_same(plan: DistillPlan) -> None:
    """Raises BadInput where the folder's run is one by another plan. Asks nobody."""
    inputs = read_distill_inputs(plan)
    with RunFolder(plan.out, plan.reuse) as folder:
        record = new_record(plan, OPERATIONAL, inputs.identity(), kind=KIND, models={})
        folder.check(record["identity"])


@dataclass
class DistillRun(StepwiseRun[DistillInputs]):
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
        return int(summary["failed"] + summary["rejected_by_reason"].get("unscored", 0))

    def write(self, made: Made) -> dict[str, Any]:
        """Write rows, rejected rows and the page; return the summary."""
        from adhere.training.recipes.deliberative.page import render

        inputs, path = self.inputs, made.folder.path
        kept, repeated = make_rows(inputs, made.rows, made.record)
        same = {(row["case"], row["repeat"]): row for row in repeated}
        rows = [same.get((row["case"], row["repeat"]), row) for row in made.rows]
        mixed = mixed_rows(inputs, kept)
        write_atomic(path / ROWS_FILE, as_text([*kept, *mixed]))
        gone = [rejected_line(inputs, r) for r in rows if r["outcome"] in (REJECTED, FAILED)]
        write_atomic(path / REJECTED_FILE, as_text(gone))
        summary = summarize(
            inputs, rows, kept, mix_facts(inputs, kept, mixed), made.record,
            planned=len(made.keys), spent=made.spent, facts=made.facts,
        )  # fmt: skip
        write_atomic(path / REPORT_FILE, render(summary))
        return summary
