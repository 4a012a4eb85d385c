"""Run multiple-choice suites: every case by every method, recorded, summarized, reported.

Models run one after the other. Every call and row is committed as it comes, so a killed run goes on
where it was and a finished one does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

from adhere.chat import Model, Role
from adhere.errors import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    AdhereError,
    BadInput,
    Stopped,
)
from adhere.experiments.choices.inputs import ChoiceInputs, read_choice_inputs
from adhere.experiments.choices.kind import KIND
from adhere.experiments.choices.rows import ChoiceRows
from adhere.experiments.choices.summary import finish
from adhere.experiments.inputs import probes
from adhere.experiments.opening import Limiters, Opening, facts_of, spend_limit
from adhere.experiments.phases import Listener
from adhere.experiments.plan import OPERATIONAL, Plan
from adhere.experiments.roles import (
    check_able,
    check_probe,
    check_reward,
    decodes_here,
    find_logprobs,
    find_text_scores,
    others_than,
)
from adhere.experiments.starts import (
    RunResult,
    Silent,
    new_record,
    seconds_spent,
    until_its_end,
)
from adhere.judging import ModelJudge
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter
from adhere.records import RunFolder
from adhere.records.run_folder import Key
from adhere.suites.choices import GRADED, OWN_WORDS


async def run_choices(plan: Plan, listener: Listener | None = None) -> RunResult:
    """Run (or go on with) a plan of multiple-choice suites. Raises AdhereError."""
    inputs = read_choice_inputs(plan)
    return await ChoiceRun(inputs, listener or Silent()).run()


@dataclass
class ChoiceRun:
    """One start of a run."""

    inputs: ChoiceInputs
    listener: Listener
    _started: float = 0.0

    def __post_init__(self) -> None:
        """Find missing keys and unknown names before a folder is made. Raises BadInput."""
        plan = self.inputs.plan
        for model in plan.models:
            connect(model, Limiter())
        if self.inputs.grader is not None:
            connect(self.inputs.grader.config.model_only(), Limiter())
        for arm in self.inputs.arms:
            for role in arm.method.requires:
                if role is Role.REWARD and plan.reward is None:
                    raise BadInput(
                        f"method {arm.label}: chooses by a reward model, and the plan names none",
                        hint="Give --reward MODEL (docs/rewards.md).",
                    )
                if role not in (Role.POLICY, Role.REWARD, Role.PROBE):
                    raise BadInput(f"method {arm.label}: needs a model in the role {role.value!r}")
        if plan.reward is not None and self._needs_reward:
            check_reward(plan.reward, plan.models)
        if plan.probe is not None and any(self._needs_probe(s.name) for s in self.inputs.suites):
            check_probe(plan.probe, others_than(plan))

    @property
    def _needs_reward(self) -> bool:
        return any(Role.REWARD in arm.method.requires for arm in self.inputs.arms)

    def _needs_probe(self, suite: str) -> bool:
        return any(probes(arm.method, self.inputs.specs[suite]) for arm in self.inputs.arms)

    async def run(self) -> RunResult:
        """Choose, score, summarize. Raises AdhereError."""
        plan = self.inputs.plan
        self._started = time.monotonic()
        with RunFolder(plan.out, plan.reuse) as folder:
            record = self._record()
            folder.check(record["identity"])
            rows = ChoiceRows(self.inputs, folder, self.listener)
            keys = self.inputs.row_keys()
            to_do = rows.to_do(keys)
            self.listener.started(len(keys), len(keys) - len(to_do))
            with until_its_end(folder) as ending:
                if to_do:
                    await self._models(folder, record, rows, keys)
                elif folder.read_record() is None:
                    folder.claim(record)
            summary = finish(
                self.inputs,
                folder,
                keys,
                folder.read_record() or record,
                wall_seconds=seconds_spent(folder, self._started, worked=bool(to_do)),
                stopped=ending.why,
            )
            ending.pass_on()
        return self._result(summary, ending.error, did_nothing=not to_do)

    def _record(self) -> dict[str, Any]:
        inputs = self.inputs
        return new_record(inputs.plan, OPERATIONAL, inputs.identity(), kind=KIND, models={})

    def _result(
        self, summary: Mapping[str, Any], stopped: AdhereError | None, *, did_nothing: bool
    ) -> RunResult:
        plan = self.inputs.plan
        if stopped is not None:
            return RunResult(plan.out, summary, did_nothing, str(stopped), Stopped.exit_code)
        mine = {(m.label, a.label) for m in plan.models for a in self.inputs.arms}
        suites = {suite.name for suite in self.inputs.suites}
        rows = [
            r
            for r in summary["rows"]
            if r["subset"] == "all" and r["suite"] in suites and (r["model"], r["method"]) in mine
        ]
        bad = sum(r["n_failed"] + r["n_unscored"] for r in rows)
        too_many = bad > plan.max_unscored * sum(r["n"] for r in rows)
        code = EXIT_INCOMPLETE if too_many else EXIT_DONE
        return RunResult(plan.out, summary, did_nothing, "", code)

    # ------------------------------------------------------------ models

    async def _models(
        self, folder: RunFolder, record: dict[str, Any], rows: ChoiceRows, keys: Sequence[Key]
    ) -> None:
        plan = self.inputs.plan
        asked = (*plan.models, plan.judge, plan.reward, plan.probe)
        meter = spend_limit(plan, self.inputs.prices, folder, asked, self._started)
        limiters, note = Limiters(keep_local=True), self.listener.note
        opening = Opening(plan, folder, record, meter, limiters, note, one_spec=False)
        deadline = rows.breaker.at_deadline(plan.stop.seconds, self._started)
        try:
            for model_plan in plan.models:
                mine = [key for key in keys if key[2] == model_plan.label]
                if rows.to_do(mine):
                    await self._policy(opening, rows, mine, model_plan)
                    if rows.waiting:  # both decode on this machine: the judge waited its turn
                        async with AsyncExitStack() as stack:
                            await rows.grade(await self._judge(opening, rows, stack))
                        rows.judge_models = {}
        finally:
            deadline.cancel()

    async def _policy(
        self, opening: Opening, rows: ChoiceRows, keys: Sequence[Key], config: ModelConfig
    ) -> None:
        """Do what is missing of one model, suite by suite."""
        plan, limiter = self.inputs.plan, opening.limiter(config)
        folder = opening.folder
        async with opening.policy(config, limiter) as policy:
            chooses = any(suite.metric not in OWN_WORDS for suite in self.inputs.suites)
            await find_text_scores([arm.method for arm in self.inputs.arms], policy)
            if chooses:  # the baselines read first tokens where they can
                await find_logprobs(policy)
            for arm in self.inputs.arms:
                check_able(arm.label, arm.method, config.label, policy)
            opening.record["models"][config.label] = facts_of(config, policy)
            opening.check_policies()
            for suite in self.inputs.suites:
                mine = [key for key in keys if key[0] == suite.name]
                if not rows.to_do(mine):
                    continue
                async with AsyncExitStack() as stack:
                    models: dict[Role, Model] = {Role.POLICY: policy}
                    rows.roles = {}
                    part = self.inputs.part(suite.name)
                    limiters = [limiter]
                    if plan.reward is not None and self._needs_reward:
                        models[Role.REWARD] = await opening.reward(part, stack)
                        rows.roles[Role.REWARD.value] = plan.reward.label
                    # Without a prober the policy probes itself.
                    if plan.probe is not None and self._needs_probe(suite.name):
                        models[Role.PROBE] = await opening.probe(part, stack, config, policy)
                        rows.roles[Role.PROBE.value] = plan.probe.label
                    rows.judge_models = {}
                    if suite.metric == GRADED and not self._judges_later(config):
                        limiters.append(await self._judge(opening, rows, stack))
                    for other in (plan.reward, plan.probe):
                        if other is not None and other.label in rows.roles.values():
                            limiters.append(opening.limiter(other))
                    folder.claim(opening.record)
                    if not folder.is_appending:
                        folder.start_rows(self.inputs.row_keys())
                    await rows.run(mine, models, limiters)
                    rows.judge_models = {}

    def _judges_later(self, config: ModelConfig) -> bool:
        """Whether judge and policy both decode on this machine, where one at a time may."""
        judge = self.inputs.plan.judge
        return judge is not None and decodes_here(judge) and decodes_here(config)

    async def _judge(self, opening: Opening, rows: ChoiceRows, stack: AsyncExitStack) -> Limiter:
        """Open the judge for `rows` until the stack closes; returns the limiter of its server."""
        # It is opened, named and checked as the judge of rules is; what it is asked differs.
        grader = cast(ModelJudge, self.inputs.grader)
        rows.judge_models, limiter = await opening.judge(grader, stack)
        opening.record["judge"]["mode"] = "grades"
        opening.folder.claim(opening.record)
        return limiter


__all__ = ["ChoiceRun", "run_choices"]
