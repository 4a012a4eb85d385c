"""Run an experiment: answer every case with every method, judge, record, summarise, report.

Models run in phases (one after the other), rows of a model concurrently; the limiter of its
server decides how many calls are in flight. Every draw and every row is committed as it comes,
so a killed run goes on where it was and a finished one does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from adhere.chat import Model, Outcome, Role
from adhere.errors import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    AdhereError,
    BadInput,
    DiskFull,
    Overloaded,
    Stopped,
)
from adhere.experiments.answering import answer_row, worth_retrying
from adhere.experiments.inputs import Inputs, read_inputs
from adhere.experiments.metrics import LEVEL
from adhere.experiments.plan import OPERATIONAL, Plan
from adhere.experiments.summary import control_rows, summarise
from adhere.models.connect import connect
from adhere.models.limiter import Limiter, RetryPolicy
from adhere.records import Journal, RunFolder, row_key
from adhere.records.run_folder import SUMMARY_FILE, Key, write_atomic

BREAKER = 20  # equal permanent failures in a row that stop a run


class Listener(Protocol):
    """Who watches a run. All methods are called from the event loop and must return at once."""

    def started(self, total: int, done: int) -> None:
        """Say how many rows there are, and how many were there before."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Take one finished row."""

    def note(self, text: str) -> None:
        """Take one line of progress."""


class Silent:
    """A listener that does nothing."""

    def started(self, total: int, done: int) -> None:
        """Ignore it."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `stopped` says why it ended early, or is empty."""

    folder: Path
    summary: Mapping[str, Any]
    did_nothing: bool
    stopped: str = ""
    exit_code: int = EXIT_DONE


async def run_experiment(plan: Plan, listener: Listener | None = None) -> RunResult:
    """Run (or go on with) the experiment of a plan. Raises AdhereError."""
    inputs = read_inputs(plan)
    for model in plan.models:
        # Fail on a missing key or an unknown name before a folder is made.
        connect(model, Limiter())
    return await _Run(inputs, listener or Silent()).run()


@dataclass
class _Run:
    inputs: Inputs
    listener: Listener
    identities: list[dict[str, Any]] = field(default_factory=list)
    _streak: tuple[str, int] = ("", 0)
    _stop: AdhereError | None = None

    async def run(self) -> RunResult:
        plan = self.inputs.plan
        started = time.monotonic()
        folder = RunFolder(plan.out)
        with folder:
            keys = self.inputs.keys()
            record = self._record()
            folder.check(record["identity"])
            rows = folder.rows()
            pending = {key for key in keys if key not in rows or worth_retrying(rows[key])}
            self.listener.started(len(keys), len(keys) - len(pending))
            stopped: AdhereError | None = None
            interrupted = False
            if pending:
                try:
                    await self._phases(folder, record, pending, keys)
                except AdhereError as error:
                    if folder.read_record() is None:
                        folder.discard()
                        raise
                    if isinstance(error, BadInput):
                        raise
                    stopped = error
                except asyncio.CancelledError:
                    if folder.read_record() is None:
                        folder.discard()
                        raise
                    interrupted = True
            if isinstance(stopped, DiskFull):
                raise stopped  # the journal holds what was done; the rest would not fit either
            summary = await self._finish(folder, keys, time.monotonic() - started)
            if interrupted:
                raise asyncio.CancelledError
        return self._result(summary, stopped, did_nothing=not pending)

    def _record(self) -> dict[str, Any]:
        dumped = self.inputs.plan.model_dump(mode="json", exclude_none=True)
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "identity": self.inputs.identity(),
            "plan": {k: v for k, v in dumped.items() if k not in OPERATIONAL},
            "operational": {k: v for k, v in dumped.items() if k in OPERATIONAL and k != "out"},
        }

    def _result(
        self, summary: Mapping[str, Any], stopped: AdhereError | None, *, did_nothing: bool
    ) -> RunResult:
        plan = self.inputs.plan
        if stopped is not None:
            return RunResult(plan.out, summary, did_nothing, str(stopped), Stopped.exit_code)
        mine = {(m.label, a.label) for m in plan.models for a in self.inputs.arms}
        arms = [
            r for r in summary["rows"] if r["subset"] == "all" and (r["model"], r["method"]) in mine
        ]
        total = sum(r["n"] for r in arms)
        bad = sum(r["n_failed"] + r["n_unscored"] for r in arms)
        code = EXIT_INCOMPLETE if bad > plan.max_unscored * total else EXIT_DONE
        return RunResult(plan.out, summary, did_nothing, "", code)

    # ------------------------------------------------------------ sampling

    async def _phases(
        self,
        folder: RunFolder,
        record: dict[str, Any],
        pending: set[Key],
        keys: Sequence[Key],
    ) -> None:
        plan = self.inputs.plan
        begun = False
        for model_plan in plan.models:
            todo = [k for k in keys if k in pending and k[2] == model_plan.label]
            if not todo:
                continue
            limits = plan.limits
            limiter = Limiter(
                limits.concurrency, auto=limits.auto, retry=RetryPolicy(attempts=limits.attempts)
            )
            async with connect(
                model_plan, limiter, timeout=limits.timeout, note=self.listener.note
            ) as model:
                record["identity"]["models"][model_plan.label] = model.identity
                record.setdefault("models", {})[model_plan.label] = {
                    "identity": model.identity,
                    "base_url": model_plan.base_url or "",
                    "capabilities": sorted(c.value for c in model.capabilities),
                }
                self._check_needs(model_plan.label, model)
                self._check_distinct(folder.check(record["identity"])["models"])
                folder.claim(record)
                if not begun:
                    folder.start_rows(keys)
                    begun = True
                await self._rows(folder, Journal(model, folder.draws), limiter, todo)

    def _check_needs(self, label: str, model: Model) -> None:
        """Refuse methods that need what this run has not, before the first row."""
        for arm in self.inputs.arms:
            for role, needed in arm.method.requires.items():
                if role is not Role.POLICY:
                    raise BadInput(f"method {arm.label}: needs a model in the role {role.value!r}")
                if lacking := needed - model.capabilities:
                    names = ", ".join(sorted(c.value for c in lacking))
                    raise BadInput(f"method {arm.label}: {label} was found unable to: {names}")

    @staticmethod
    def _check_distinct(identities: Mapping[str, str]) -> None:
        """Two models that look the same to the journal would be given each other's answers."""
        seen: dict[str, str] = {}
        for label, identity in identities.items():
            if identity in seen:
                raise BadInput(
                    f"models {seen[identity]!r} and {label!r} have the same identity ({identity})",
                    hint="If they are not the same model, give both a `name` in adhere.yaml.",
                )
            seen[identity] = label

    async def _rows(
        self, folder: RunFolder, model: Model, limiter: Limiter, todo: Sequence[Key]
    ) -> None:
        cases = {(s.name, c.id): c for s in self.inputs.suites for c in s.cases}
        arms = {arm.label: arm for arm in self.inputs.arms}
        # One row for each call that may be in flight: more conversations than a server has slots
        # would push each other's beginnings out of its cache.
        room = asyncio.Semaphore(max(1, int(limiter.ceiling)))

        async def one(key: Key) -> None:
            async with room:
                if self._stop is not None:
                    return
                try:
                    row = await answer_row(
                        self.inputs, key, cases[key[0], key[1]], arms[key[3]], model
                    )
                    if self._stop is not None and row["outcome"] == Outcome.FAILED:
                        return  # never asked, because the breaker is open
                    folder.put_row(row)
                except AdhereError as error:  # of the journal; a model's is part of the row
                    self._stop = error
                    return
                self.listener.row(row)
                self._watch(row)
                if self._stop is not None:
                    limiter.stop(Overloaded("the run was stopped"))

        async with asyncio.TaskGroup() as group:
            for key in todo:
                group.create_task(one(key))
        if self._stop is not None:
            raise self._stop

    def _watch(self, row: Mapping[str, Any]) -> None:
        """Open the breaker on an error that every row will share."""
        error = row["error"]
        if error is None:
            self._streak = ("", 0)
            return
        kind = error["kind"]
        count = self._streak[1] + 1 if self._streak[0] == kind else 1
        self._streak = (kind, count)
        if self._stop is None and (error["fatal"] or count >= BREAKER):
            times = "" if error["fatal"] else f"{count} rows in a row failed alike: "
            self._stop = Stopped(
                f"stopped: {times}{kind}: {error['message']}",
                hint="Mend the cause and run the same command again; it goes on from here.",
            )

    # ------------------------------------------------------------ the end

    async def _finish(
        self, folder: RunFolder, keys: Sequence[Key], wall_seconds: float
    ) -> dict[str, Any]:
        inputs = self.inputs
        rows = folder.export_rows(keys)
        record = folder.read_record() or self._record()
        controls: dict[tuple[str, str], Any] = {}
        for suite in inputs.suites:
            controls.update(await control_rows(suite, inputs.spec, inputs.judge))
        sampling = inputs.plan.sampling
        arms = record["identity"]["methods"]
        baseline = inputs.plan.baseline or ("vanilla" if "vanilla" in arms else next(iter(arms)))
        # Every case of the folder for every arm of the folder, also those of earlier starts.
        wanted = {row_key(row) for row in rows} | set(keys)
        expected = {
            (suite, case, label, arm, repeat)
            for suite, case, _, _, repeat in wanted
            for label in {key[2] for key in wanted}
            for arm in arms
        }
        summary = summarise(
            rows=rows,
            spec=inputs.spec,
            scorer=inputs.scorer(),
            judge=inputs.judge.identity,
            baseline=baseline,
            controls=controls,
            settings={
                **sampling.model_dump(mode="json", exclude_none=True),
                "alpha": inputs.plan.alpha,
                "na_policy": inputs.plan.na_policy,
                "repeats": inputs.plan.repeats,
                "judge": inputs.judge.identity,
                "baseline": baseline,
                "orders": _orders(record),
                "confidence": LEVEL,
                "accounting": "true: every call of a method, as if it ran alone",
            },
            models=[{"name": name, **facts} for name, facts in record.get("models", {}).items()],
            undecided=inputs.judge.undecided(inputs.spec),
            spent=folder.draws.spent(),
            wall_seconds=wall_seconds,
            expected=len(expected),
            name=inputs.plan.out.name,
            created=record["created"],
        )
        import json

        from adhere.reporting import write_report

        write_atomic(
            folder.path / SUMMARY_FILE,
            json.dumps(summary, indent=1, ensure_ascii=True, allow_nan=False) + "\n",
        )
        write_report(folder.path)
        return summary


def _orders(record: Mapping[str, Any]) -> str:
    orders = {
        config.get("order")
        for config in record["identity"]["methods"].values()
        if "order" in config
    }
    return ", ".join(sorted(str(o) for o in orders)) or "none"
