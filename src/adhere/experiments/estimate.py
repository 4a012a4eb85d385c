"""What a run will cost before it is started: calls, tokens, money and time, each as a range.

Calls follow from the methods (`expected_calls`), prompt tokens from characters (`sizes.py`), the
most completion tokens from `max_tokens` and the token budget. Nothing is asked of any model, so
what a server is able to do is taken from the plan; where that leaves it open, both are covered.

Each line counts a method as if it ran alone. Methods share draws (repair and best_of_n begin with
the vanilla answer), so the low end of the total counts a shared call once. Not foreseen: rows that
fail, and texts that repeat word for word (what is asked again is on record), which make it less;
calls that a server fails and that are tried again. Cached tokens are taken at the full price.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from adhere.chat import Answer, Capability, Case, Role, Usage
from adhere.experiments.estimate_costs import Measured, concurrency, notes, priced, total
from adhere.experiments.inputs import Arm, Inputs
from adhere.experiments.pricing import Prices
from adhere.experiments.roles import decodes_here, needs_probe
from adhere.experiments.sizes import CHARACTERS_HIGH, CHARACTERS_LOW, MESSAGE_HIGH, Sizes
from adhere.experiments.tally import Line, Range, Tally, either
from adhere.judging import ModelJudge
from adhere.methods.base import CallPlan, PlannedCall
from adhere.models.connect import ModelConfig
from adhere.records.run_folder import Key


class JudgeCalls(NamedTuple):
    """Calls of a judge over the whole rest of a run.

    `prompt_characters` are those of one call without the answer that is judged; up to one whole
    answer is added to it. `max_tokens` is the limit of one call.
    """

    label: str
    role: str
    calls_low: int
    calls_high: int
    prompt_characters: int
    max_tokens: int


@dataclass(frozen=True)
class Estimate:
    """Lines, their total (what the run will newly spend), and what to know about them."""

    lines: tuple[Line, ...]
    total: Line
    currency: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "lines": [line.to_dict() for line in self.lines],
            "total": self.total.to_dict(),
            "currency": self.currency,
            "notes": list(self.notes),
        }


def measure(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Usage]:
    """What the calls of an earlier run's rows cost, by model and method and by model alone."""
    out: dict[tuple[str, str], Usage] = {}
    for row in rows:
        used = sum((Usage.from_dict(u) for u in (row.get("usage") or {}).values()), Usage())
        for key in ((row["model"], row["method"]), (row["model"], "")):
            out[key] = out.get(key, Usage()) + used
    return {key: used for key, used in out.items() if used.calls}


def estimate(
    inputs: Inputs,
    *,
    prices: Prices | None = None,
    judge_calls: Sequence[JudgeCalls] = (),
    done: Collection[Key] = (),
    measured: Measured | None = None,
    capabilities: Mapping[str, frozenset[Capability]] | None = None,
) -> Estimate:
    """Estimate what is left of a run. `done`: keys of the rows that are there and stay.

    `capabilities`: by model label, where an earlier start of the run found them. Raises BadInput
    for a template that cannot be rendered.
    """
    sizes = Sizes(inputs.spec, inputs.prompts)
    done = set(done)
    lines: list[Line] = []
    rewarded: list[Line] = []
    based: list[Line] = []
    for model in inputs.plan.models:
        known = (capabilities or {}).get(model.label)
        ways = list(
            dict.fromkeys(
                tuple(_plan(arm, able, inputs) for arm in inputs.arms)
                for able in ([known] if known is not None else _ways(inputs, model))
            )
        )
        merged = _of_role(inputs, model, ways, Role.POLICY, sizes, done)
        rewarded += _of_role(inputs, model, ways, Role.REWARD, sizes, done)
        based += _of_role(inputs, model, ways, Role.BASE, sizes, done)
        probed = [
            line
            for line in _of_role(inputs, model, ways, Role.PROBE, sizes, done)
            if line.calls.high
        ]
        at_once = max((plan.at_once for plans in ways for plan in plans if plan), default=1)
        room = min(concurrency(inputs, model), at_once * max(1, sum(x.rows for x in merged)))
        lines += [priced(x, (model.label, model.model), prices, measured, room) for x in merged]
        who = inputs.plan.probe or model
        own = measured if who is model else None
        lines += [
            priced(
                replace(line, model=who.label), (who.label, who.model), prices, own,
                concurrency(inputs, who),
            )
            for line in probed
        ]  # fmt: skip
    for scorer, scored in ((inputs.plan.reward, rewarded), (inputs.plan.base, based)):
        if scorer is None:
            continue
        lines += [
            priced(
                replace(line, model=scorer.label),
                (scorer.label, scorer.model), prices, None, concurrency(inputs, scorer),
            )
            for line in scored if line.calls.high
        ]  # fmt: skip
    answer = inputs.plan.sampling.max_tokens
    lines += [
        priced(_judge_line(call, answer), (call.label,), prices, None, _slots(inputs, call))
        for call in judge_calls
    ]
    return Estimate(
        tuple(lines),
        total(lines),
        prices.currency if prices else None,
        tuple(notes(lines, prices, inputs)),
    )


def together(parts: Sequence[Estimate]) -> Estimate:
    """The estimate of several runs as one: lines of the same model, method and role add up."""
    lines: dict[tuple[str, str, str], Line] = {}
    for line in (line for part in parts for line in part.lines):
        key = (line.model, line.method, line.role)
        lines[key] = lines[key].plus(line) if key in lines else line
    total = parts[0].total
    for part in parts[1:]:
        total = total.plus(part.total)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Estimate(tuple(lines.values()), total, parts[0].currency, notes)


def _plan(arm: Arm, able: frozenset[Capability], inputs: Inputs) -> CallPlan | None:
    """The arm's calls, or None for a method from elsewhere that does not say."""
    if arm.equal_tokens_to:
        return _as_many(arm, able, inputs)
    expected = getattr(arm.method, "expected_calls", None)
    plan: CallPlan | None = expected(able, inputs.spec) if expected else None
    return None if plan is None else _judged(plan, inputs)


def _judged(plan: CallPlan, inputs: Inputs) -> CallPlan:
    """Risks by a judge: as many calls an answer as its mode takes, none where checks decide all."""
    probe = inputs.plan.probe
    if probe is None or not probe.judges or not any(_gives_risks(call) for call in plan.calls):
        return plan
    spec = replace(inputs.spec, rules=inputs.spec.safety)
    judge = ModelJudge(probe.judge(), inputs.prompts)
    sizes = judge.call_sizes(Case("risk", ()), Answer(""), spec)
    most = max((tokens for _, tokens in sizes), default=0)
    calls = [
        replace(
            call,
            low=call.low * len(sizes),
            high=call.high * len(sizes) * (1 + probe.reasks),
            max_tokens=most,
        )
        if _gives_risks(call)
        else call
        for call in plan.calls
    ]
    return replace(plan, calls=tuple(calls))


def _gives_risks(call: PlannedCall) -> bool:
    return call.role is Role.PROBE and call.name == "risks"


def _as_many(arm: Arm, able: frozenset[Capability], inputs: Inputs) -> CallPlan | None:
    """The calls of an arm that spends what another one spends; how many depends on their lengths.

    It asks the policy as the other one does. A reward model scores its own candidates, at most one
    a call, and none of the other one's.
    """
    other = next(a for a in inputs.arms if a.label == arm.equal_tokens_to)
    same = _plan(other, able, inputs)
    if same is None:
        return None
    calls = [call for call in same.calls if call.role is Role.POLICY]
    if Role.REWARD in arm.method.requires:
        order = getattr(arm.method.config, "order", inputs.plan.order)  # type: ignore[attr-defined]
        most = max(1, sum(call.high for call in calls))
        calls.append(PlannedCall("rewards", (order,), 1, most, 1, max_tokens=0, role=Role.REWARD))
    return replace(same, calls=tuple(calls), why=f"about as many tokens as {other.label}")


def possible_capabilities(model: ModelConfig) -> list[frozenset[Capability]]:
    """What `connect` may find a model able to do, as far as its configuration decides it."""
    from adhere.models.catalog import BY_NAME

    _, _, name = model.model.partition(":")
    thinks = model.thinks
    if decodes_here(model):
        known = BY_NAME.get(name)
        prefills = [True]
        thinks = bool(known and known.thinks) if thinks is None else thinks
    elif model.prefill == "none":
        prefills = [False]
    else:
        sure = model.chat_template is not None or model.prefill in ("chat", "completions", "prefix")
        prefills = [True] if sure else [True, False]
    base = {Capability.CHAT, Capability.STREAM}
    if model.model.startswith("weights:"):
        base.add(Capability.STATES)
    if thinks is not False:
        base.add(Capability.THINKS)
    return [frozenset(base | ({Capability.PREFILL} if p else set())) for p in prefills]


def _ways(inputs: Inputs, model: ModelConfig) -> list[frozenset[Capability]]:
    """What policy and prober may be able to do together, where that decides what methods ask."""
    found = possible_capabilities(model)
    if not needs_probe(inputs):
        return found
    probe = inputs.plan.probe
    judges = {Capability.RISK} if probe is not None and probe.judges else set()
    # Some servers give log-probabilities, others are asked several times; engines here do.
    kinds = (
        [{Capability.LOGPROBS}] if decodes_here(probe or model) else [{Capability.LOGPROBS}, set()]
    )
    return [able | kind | judges for able in found for kind in kinds]


def _of_role(
    inputs: Inputs,
    model: ModelConfig,
    ways: Sequence[tuple[CallPlan | None, ...]],
    role: Role,
    sizes: Sizes,
    done: set[Key],
) -> list[Line]:
    """The lines of one role, one a method, over all ways in which a model may turn out."""
    drafts = [
        Tally(inputs, model, [_part(p, role) for p in plans], sizes, done, role).lines()
        for plans in ways
    ]
    return [either(same) for same in zip(*drafts, strict=True)]


def _part(plan: CallPlan | None, role: Role) -> CallPlan | None:
    """The calls of one role alone. What does not say its calls is taken to ask the policy."""
    if plan is None:
        return CallPlan((), "") if role is not Role.POLICY else None
    return replace(plan, calls=tuple(call for call in plan.calls if call.role == role))


def _judge_line(call: JudgeCalls, answer: int) -> Line:
    low, high = call.calls_low, call.calls_high
    prompt = Range(
        low * call.prompt_characters / CHARACTERS_LOW,
        high * (call.prompt_characters / CHARACTERS_HIGH + answer + 2 * MESSAGE_HIGH),
    )
    return Line(
        call.label, "", call.role, 0, Range(low, high), prompt, float(high * call.max_tokens)
    )


def _slots(inputs: Inputs, call: JudgeCalls) -> int:
    model = ModelConfig(model=call.label)
    return min(concurrency(inputs, model), max(1, call.calls_high))
