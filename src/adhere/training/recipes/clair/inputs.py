"""Everything that making pairs needs, read and checked before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from adhere.chat import Case, Role
from adhere.errors import BadInput
from adhere.experiments.inputs import Inputs, common_inputs, make_method, probes
from adhere.experiments.plan import MethodPlan
from adhere.experiments.pricing import Prices
from adhere.methods import Method
from adhere.models.connect import ModelConfig
from adhere.records.run_folder import Key
from adhere.spec import Specification
from adhere.suites import load_prompts
from adhere.training.recipes.clair.plan import RULES, ClairPlan

KIND = "clair"
SUITE = "prompts"  # the first part of every row's key; what the file is called decides nothing

# Who may have to be open. One or two policies answer, the reviser revises, the judge marks.
POLICY, OTHER, REVISER, JUDGE = "policy", "other", "reviser", "judge"

# How the policy samples and no reviser does; a reviser's own `extra_body` stays.
POLICYS_OWN: Mapping[str, Any] = {"top_p": None, "stop": (), "extra": {}}


@dataclass(frozen=True)
class Text:
    """One answer that a row needs: who writes it (a seat), and which draw of theirs it is."""

    seat: str
    place: int = 0


@dataclass(frozen=True)
class ClairInputs:
    """Plan, spec, prompts, judge and methods."""

    plan: ClairPlan
    common: Inputs
    cases: tuple[Case, ...]
    method: Method
    stronger: Method | None = None

    @property
    def spec(self) -> Specification:
        """What answers are marked by."""
        return self.common.spec

    def row_keys(self) -> list[Key]:
        """All rows of the plan, in the order of the prompts."""
        plan = self.plan
        return [
            (SUITE, case.id, "", plan.set, repeat)
            for case in self.cases
            for repeat in range(plan.repeats)
        ]

    @property
    def prices(self) -> Prices | None:
        """What tokens cost."""
        return self.common.prices

    @property
    def texts(self) -> tuple[Text, ...]:
        """The answers of a row before anything is revised or compared."""
        if self.plan.set == "on_policy_judge":
            return tuple(Text(POLICY, place) for place in range(self.plan.candidates))
        second = {"off_policy_judge": (Text(OTHER),), "stronger_preferred": (Text(REVISER),)}
        return (Text(POLICY), *second.get(self.plan.set, ()))

    @property
    def seats(self) -> dict[str, ModelConfig]:
        """The models that are asked, in the order in which a row needs them."""
        plan = self.plan
        seats: dict[str, ModelConfig] = {POLICY: plan.models[0]}
        if len(plan.models) > 1:
            seats[OTHER] = plan.models[1]
        if plan.judge is not None:
            seats[JUDGE] = plan.judge
        if plan.model_reviser is not None:
            seats[REVISER] = plan.model_reviser
        return seats

    def label(self, seat: str) -> str:
        """How a model is called in tables and rows."""
        return self.seats[seat].label

    def identity(self) -> dict[str, Any]:
        """What decides the pairs; models add theirs when they are connected."""
        plan, common = self.plan, self.common
        reviser: Any = plan.reviser
        if reviser == RULES:
            reviser = {"by": RULES, **plan.repair.model_dump(mode="json")}
        if plan.model_reviser is not None:
            reviser = plan.model_reviser.settings()
            if self.stronger is not None:
                reviser["method"] = _settings(plan.model_reviser.method, self.stronger)
        return {
            "kind": KIND,
            "set": plan.set,
            "spec": self.spec.digest,
            "prompts": common.suites[0].digest,
            "judge": common.judge.settings,
            "templates": [common.prompts.digest, common.prompts.digest_of("clair/")],
            "sampling": plan.sampling.model_dump(mode="json"),
            "budget": plan.budget.model_dump(mode="json"),
            "method": _settings(plan.method, self.method),
            "candidates": plan.candidates if plan.set == "on_policy_judge" else 1,
            "accept": {**plan.accept.model_dump(mode="json"), "improve": plan.improve},
            "rows": plan.order if plan.spec_in_rows else "without the spec",
            "reviser": reviser,
            "policies": [model.settings() for model in plan.models],
            "models": {},
        }


def read_clair_inputs(plan: ClairPlan) -> ClairInputs:
    """Read spec, prompts, templates and methods. Raises BadInput before anything is written."""
    if find_spec("rapidfuzz") is None:
        raise BadInput("adhere data clair: needs rapidfuzz", hint="pip install 'adhere[data]'")
    assert plan.prompts is not None
    suite = load_prompts(plan.prompts)
    for case in suite.cases:
        if any(not isinstance(m.content, str) or m.tool_calls for m in case.messages):
            raise BadInput(
                f"{plan.prompts}: the prompt {case.id!r:.60} holds more than text; expected "
                "messages of plain text, which is what pairs are trained on"
            )
    called = Counter(_row_id(c.id, repeat) for c in suite.cases for repeat in range(plan.repeats))
    name, times = called.most_common(1)[0]
    if times > 1:
        raise BadInput(
            f"{plan.prompts}: two rows would be called {name!r:.60}; expected other ids",
            hint="A row of repeat N is called by its prompt's id and #N.",
        )
    inputs = ClairInputs(
        plan=plan,
        common=common_inputs(plan, [suite], []),
        cases=suite.cases,
        method=_method(plan, plan.method),
        stronger=_method(plan, plan.model_reviser.method)
        if plan.set == "stronger_preferred" and plan.model_reviser is not None
        else None,
    )
    for rule in (*(plan.repair.rules or ()), *plan.repair.sentences):
        if rule not in inputs.spec.by_id:
            raise BadInput(
                f"repair: found the rule {rule!r}; expected one of {', '.join(inputs.spec.by_id)}"
            )
    for rule in plan.accept.must_follow:
        if rule not in inputs.spec.by_id or rule in inputs.common.judge.undecided(inputs.spec):
            decided = set(inputs.spec.by_id) - {*inputs.common.judge.undecided(inputs.spec)}
            raise BadInput(
                f"accept.must_follow: found the rule {rule!r}; expected one that a check or the "
                f"judge decides: {', '.join(r for r in inputs.spec.by_id if r in decided)}"
            )
    if plan.reviser == RULES and not any(rule.check for rule in inputs.spec.rules):
        raise BadInput(
            f"{plan.spec}: no rule has a check, so there is nothing to repair by",
            hint="Give --reviser MODEL and --judge MODEL, or add `check:` lines (docs/checks.md).",
        )
    for method in (inputs.method, inputs.stronger):
        if method is not None and (
            set(method.requires) - {Role.POLICY} or probes(method, inputs.spec)
        ):
            raise BadInput(
                f"method {method.name}: asks further models; expected one that asks the policy",
                hint="For example raw, vanilla, repair, or best_of_n:selector=checks.",
            )
    return inputs


def row_id(key: Key) -> str:
    """What a row is called in the files: its prompt's id, and `#N` for a later repeat."""
    return _row_id(key[1], key[4])


def _row_id(case: str, repeat: int) -> str:
    return f"{case}#{repeat}" if repeat else case


def _method(plan: ClairPlan, item: MethodPlan) -> Method:
    if item.method == "raw":
        # The conversation as it stands, without the fixed line that goes with `question_first`: so
        # that a row's prompt is what was asked.
        item = item.model_copy(update={"options": {"order": "spec_first", **item.options}})
    method = make_method(item, plan.order)
    if getattr(method, "only_chooses", False):
        raise BadInput(f"method {item.label}: chooses among given answers and writes none")
    return method


def _settings(item: MethodPlan, method: Method) -> dict[str, Any]:
    config: Any = getattr(method, "config", None)
    return {"method": item.method, **(config.model_dump(mode="json") if config else {})}
