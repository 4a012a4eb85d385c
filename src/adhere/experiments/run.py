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

from adhere.chat import Answer, Case, Model, Outcome, Role, Unscored
from adhere.errors import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    AdhereError,
    Bug,
    DiskFull,
    Filtered,
    Overloaded,
    Stopped,
    Truncated,
)
from adhere.experiments.metrics import LEVEL
from adhere.experiments.plan import OPERATIONAL, Plan
from adhere.experiments.summary import Scorer, control_rows, summarise
from adhere.judging import CheckJudge, Judge
from adhere.methods import Method, load_method
from adhere.methods.base import Request
from adhere.methods.prompting import Prompts
from adhere.models.connect import connect
from adhere.models.limiter import Limiter, RetryPolicy
from adhere.records import SCHEMA_VERSION, Journal, RunFolder, row_key
from adhere.records.run_folder import SUMMARY_FILE, Key, write_atomic
from adhere.spec import Specification, load_spec, looks_like_refusal
from adhere.suites import Suite, load_prompts

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


@dataclass
class _Arm:
    label: str
    method: Method
    config: dict[str, Any]


@dataclass
class _Inputs:
    """Everything that is read and checked before anything is written."""

    plan: Plan
    spec: Specification
    suites: list[Suite]
    arms: list[_Arm]
    prompts: Prompts
    judge: Judge
    baseline: str

    def keys(self) -> list[Key]:
        """All row keys of the plan, in the order of the results file."""
        return [
            (suite.name, case.id, model.label, arm.label, repeat)
            for suite in self.suites
            for model in self.plan.models
            for case in suite.cases
            for arm in self.arms
            for repeat in range(self.plan.repeats)
        ]

    def identity(self) -> dict[str, Any]:
        """What decides samples and marks; models add theirs when they are connected."""
        return {
            "spec": self.spec.digest,
            "judge": self.judge.identity,
            "templates": self.prompts.digest,
            "sampling": self.plan.sampling.model_dump(mode="json", exclude_none=True),
            "budget": self.plan.budget.model_dump(mode="json", exclude_none=True),
            "suites": {suite.name: suite.digest for suite in self.suites},
            "methods": {arm.label: arm.config for arm in self.arms},
            "models": {},
        }


def read_inputs(plan: Plan) -> _Inputs:
    """Read spec, prompts, methods and templates. Raises BadInput before anything is written."""
    spec = load_spec(plan.spec)
    arms = []
    for item in plan.methods:
        method = load_method(item.method, item.options)
        config = {"method": item.method, **method.config.model_dump(mode="json")}  # type: ignore[attr-defined]
        arms.append(_Arm(item.label, method, config))
    labels = [arm.label for arm in arms]
    judge = CheckJudge()
    undecided = judge.undecided(spec)
    if len(undecided) == len(spec.rules):
        from adhere.errors import BadInput

        raise BadInput(
            f"{plan.spec}: no rule has a check, so nothing can be decided",
            hint="Add a `check:` line under the rules that code can decide; see docs/checks.md, "
            f"or run `adhere spec check {plan.spec}`.",
        )
    return _Inputs(
        plan=plan,
        spec=spec,
        suites=[load_prompts(path) for path in plan.prompts],
        arms=arms,
        prompts=Prompts(plan.prompts_dir),
        judge=judge,
        baseline=plan.baseline or ("vanilla" if "vanilla" in labels else labels[0]),
    )


async def run_experiment(plan: Plan, listener: Listener | None = None) -> RunResult:
    """Run (or go on with) the experiment of a plan. Raises AdhereError."""
    inputs = read_inputs(plan)
    for model in plan.models:
        # Fail on a missing key or an unknown name before a folder is made.
        connect(model, Limiter())
    return await _Run(inputs, listener or Silent()).run()


@dataclass
class _Run:
    inputs: _Inputs
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
            fresh = folder.read_record() is None
            if not fresh:
                folder.claim(record)
            rows = folder.rows()
            pending = {key for key in keys if key not in rows or _again(rows[key])}
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
        arms = [r for r in summary["rows"] if r["subset"] == "all" and not r["control"]]
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
                folder.claim(record)
                if not begun:
                    folder.start_rows(keys)
                    begun = True
                await self._rows(folder, Journal(model, folder.draws), limiter, todo)

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
                    row = await self._row(key, cases[key[0], key[1]], arms[key[3]], model)
                    if self._stop is not None and row["outcome"] == Outcome.FAILED:
                        return  # never asked, because the breaker is open
                    folder.put_row(row)
                except DiskFull as error:
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

    async def _row(self, key: Key, case: Case, arm: _Arm, model: Model) -> dict[str, Any]:
        plan = self.inputs.plan
        request = Request(
            messages=case.messages,
            spec=self.inputs.spec,
            sampling=plan.sampling.sampling(),
            prompts=self.inputs.prompts,
            budget=plan.budget.budget(),
            draw=key[4],
            reference=case.reference,
        )
        answer, error, outcome, reason = Answer(""), None, Outcome.SCORED, ""
        try:
            answer = await arm.method.answer(request, {Role.POLICY: model})
        except DiskFull:
            raise
        except Truncated as caught:
            outcome, reason = Outcome.TRUNCATED, caught.message
        except Filtered as caught:
            outcome, reason = Outcome.FILTERED, caught.message
        except AdhereError as caught:
            outcome, reason, error = Outcome.FAILED, caught.message, caught
        except Exception as caught:
            outcome, reason = Outcome.FAILED, f"{type(caught).__name__}: {caught}"
            error = Bug(reason)
        marks, deciders, reasons = {}, {}, {}
        if outcome is Outcome.SCORED:
            if not answer.text.strip():
                outcome, reason = Outcome.UNSCORED, "the answer is empty"
            else:
                verdict = await self.inputs.judge.judge(case, answer, self.inputs.spec, {})
                if isinstance(verdict, Unscored):
                    outcome, reason = Outcome.UNSCORED, verdict.reason
                else:
                    marks = {k: v.mark.value for k, v in verdict.marks.items()}
                    deciders = {k: v.decider for k, v in verdict.marks.items()}
                    reasons = {k: v.reason for k, v in verdict.marks.items()}
        safety = behavioral = total = None
        if marks:
            safety, behavioral, total = self._scorer().row(marks)
        variant = getattr(arm.method, "variant", None)
        return {
            "schema_version": SCHEMA_VERSION,
            "suite": key[0],
            "case": key[1],
            "label": case.label,
            "model": key[2],
            "method": key[3],
            "variant": variant(model.capabilities) if variant else "",
            "oracle": bool(getattr(arm.method, "oracle", False)),
            "repeat": key[4],
            "messages": [m.to_dict() for m in case.messages],
            "prompt": case.prompt,
            "text": answer.text,
            "thought": answer.thought,
            "steps": [step.to_dict() for step in answer.steps],
            "outcome": outcome.value,
            "reason": reason,
            "error": None if error is None else _error_facts(error),
            "finish_reason": answer.finish_reason,
            "cut": answer.finish_reason == "length",
            "refused": looks_like_refusal(answer.text),
            "empty": outcome is not Outcome.FAILED and not answer.text.strip(),
            "marks": marks,
            "deciders": deciders,
            "mark_reasons": reasons,
            "score": total,
            "safety": safety,
            "behavioral": behavioral,
            "usage": {role: used.to_dict() for role, used in answer.usage.items()},
            "paper_usage": {role: used.to_dict() for role, used in answer.paper_usage.items()},
            "facts": dict(answer.facts),
            "seconds": round(sum(used.seconds for used in answer.usage.values()), 3),
        }

    def _scorer(self) -> Scorer:
        plan = self.inputs.plan
        return Scorer(self.inputs.spec, plan.alpha, plan.na_policy, plan.sampling.seed)

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
        found = {row_key(row) for row in rows}
        summary = summarise(
            rows=rows,
            spec=inputs.spec,
            scorer=self._scorer(),
            judge=inputs.judge.identity,
            baseline=inputs.baseline,
            controls=controls,
            settings={
                **sampling.model_dump(mode="json", exclude_none=True),
                "alpha": inputs.plan.alpha,
                "na_policy": inputs.plan.na_policy,
                "repeats": inputs.plan.repeats,
                "judge": inputs.judge.identity,
                "baseline": inputs.baseline,
                "orders": _orders(record),
                "confidence": LEVEL,
                "accounting": "true: every call of a method, as if it ran alone",
            },
            models=[{"name": name, **facts} for name, facts in record.get("models", {}).items()],
            undecided=inputs.judge.undecided(inputs.spec),
            spent=folder.draws.spent(),
            wall_seconds=wall_seconds,
            expected=len(found | set(keys)),
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


def _again(row: Mapping[str, Any]) -> bool:
    """Whether another try could end otherwise: the server or machine failed, not the row."""
    return bool(row["outcome"] == Outcome.FAILED and row["error"]["retry"])


def _error_facts(error: AdhereError) -> dict[str, Any]:
    from adhere.errors import BadInput, ContextTooLong

    return {
        "kind": error.kind,
        "message": error.message,
        "fatal": error.fatal,
        "retry": not isinstance(error, ContextTooLong | BadInput),
    }
