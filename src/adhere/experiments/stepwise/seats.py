"""The models of a run by what they do in it (their *seats*): which are open, which take turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adhere.chat import Model
from adhere.experiments.roles import decodes_here
from adhere.models.connect import ModelConfig
from adhere.models.limiter import Limiter

NOBODY = ""  # the seat of a step that needs no model


@dataclass
class Open:
    """The models that are open: by seat, with the limiter of each one's server."""

    models: dict[str, Model] = field(default_factory=dict)
    limiters: dict[str, Limiter] = field(default_factory=dict)

    def seat(self, name: str, model: Model, limiter: Limiter) -> None:
        """Take a model in."""
        self.models[name], self.limiters[name] = model, limiter

    def beside(self, other: Open) -> Open:
        """All of both."""
        return Open({**self.models, **other.models}, {**self.limiters, **other.limiters})

    @property
    def room(self) -> int:
        """Calls that may be in flight to all of them."""
        servers = {id(limiter): limiter for limiter in self.limiters.values()}
        return max(1, sum(int(limiter.ceiling) for limiter in servers.values()))


def turns(
    seats: Mapping[str, ModelConfig], *, weights_together: bool = False
) -> tuple[list[str], list[str]]:
    """The seats that can be open all the time, and those that take turns.

    Models that decode on this machine do so one at a time: two or more of them take turns. Open
    weights live in this one process, so with `weights_together` they are all open where there are
    no others: more memory, and no loading at each turn.
    """
    here = [seat for seat, config in seats.items() if decodes_here(config)]
    together = weights_together and all(seats[s].model.startswith("weights:") for s in here)
    if len(here) < 2 or together:
        return list(seats), []
    return [seat for seat in seats if seat not in here], here


def weights_of(identity: str, *, adapter: bool = False) -> tuple[str, ...]:
    """What of a model's identity names its weights, whatever else the model was told.

    `adapter`: two adapters over the same weights are then two models.
    """
    first, *parts = identity.split(" ")
    named = ("weights=", "adapter=") if adapter else ("weights=",)
    return (first, *(part for part in parts if part.startswith(named)))
