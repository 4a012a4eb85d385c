"""The models of IterAlign's runs: who sits where, how each is opened, and who is kept apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

from adhere.chat import Role
from adhere.experiments.opening import Opening, facts_of
from adhere.experiments.pricing import Prices, read_prices
from adhere.experiments.stepwise.run import StepwiseInputs, StepwiseRun
from adhere.experiments.stepwise.seats import Open, weights_of
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter
from adhere.training.recipes.iteralign.finding import Finder
from adhere.training.recipes.iteralign.plan import OPERATIONAL, ModulePlan

POLICY, JUDGE, ORACLE = "policy", "judge", "oracle"


class SeatedInputs(Protocol):
    """What opening the models of a run looks at."""

    @property
    def plan(self) -> ModulePlan:
        """How the run is to be made."""

    @property
    def finder(self) -> Finder | None:
        """Who says what is bad; None in runs that ask nobody."""

    @property
    def seats(self) -> dict[str, ModelConfig]:
        """The models, in the order in which a row needs them."""


class SeatedRunInputs(SeatedInputs, StepwiseInputs, Protocol):
    """What a run reads before it begins."""

    @property
    def plan(self) -> ModulePlan:
        """How it is to be made."""


def check_seats(seats: Mapping[str, ModelConfig]) -> None:
    """Find missing keys and unknown names before a folder is made. Raises BadInput."""
    for config in seats.values():
        only = getattr(config, "model_only", None)
        connect(only() if only else config, Limiter())


@asynccontextmanager
async def open_seats(
    inputs: SeatedInputs, opening: Opening, seats: list[str]
) -> AsyncIterator[Open]:
    """The models of some seats, named in the run's record. Raises CallError or BadInput."""
    found = Open()
    async with AsyncExitStack() as stack:
        for seat in seats:
            config = inputs.seats[seat]
            if seat == POLICY:
                limiter = opening.limiter(config)
                policy = await stack.enter_async_context(opening.policy(config, limiter))
                opening.check_policies()
                opening.record["models"][config.label] = facts_of(config, policy)
                found.seat(POLICY, policy, limiter)
            elif seat == JUDGE:
                # It is asked as a judge is opened: by `config`, `prepare`, `store`, `identity`.
                finder: Any = inputs.finder
                models, limiter = await opening.judge(finder, stack)
                found.seat(JUDGE, models[Role.JUDGE], limiter)
            else:
                await _oracle(opening, found, stack, config)
        yield found


async def _oracle(
    opening: Opening, found: Open, stack: AsyncExitStack, config: ModelConfig
) -> None:
    limiter, timeout = opening.limiter(config), opening.plan.limits.timeout
    only = getattr(config, "model_only", None)
    opened = connect(only() if only else config, limiter, timeout=timeout, note=opening.note)
    model = opening.journal(await stack.enter_async_context(opened), config.label)
    opening.record["identity"]["oracle_model"] = model.identity
    opening.folder.check(opening.record["identity"])
    opening.record[ORACLE] = {**facts_of(config, model), "model": config.label}
    found.seat(ORACLE, model, limiter)


def prices_of(inputs_plan: ModulePlan, configs: Mapping[str, ModelConfig]) -> Prices | None:
    """The price file, in which a model's label is as good as its `model` string."""
    if inputs_plan.prices is None:
        return None
    labels = {config.label: config.model for config in configs.values()}
    return read_prices(inputs_plan.prices).under(labels)


def not_apart(record: Mapping[str, Any]) -> list[str]:
    """Which models of a run are one and the same, in words. Empty: all are kept apart."""
    policies = {
        weights_of(facts["identity"], adapter=True) for facts in record.get("models", {}).values()
    }
    judge = (record.get(JUDGE) or {}).get("model_identity", "")
    oracle = (record.get(ORACLE) or {}).get("identity", "")
    out = []
    if judge and weights_of(judge, adapter=True) in policies:
        out.append("the judge is the policy: it judges its own answers")
    if oracle and weights_of(oracle, adapter=True) in policies:
        out.append("the oracle is the policy: it writes the rules that it lacks itself")
    return out


SeatedT = TypeVar("SeatedT", bound=SeatedRunInputs)


class SeatedRun(StepwiseRun[SeatedT]):
    """A run of IterAlign: how its models are opened, and who of them is kept apart."""

    operational = OPERATIONAL

    def open_seats(self, opening: Opening, seats: list[str]) -> AbstractAsyncContextManager[Open]:
        """See `StepwiseRun.open_seats`."""
        return open_seats(self.inputs, opening, seats)

    def not_apart(self, record: Mapping[str, Any]) -> list[str]:
        """See `StepwiseRun.not_apart`."""
        return not_apart(record)


def models_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models of a run for its summary."""
    models = [{"role": POLICY, "name": n, **f} for n, f in record.get("models", {}).items()]
    for role in (JUDGE, ORACLE):
        if facts := record.get(role):
            models.append({"role": role, "name": facts["model"], **facts})
    return models
