"""Everything an experiment needs, read and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adhere.errors import BadInput
from adhere.experiments.plan import Plan, Settings
from adhere.experiments.pricing import Prices, read_prices
from adhere.experiments.scorer import Scorer
from adhere.experiments.trust import read_calibration
from adhere.judging import CheckJudge, Judge, ModelJudge
from adhere.methods import Method, load_method
from adhere.prompting import Prompts
from adhere.records.run_folder import Key
from adhere.spec import Specification, load_spec
from adhere.suites import Suite, load_prompts


@dataclass(frozen=True)
class Arm:
    """One method of the plan under its label; `config` is what identity compares."""

    label: str
    method: Method
    config: dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Plan, spec, suites, methods, prompts and judge of an experiment."""

    plan: Settings
    spec: Specification
    suites: list[Suite]
    arms: list[Arm]
    prompts: Prompts
    judge: Judge
    prices: Prices | None = None
    calibration: Mapping[str, Any] | None = None

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

    def scorer(self) -> Scorer:
        """Scores marks as the plan says."""
        plan = self.plan
        return Scorer(self.spec, plan.alpha, plan.na_policy, plan.sampling.seed)

    def identity(self) -> dict[str, Any]:
        """What decides samples and marks; models add theirs when they are connected."""
        return {
            "spec": self.spec.digest,
            "judge": self.judge.settings,
            "templates": self.prompts.digest,
            "sampling": self.plan.sampling.model_dump(mode="json"),
            "budget": self.plan.budget.model_dump(mode="json"),
            "suites": {suite.name: suite.digest for suite in self.suites},
            "methods": {arm.label: arm.config for arm in self.arms},
            "model_settings": {m.label: m.settings() for m in self.plan.models},
            "models": {},
        }


def read_inputs(plan: Plan) -> Inputs:
    """Read spec, prompts, methods and templates. Raises BadInput before anything is written."""
    arms = []
    for item in plan.methods:
        method = load_method(item.method, item.options)
        config = {"method": item.method, **method.config.model_dump(mode="json")}  # type: ignore[attr-defined]
        arms.append(Arm(item.label, method, config))
    return common_inputs(plan, [load_prompts(path) for path in plan.prompts], arms)


def common_inputs(plan: Settings, suites: list[Suite], arms: list[Arm]) -> Inputs:
    """What every run reads besides its answers. Raises BadInput."""
    spec = load_spec(plan.spec)
    prompts = Prompts(plan.prompts_dir)
    prompts.check_all()
    judge: Judge = ModelJudge(plan.judge, prompts) if plan.judge else CheckJudge()
    undecided = judge.undecided(spec)
    if len(undecided) == len(spec.rules) and plan.judge:
        decides = {"guard": "safety rules", "refusal": "rules of category refusal or compliance"}
        raise BadInput(
            f"{plan.spec}: no rule has a check, and a judge of mode {plan.judge.mode} decides "
            f"{decides.get(plan.judge.mode, 'none of them')}, of which there are none",
            hint="Use --judge-mode joint, or see docs/judges.md on what each mode decides.",
        )
    if len(undecided) == len(spec.rules):
        raise BadInput(
            f"{plan.spec}: no rule has a check and no judge decides it, so nothing can be decided",
            hint="Add a `check:` line under the rules that code can decide (docs/checks.md, "
            f"`adhere spec check {plan.spec}`), or give a --judge for the others.",
        )
    return Inputs(
        plan=plan,
        spec=spec,
        suites=suites,
        arms=arms,
        prompts=prompts,
        judge=judge,
        prices=_prices(plan),
        calibration=read_calibration(plan.calibration) if plan.calibration else None,
    )


def _prices(plan: Settings) -> Prices | None:
    """The price file, in which a model's label is as good as its `model` string."""
    if plan.prices is None:
        return None
    models = [*plan.models, *([plan.judge] if plan.judge else [])]
    return read_prices(plan.prices).under({m.label: m.model for m in models})
