"""One start of a run whose rows go forward step by step: open the models, make, sum up.

A run is its folder (`records/run_folder.py`): run.yaml and the journal; at the end of each start,
also one that was stopped, the kind of run writes its files anew from the journal, and summary.json.
A killed run goes on where it was, and a finished one asks nobody (its files come out the same).
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from adhere.chat import Usage
from adhere.errors import EXIT_DONE, EXIT_INCOMPLETE, AdhereError, Stopped
from adhere.experiments.opening import Limiters, Opening, spend_limit
from adhere.experiments.phases import Listener
from adhere.experiments.plan import Settings
from adhere.experiments.pricing import Prices
from adhere.experiments.spending import SpendLimit, money_spent
from adhere.experiments.starts import RunResult, new_record, seconds_spent, until_its_end
from adhere.experiments.stepwise.rows import Row, RowLoop, Steps, may_come_better
from adhere.experiments.stepwise.seats import Open, turns
from adhere.models.connect import ModelConfig
from adhere.records import RunFolder
from adhere.records.run_folder import SUMMARY_FILE, Key, write_atomic


class StepwiseInputs(Protocol):
    """What a run reads before it begins."""

    @property
    def plan(self) -> Settings:
        """How it is to be made."""

    @property
    def prices(self) -> Prices | None:
        """What tokens cost."""

    @property
    def seats(self) -> dict[str, ModelConfig]:
        """The models that are asked, in the order in which a row needs them."""

    def row_keys(self) -> list[Key]:
        """All rows, in the order of the prompts."""

    def identity(self) -> dict[str, Any]:
        """What decides the rows; models add theirs when they are connected."""


InputsT = TypeVar("InputsT", bound=StepwiseInputs)


@dataclass(frozen=True)
class Made:
    """What there is at the end of a start.

    `rows`: those on record, in the order of the plan; `spent`: by the model's label; `facts`: what
    every summary says of a run.
    """

    folder: RunFolder
    record: Mapping[str, Any]
    keys: Sequence[Key]
    rows: list[Row]
    spent: Mapping[str, Usage]
    facts: Mapping[str, Any]


@dataclass
class StepwiseRun(ABC, Generic[InputsT]):
    """One start of a run. A kind of run says what its steps, models and files are."""

    inputs: InputsT
    listener: Listener
    kind: ClassVar[str]
    operational: ClassVar[tuple[str, ...]]
    weights_together: ClassVar[bool] = False  # see `seats.turns`
    _started: float = 0.0
    _limiters: Limiters = field(default_factory=lambda: Limiters(keep_local=True))

    @abstractmethod
    def steps(self) -> Steps:
        """What a row goes through."""

    @abstractmethod
    def open_seats(self, opening: Opening, seats: list[str]) -> AbstractAsyncContextManager[Open]:
        """The models of some seats, named in the run's record. Raises CallError or BadInput."""

    @abstractmethod
    def not_apart(self, record: Mapping[str, Any]) -> list[str]:
        """Which models of a run are one and the same, in words."""

    @abstractmethod
    def write(self, made: Made) -> dict[str, Any]:
        """Write the files of this kind of run; return the summary."""

    @abstractmethod
    def undecided(self, summary: Mapping[str, Any]) -> int:
        """How many rows came to nothing that counts."""

    async def run(self) -> RunResult:
        """Make what is missing, then write the files. Raises AdhereError."""
        plan, inputs = self.inputs.plan, self.inputs
        self._started = time.monotonic()
        with RunFolder(plan.out, plan.reuse) as folder:
            record = new_record(
                plan, self.operational, inputs.identity(), kind=self.kind, models={}
            )
            folder.check(record["identity"])
            loop = RowLoop(self.steps(), folder, self.listener)
            keys = inputs.row_keys()
            to_do = loop.to_do(keys)
            self.listener.started(len(keys), len(keys) - len(to_do))
            with until_its_end(folder) as ending:
                if to_do:
                    await self._models(folder, record, loop, keys)
                elif not keys:  # a run of nothing is one too: its files say so
                    folder.claim(record)
            summary = self._finish(folder, loop, keys, ending.why, worked=bool(to_do))
            ending.pass_on()
        return self._result(summary, ending.error, did_nothing=not to_do)

    def _result(
        self, summary: Mapping[str, Any], stopped: AdhereError | None, *, did_nothing: bool
    ) -> RunResult:
        plan = self.inputs.plan
        if stopped is not None:
            return RunResult(plan.out, summary, did_nothing, str(stopped), Stopped.exit_code)
        too_many = self.undecided(summary) > plan.max_unscored * summary["planned"]
        code = EXIT_INCOMPLETE if too_many else EXIT_DONE
        return RunResult(plan.out, summary, did_nothing, "", code)

    async def _models(
        self, folder: RunFolder, record: dict[str, Any], loop: RowLoop, keys: Sequence[Key]
    ) -> None:
        """Bring all rows to their end, with all models open, or those of this machine in turn."""
        plan = self.inputs.plan
        meter = self._meter(folder)
        opening = Opening(plan, folder, record, meter, self._limiters, self.listener.note)
        async with AsyncExitStack() as stack:
            deadline = loop.breaker.at_deadline(plan.stop.seconds, self._started)
            stack.callback(deadline.cancel)
            always, in_turn = turns(self.inputs.seats, weights_together=self.weights_together)
            open_ = await stack.enter_async_context(self.open_seats(opening, always))
            # Also with none open: rows may wait for nothing but a check.
            await self._some(opening, loop, keys, open_)
            while seat := next((s for s in in_turn if loop.waiting(keys)[s]), None):
                async with self.open_seats(opening, [seat]) as one:
                    await self._some(opening, loop, keys, open_.beside(one))

    async def _some(
        self, opening: Opening, loop: RowLoop, keys: Sequence[Key], open_: Open
    ) -> None:
        opening.folder.claim(opening.record)
        for words in self.not_apart(opening.record):
            self.listener.note(f"note: {words}")
        await loop.run(keys, open_)

    def _meter(self, folder: RunFolder) -> SpendLimit:
        inputs = self.inputs
        seats = list(inputs.seats.values())
        return spend_limit(inputs.plan, inputs.prices, folder, seats, self._started)

    def _finish(
        self, folder: RunFolder, loop: RowLoop, keys: Sequence[Key], stopped: str, *, worked: bool
    ) -> dict[str, Any]:
        """Write the files; return the summary."""
        inputs, prices = self.inputs, self.inputs.prices
        record = folder.read_record()
        assert record is not None
        by_identity, labels = folder.draws.spent(), self._meter(folder).labels
        spent: dict[str, Usage] = {}
        for identity, used in by_identity.items():
            label = labels.get(identity, identity)
            spent[label] = spent.get(label, Usage()) + used
        rows = [loop.known[key] for key in keys if key in loop.known]
        facts = {
            "name": inputs.plan.out.name,
            "created": record["created"],
            "spent_cost": money_spent(by_identity, labels, prices),
            "currency": prices.currency if prices else None,
            "wall_seconds": round(seconds_spent(folder, self._started, worked=worked), 1),
            "stopped": stopped,
            "tried_again": sum(may_come_better(row) for row in rows),
        }
        summary = self.write(Made(folder, record, keys, rows, spent, facts))
        text = json.dumps(summary, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        write_atomic(folder.path / SUMMARY_FILE, text)
        return summary
