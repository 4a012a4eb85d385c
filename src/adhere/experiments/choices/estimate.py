"""What a run of multiple-choice suites would take: as for judged runs, by the number of choices.

Questions with equally many choices are estimated together, with the calls that each method makes
of so many. The prompts hold one choice (the longest, at the high end) or, of `letters`, all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from adhere.chat import Capability, Case, Role, user
from adhere.errors import Bug
from adhere.experiments.choices.inputs import ChoiceInputs
from adhere.experiments.estimate import Estimate, JudgeCalls, estimate, together
from adhere.experiments.estimate_costs import Measured
from adhere.experiments.inputs import Arm, Inputs
from adhere.judging import CheckJudge
from adhere.methods.base import CallPlan, Emit, Method, MethodConfig, Request, ignore
from adhere.methods.multiple_choice import Letters, TrueFalse
from adhere.methods.one_word.planning import most_calls
from adhere.records.run_folder import Key
from adhere.spec import Specification
from adhere.suites import Suite
from adhere.suites.choices import GRADED, OWN_WORDS


def estimate_choices(
    inputs: ChoiceInputs, *, done: Collection[Key] = (), measured: Measured | None = None
) -> Estimate:
    """The estimate of what is left of a run, all suites together. `done`: rows that stay."""
    parts = []
    for suite in inputs.suites:
        for cases, arms in _alike(inputs, suite):
            part = Inputs(
                plan=inputs.plan,
                spec=inputs.specs[suite.name],
                suites=[replace(suite, cases=cases)],
                arms=arms,
                prompts=inputs.prompts,
                judge=CheckJudge(),
                prices=inputs.prices,
            )
            judged = _judge_calls(inputs, suite, done) if suite.metric == GRADED else []
            parts.append(
                estimate(
                    part, prices=inputs.prices, judge_calls=judged, done=done, measured=measured
                )
            )
    found = together(parts)
    # Each part counts what its methods share; the sum is what has to be known.
    notes = [note for note in found.notes if not note[:1].isdigit()]
    if shared := sum(line.shared_calls for line in found.lines):
        notes.append(f"{shared} calls serve several methods, or are on record.")
    return replace(found, notes=tuple(notes))


def _judge_calls(inputs: ChoiceInputs, suite: Suite, done: Collection[Key]) -> list[JudgeCalls]:
    """One call of the judge an answer, more where a reply cannot be read.

    Equal answers to a question that stands there twice are graded once; an empty one is not.
    """
    judge, grader = inputs.plan.judge, inputs.grader
    assert judge is not None and grader is not None
    left = sum(key[0] == suite.name and key not in done for key in inputs.row_keys())
    sizes = [grader.call_size(c.judged_prompt or c.prompt, c.choices) for c in suite.cases]
    return [
        JudgeCalls(
            judge.label,
            Role.JUDGE.value,
            0,
            left * (1 + judge.reasks),
            round(sum(characters for characters, _ in sizes) / len(sizes)),
            sizes[0][1],
        )
    ]


@dataclass(frozen=True)
class _OfChoices:
    """A method as it chooses among `n` given answers: it draws none, and asks about those."""

    method: Any
    n: int
    name: ClassVar[str] = ""
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    @property
    def requires(self) -> Mapping[Role, frozenset[Capability]]:
        """What the method requires."""
        found: Mapping[Role, frozenset[Capability]] = self.method.requires
        return found

    def expected_calls(
        self, capabilities: frozenset[Capability], spec: Specification
    ) -> CallPlan | None:
        """The calls of one question; None of a method from elsewhere that does not say."""
        method, n = self.method, self.n
        if isinstance(method, Letters | TrueFalse):
            plan = method.expected_calls(capabilities, spec)
            asked = min(n, method.config.orders) if isinstance(method, Letters) else n
            if isinstance(method, TrueFalse) and method.config.compat == "official":
                asked = (n + 1) // 2
            # Whether there are log-probabilities is seen when the run begins: both are foreseen.
            able = capabilities | {Capability.LOGPROBS}
            most, tokens = most_calls(asked, method.config.samples, able)
            call = replace(plan.calls[0], low=asked, high=most, max_tokens=tokens)
            return CallPlan((call,), f"{asked} of one word", at_once=most)
        known = getattr(type(method.config), "model_fields", {})
        if "n" not in known or not hasattr(method, "expected_calls"):
            return None
        given = {"n": n, "candidates": (), "fallback_probe": False}
        changed = {name: value for name, value in given.items() if name in known}
        plan = type(method)(method.config.model_copy(update=changed)).expected_calls(
            capabilities, spec
        )
        calls = tuple(
            replace(
                call, earlier=0, low=call.low * n if call.name in _OF_EACH else call.low
            )
            for call in plan.calls
            if call.name != "candidates"
        )  # fmt: skip
        return CallPlan(calls, plan.why, plan.at_once)

    async def answer(self, request: Request, models: Any, *, emit: Emit = ignore) -> Any:
        """Raise Bug: this is a plan."""
        raise Bug("an estimate answers nothing")


_OF_EACH = ("likelihoods", "discriminator", "probes")  # calls whose fewest are those of one text


def _alike(inputs: ChoiceInputs, suite: Suite) -> list[tuple[tuple[Case, ...], list[Arm]]]:
    """Cases and methods whose rows take equally many calls, with what is asked in the cases."""
    if suite.metric in OWN_WORDS:
        return [(suite.cases, inputs.arms)]
    sizes: dict[int, list[Case]] = {}
    for case in suite.cases:
        sizes.setdefault(len(set(case.choices)), []).append(case)
    all_at_once = [arm for arm in inputs.arms if isinstance(arm.method, Letters)]
    one_by_one = [arm for arm in inputs.arms if not isinstance(arm.method, Letters)]
    return [
        (
            tuple(_with(case, case.choices if whole else _longest(case)) for case in cases),
            [replace(arm, method=cast(Method, _OfChoices(arm.method, n))) for arm in arms],
        )
        for n, cases in sorted(sizes.items())
        for whole, arms in ((True, all_at_once), (False, one_by_one))
        if arms
    ]


def _longest(case: Case) -> Sequence[str]:
    return [max(case.choices, key=len)]


def _with(case: Case, choices: Sequence[str]) -> Case:
    """The case with choices behind its question."""
    last = max(i for i, message in enumerate(case.messages) if message.role == "user")
    asked = user("\n".join([case.messages[last].text, *choices]))
    return replace(
        case, messages=(*case.messages[:last], asked, *case.messages[last + 1 :]), choices=(),
        correct=(),
    )  # fmt: skip
