"""Opening the teacher and the judge of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from adhere.chat import Role
from adhere.experiments.opening import Opening, facts_of
from adhere.experiments.stepwise.seats import Open
from adhere.models.connect import connect
from adhere.models.limiter import Limiter
from adhere.training.recipes.deliberative.inputs import JUDGE, TEACHER, DistillInputs
from adhere.training.recipes.deliberative.teaching import form_of


def check_seats(inputs: DistillInputs) -> None:
    """Find missing keys and unknown names before a folder is made. Raises BadInput."""
    connect(inputs.plan.taught_by, Limiter())
    if inputs.decider is not None:
        connect(inputs.decider.config.model_only(), Limiter())


@asynccontextmanager
async def open_seats(
    inputs: DistillInputs, opening: Opening, seats: list[str]
) -> AsyncIterator[Open]:
    """The models of some seats, named in the run's record. Raises CallError or BadInput."""
    found = Open()
    async with AsyncExitStack() as stack:
        for seat in seats:
            if seat == TEACHER:
                await _teacher(inputs, opening, found, stack)
            else:
                await _judge(inputs, opening, found, stack)
        yield found


async def _teacher(
    inputs: DistillInputs, opening: Opening, found: Open, stack: AsyncExitStack
) -> None:
    config = inputs.plan.taught_by
    limiter = opening.limiter(config)
    model = await stack.enter_async_context(opening.policy(config, limiter))
    form = form_of(inputs.plan.form, model)
    opening.record["identity"]["asked_as"] = form
    opening.check_policies()
    opening.record["models"][config.label] = facts_of(config, model)
    found.seat(TEACHER, model, limiter)


async def _judge(
    inputs: DistillInputs, opening: Opening, found: Open, stack: AsyncExitStack
) -> None:
    # It is asked as a judge is opened: by its configuration, `prepare`, `store` and `identity`.
    decider: Any = inputs.decider
    models, limiter = await opening.judge(decider, stack)
    found.seat(JUDGE, models[Role.JUDGE], limiter)
