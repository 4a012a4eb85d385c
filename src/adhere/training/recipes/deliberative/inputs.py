"""Everything that distilling needs, read and checked before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adhere.chat import digest
from adhere.errors import BadInput
from adhere.experiments.pricing import Prices, read_prices
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts
from adhere.records.run_folder import Key
from adhere.spec import Specification, load_spec
from adhere.training.recipes.deliberative.composing import Composition, compose
from adhere.training.recipes.deliberative.deciding import Decider, GuardDecider, make_decider
from adhere.training.recipes.deliberative.mixing import Mix, read_mix
from adhere.training.recipes.deliberative.plan import DistillPlan, FilterName
from adhere.training.recipes.deliberative.prompts import Prompt, read_prompts
from adhere.training.recipes.deliberative.reading import ANSWER, REASONING

KIND = "distill"
SUITE = "prompts"  # the first part of every row's key; what the file is called decides nothing
TEACHER, JUDGE = "teacher", "judge"  # who may have to be open


@dataclass(frozen=True)
class DistillInputs:
    """Plan, spec, prompts with their categories, templates and filters.

    `decider` asks the judge; None where no filter does. `mix`: the rows to put behind, if any.
    """

    plan: DistillPlan
    spec: Specification
    prompts: tuple[Prompt, ...]
    templates: Prompts
    filters: tuple[FilterName, ...]
    decider: Decider | None
    mix: Mix | None
    prices: Prices | None

    def row_keys(self) -> list[Key]:
        """All rows of the plan, in the order of the prompts."""
        return [
            (SUITE, prompt.case.id, "", "", repeat)
            for prompt in self.prompts
            for repeat in range(self.plan.repeats)
        ]

    @cached_property
    def by_id(self) -> dict[str, Prompt]:
        """Prompts by the id of their case."""
        return {prompt.case.id: prompt for prompt in self.prompts}

    @cached_property
    def task(self) -> str:
        """What a teacher is told beside rules and prompt, in either form."""
        return "\n".join(
            self.templates.render(
                "deliberative/teach", question="", name="", description="", fallback="", full=[],
                short=[], categories=["-"], form=form, think_words=self.plan.think_words or 1,
                reasoning=REASONING, answer=ANSWER,
            )
            for form in ("parts", "think")
        )  # fmt: skip

    def composed(self, prompt: Prompt) -> Composition:
        """What of the spec goes with a prompt."""
        return compose(self.spec, prompt.categories, self.plan.compose)

    @property
    def seats(self) -> dict[str, ModelConfig]:
        """The models that are asked, in the order in which a row needs them."""
        seats: dict[str, ModelConfig] = {TEACHER: self.plan.taught_by}
        if self.plan.judge is not None:
            seats[JUDGE] = self.plan.judge
        return seats

    def identity(self) -> dict[str, Any]:
        """What decides the rows; models add theirs when they are connected."""
        plan = self.plan
        return {
            "kind": KIND,
            "spec": self.spec.digest,
            "prompts": digest([p.says() for p in self.prompts]),
            "compose": plan.compose,
            "form": plan.form,
            "think_tokens": plan.think_tokens if plan.form == "forced" else None,
            "think_words": plan.think_words,
            "tries": plan.tries,
            "filters": list(self.filters),
            "judge": self.decider.settings if self.decider else None,
            "templates": self.templates.digest_of("deliberative/"),
            "sampling": plan.sampling.model_dump(mode="json"),
            "teacher": plan.taught_by.settings(),
            "models": {},
        }


def read_distill_inputs(plan: DistillPlan) -> DistillInputs:
    """Read spec, prompts, templates and the mix. Raises BadInput before anything is written."""
    assert plan.prompts is not None
    assert plan.spec is not None
    prompts = read_prompts(plan.prompts)
    called = Counter(row_name(p.case.id, repeat) for p in prompts for repeat in range(plan.repeats))
    name, times = called.most_common(1)[0]
    if times > 1:
        raise BadInput(
            f"{plan.prompts}: two rows would be called {name!r:.60}; expected other ids",
            hint="A row of repeat N is called by its prompt's id and #N.",
        )
    spec = load_spec(plan.spec)
    templates = Prompts(plan.prompts_dir)
    templates.check_all()
    inputs = DistillInputs(
        plan=plan,
        spec=spec,
        prompts=prompts,
        templates=templates,
        filters=_filters(plan, spec),
        decider=make_decider(plan, spec, templates),
        mix=read_mix(plan.mix, plan.sampling.seed) if plan.mix else None,
        prices=_prices(plan),
    )
    if isinstance(inputs.decider, GuardDecider) and inputs.decider.decides_nothing:
        raise BadInput(
            f"{plan.spec}: found no safety rules, which are the guard's categories",
            hint="Put rules under the heading Safety, or set guard_prompt: own (--guard-prompt "
            "own) for a guard with categories of its own.",
        )
    return inputs


def row_id(key: Key) -> str:
    """What a row is called in the files: its prompt's id, and `#N` for a later repeat."""
    return row_name(key[1], key[4])


def row_name(case: str, repeat: int) -> str:
    """As `row_id`."""
    return f"{case}#{repeat}" if repeat else case


def _filters(plan: DistillPlan, spec: Specification) -> tuple[FilterName, ...]:
    """The filters in their order: what code decides comes first, for it costs nothing."""
    checkable = any(rule.check for rule in spec.rules)
    if plan.filters is None:
        if plan.asking is not None:
            return (plan.asking,)
        if checkable:
            return ("checks",)
        raise BadInput(
            f"{plan.spec}: no rule has a check and there is no judge, so nothing would be filtered",
            hint="Give --judge MODEL (--filter ratings or guard), add `check:` lines "
            "(docs/checks.md), or say --filter none.",
        )
    if "checks" in plan.filters and not checkable:
        raise BadInput(
            f"{plan.spec}: found no rule with a check; the filter checks decides by them",
            hint="Add `check:` lines (docs/checks.md), or choose another filter.",
        )
    return tuple(sorted(plan.filters, key=lambda name: name != "checks"))


def _prices(plan: DistillPlan) -> Prices | None:
    """The price file, in which a model's label is as good as its `model` string."""
    if plan.prices is None:
        return None
    models: list[ModelConfig] = [plan.taught_by, *([plan.judge] if plan.judge else [])]
    labels: Mapping[str, str] = {model.label: model.model for model in models}
    return read_prices(plan.prices).under(dict(labels))
