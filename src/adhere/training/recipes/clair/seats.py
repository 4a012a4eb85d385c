"""Opening the models of a run for pairs, and whether they are kept apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from adhere.chat import Role
from adhere.errors import BadInput
from adhere.experiments.opening import Opening, facts_of
from adhere.experiments.roles import check_able
from adhere.experiments.stepwise.seats import Open, weights_of
from adhere.judging import ModelJudge
from adhere.models.connect import connect
from adhere.models.limiter import Limiter
from adhere.training.recipes.clair.inputs import JUDGE, REVISER, ClairInputs


def check_seats(inputs: ClairInputs) -> None:
    """Find missing keys and unknown names before a folder is made. Raises BadInput."""
    for model in inputs.plan.models:
        connect(model, Limiter())
    for config in (inputs.plan.model_reviser, inputs.plan.judge):
        if config is not None:
            connect(config.model_only(), Limiter())


@asynccontextmanager
async def open_seats(
    inputs: ClairInputs, opening: Opening, seats: list[str]
) -> AsyncIterator[Open]:
    """The models of some seats, named in the run's record. Raises CallError or BadInput."""
    found = Open()
    async with AsyncExitStack() as stack:
        for seat in seats:
            if seat == JUDGE:
                await _judge(inputs, opening, found, stack)
            elif seat == REVISER:
                await _reviser(inputs, opening, found, stack)
            else:
                await _policy(inputs, opening, found, stack, seat)
        yield found


async def _policy(
    inputs: ClairInputs, opening: Opening, found: Open, stack: AsyncExitStack, seat: str
) -> None:
    config = inputs.seats[seat]
    limiter = opening.limiter(config)
    model = await stack.enter_async_context(opening.policy(config, limiter))
    check_able(inputs.method.name, inputs.method, config.label, model)
    opening.check_policies()
    opening.record["models"][config.label] = facts_of(config, model)
    found.seat(seat, model, limiter)


async def _reviser(
    inputs: ClairInputs, opening: Opening, found: Open, stack: AsyncExitStack
) -> None:
    config = inputs.plan.model_reviser
    assert config is not None
    limiter, timeout = opening.limiter(config), opening.plan.limits.timeout
    opened = connect(config.model_only(), limiter, timeout=timeout, note=opening.note)
    model = opening.journal(await stack.enter_async_context(opened), config.label)
    if inputs.stronger is not None:
        check_able(inputs.stronger.name, inputs.stronger, config.label, model)
    opening.record["identity"]["reviser_model"] = model.identity
    opening.folder.check(opening.record["identity"])
    opening.record["reviser"] = {**facts_of(config, model), "model": config.label}
    found.seat(REVISER, model, limiter)


async def _judge(inputs: ClairInputs, opening: Opening, found: Open, stack: AsyncExitStack) -> None:
    judge = inputs.common.judge
    if not isinstance(judge, ModelJudge):
        raise BadInput("a run without a judge has none to open")
    models, limiter = await opening.judge(judge, stack)
    found.seat(JUDGE, models[Role.JUDGE], limiter)


def not_apart(record: Mapping[str, Any]) -> list[str]:
    """Which models of a run are one and the same, in words. Empty: all are kept apart.

    Pairs that a model made of its own answers, or judged itself, teach it what it believes already.
    """
    policies = {facts["identity"]: name for name, facts in record.get("models", {}).items()}
    own = {weights_of(identity) for identity in policies}
    reviser = (record.get("reviser") or {}).get("identity", "")
    judge = (record.get("judge") or {}).get("model_identity", "")
    out = []
    if reviser and weights_of(reviser) in own:
        out.append("the reviser is a model that also answers: it revises its own work")
    if judge and weights_of(judge) in own:
        out.append("the judge is a model that also answers: it flatters itself")
    if judge and reviser and weights_of(judge) == weights_of(reviser):
        out.append("the judge is the reviser: it judges its own work")
    return out
