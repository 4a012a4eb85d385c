"""Runs that ask the oracle alone: what their rows go through, and how it is asked.

Proposing, comparing and attacking differ in what a row asks and what is made of the reply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from adhere.chat import Outcome
from adhere.experiments.answering import kept
from adhere.experiments.stepwise.rows import Row, ended
from adhere.experiments.stepwise.seats import Open
from adhere.judging import JudgeConfig
from adhere.judging.replies import offers_schema
from adhere.training.recipes.iteralign.redteam import failed
from adhere.training.recipes.iteralign.seats import ORACLE, SeatedRun, SeatedT

NONE = "none"  # how a row ends whose reply gave nothing


class AsksOracle(Protocol):
    """A plan that names an oracle."""

    @property
    def oracle(self) -> JudgeConfig | None:
        """Who is asked; a run has one."""


class OracleInputs(Protocol):
    """What a row's steps look at."""

    @property
    def plan(self) -> AsksOracle:
        """Names the oracle."""


InputsT = TypeVar("InputsT", bound=OracleInputs)


@dataclass
class AskingOracle(ABC, Generic[InputsT]):
    """What the rows go through (`Steps`): one question to the oracle."""

    inputs: InputsT
    structured: bool | None = None

    @property
    def oracle(self) -> JudgeConfig:
        """Who is asked."""
        assert self.inputs.plan.oracle is not None
        return self.inputs.plan.oracle

    def next_seat(self, row: Row) -> str:
        """Always the oracle."""
        return ORACLE

    async def step(self, row: Row, open_: Open) -> Row:
        """Ask, and read the reply."""
        made, outcome, reason, error = await kept(self.ask(row, open_.models[ORACLE]))
        if made is not None:
            return made
        if outcome is Outcome.FAILED:
            assert error is not None
            return failed(row, error, ORACLE)
        return ended(row, NONE, outcome.value, reason)

    @abstractmethod
    async def ask(self, row: Row, model: Any) -> Row:
        """The row at its end. Raises CallError."""

    async def holds_to_schema(self, model: Any) -> bool:
        """Whether replies are held to a schema: as the plan says, or found out once."""
        if self.structured is None:
            self.structured = self.oracle.output == "json" or (
                self.oracle.output == "auto" and await offers_schema(model)
            )
        return self.structured


class OracleRun(SeatedRun[SeatedT]):
    """A run whose rows ask the oracle alone."""

    def undecided(self, summary: Mapping[str, Any]) -> int:
        """See `StepwiseRun.undecided`."""
        return int(summary["failed"] + summary["none"])
