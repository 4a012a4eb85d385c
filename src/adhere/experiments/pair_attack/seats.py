"""Opening the models of an attack: which can be open together, and how each enters the record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from adhere.chat import Model, Models, Role
from adhere.errors import BadInput
from adhere.experiments.opening import Opening, facts_of
from adhere.experiments.pair_attack.inputs import BASE, JUDGE, POLICY, AttackInputs
from adhere.experiments.pair_attack.plan import AttackerConfig, RaterConfig
from adhere.experiments.roles import check_able, check_base, check_together, find_text_scores
from adhere.experiments.stepwise.seats import Open
from adhere.judging import ModelJudge
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter


def check_seats(inputs: AttackInputs) -> None:
    """Find missing keys and unknown names before a folder is made. Raises BadInput."""
    plan = inputs.plan
    connect(plan.models[0], Limiter())
    if plan.base is not None:
        check_base(plan.base, [plan.models[0]])
    for config in (plan.attacker, plan.judge, plan.rater):
        if config is not None:
            connect(config.model_only(), Limiter())


@asynccontextmanager
async def open_seats(
    inputs: AttackInputs, opening: Opening, seats: list[str]
) -> AsyncIterator[Open]:
    """The models of some seats, named in the run's record. Raises CallError or BadInput."""
    found = Open()
    async with AsyncExitStack() as stack:
        for seat in seats:
            if seat == POLICY:
                await _target(inputs, opening, found, stack)
            elif seat == JUDGE:
                await _judge(inputs, opening, found, stack)
            else:
                await _helper(inputs, opening, found, stack, seat)
        yield found


async def _target(
    inputs: AttackInputs, opening: Opening, found: Open, stack: AsyncExitStack
) -> None:
    config: ModelConfig = inputs.plan.models[0]
    limiter = opening.limiter(config)
    model = await stack.enter_async_context(opening.policy(config, limiter))
    await find_text_scores([inputs.method], model)
    check_able(inputs.method.name, inputs.method, config.label, model)
    if inputs.plan.base is not None:
        base = await opening.base(stack)
        await find_text_scores([inputs.method], base)
        found.seat(BASE, base, opening.limiter(inputs.plan.base))
    check_together([inputs.method], _together(model, found), inputs.plan.sampling.sampling())
    opening.check_policies()
    opening.record["models"][config.label] = facts_of(config, model)
    found.seat(POLICY, model, limiter)


def _together(policy: Model, found: Open) -> Models:
    models: dict[Role, Model] = {Role.POLICY: policy}
    if BASE in found.models:
        models[Role.BASE] = found.models[BASE]
    return models


async def check_target(inputs: AttackInputs) -> None:
    """Find a target that the method cannot work with, before anybody is asked. Raises BadInput.

    Only methods that look at their models have something to find; for others nothing is loaded.
    """
    if not hasattr(inputs.method, "check_models"):
        return
    plan, found = inputs.plan, Open()
    async with AsyncExitStack() as stack:
        policy = await stack.enter_async_context(connect(plan.models[0], Limiter()))
        await find_text_scores([inputs.method], policy)
        check_able(inputs.method.name, inputs.method, plan.models[0].label, policy)
        if plan.base is not None:
            base = await stack.enter_async_context(connect(plan.base, Limiter()))
            await find_text_scores([inputs.method], base)
            found.seat(BASE, base, Limiter())
        check_together([inputs.method], _together(policy, found), plan.sampling.sampling())


async def _helper(
    inputs: AttackInputs, opening: Opening, found: Open, stack: AsyncExitStack, seat: str
) -> None:
    """The attacker or the rater."""
    config = inputs.seats[seat]
    assert isinstance(config, AttackerConfig | RaterConfig)
    limiter, timeout = opening.limiter(config), opening.plan.limits.timeout
    opened = connect(config.model_only(), limiter, timeout=timeout, note=opening.note)
    model = opening.journal(await stack.enter_async_context(opened), config.label)
    opening.record["identity"][f"{seat}_model"] = model.identity
    opening.folder.check(opening.record["identity"])
    opening.record[seat] = {**facts_of(config, model), "model": config.label}
    found.seat(seat, model, limiter)


async def _judge(
    inputs: AttackInputs, opening: Opening, found: Open, stack: AsyncExitStack
) -> None:
    judge = inputs.common.judge
    if not isinstance(judge, ModelJudge):
        raise BadInput("a run without a judge has none to open")
    models, limiter = await opening.judge(judge, stack)
    found.seat(JUDGE, models[Role.JUDGE], limiter)
