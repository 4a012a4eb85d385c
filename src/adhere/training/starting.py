"""What a training starts from: a base that gets a new adapter, or an adapter that is trained on.

PEFT loads an adapter frozen unless it is told otherwise: a trainer then takes its steps, logs its
losses and changes nothing. Here it is loaded as trainable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adhere.errors import BadInput
from adhere.models.catalog import CatalogModel
from adhere.models.open_weights import adapters
from adhere.models.open_weights.adapters import (
    adapter_digest,
    check_adapter,
    check_base,
    is_adapter,
)
from adhere.models.open_weights.attaching import attach, check_peft
from adhere.models.open_weights.connect import source_of
from adhere.models.open_weights.loading import load
from adhere.training.loading import PREFIX, Base, Net, Note, find_base, open_net, without_dropout
from adhere.training.plan import TrainPlan
from adhere.training.processes import Processes, share_cores


@dataclass(frozen=True)
class Start:
    """Where a training starts: its base, and the adapter that is trained on, by its SHA-256."""

    base: Base
    adapter: Path | None = None
    adapter_digest: str = ""


def find_start(plan: TrainPlan, processes: Processes, note: Note) -> Start:
    """Find what the plan's model stands for; a model of the catalog is exported first.

    Raises BadInput, also for an adapter that is to be trained on in another way than as one.
    """
    source = source_of(plan.model, plan.model.removeprefix(PREFIX))
    if not (isinstance(source, Path) and is_adapter(source)):
        return Start(find_base(plan, processes, note))
    check_peft(plan.model)
    check_adapter(plan.model, source)
    below = adapters.find_base(plan.model, source)
    check_base(plan.model, source, below)
    name = below.name if isinstance(below, CatalogModel) else str(below)
    base = find_base(plan.model_copy(update={"model": f"{PREFIX}{name}"}), processes, note)
    return Start(base, source, adapter_digest(source))


def check_start(plan: TrainPlan, start: Start, objective: str) -> None:
    """Raises BadInput for an adapter that is not to be learned on from in this way."""
    if start.adapter is None:
        return
    if objective != "sft":
        raise BadInput(
            f"{plan.model}: found an adapter and the objective {objective}; expected sft, or a "
            "whole model",
            hint="A preference objective compares with the model it starts from, which an adapter "
            "that goes on changing is not. Merge the adapter into its base first, and train that.",
        )
    if plan.tune != "lora":
        raise BadInput(
            f"{plan.model}: found an adapter and tune {plan.tune}; expected lora",
            hint="The adapter is trained on as it is. Give its base to train that in another way.",
        )


def open_start(plan: TrainPlan, start: Start, processes: Processes) -> Net:
    """Load the base, with a new adapter, with the one that is there, or to train it whole.

    Raises BadInput, also where nothing would be trained.
    """
    net = (
        open_net(plan, start.base, processes)
        if start.adapter is None
        else _open_adapter(plan, start, start.adapter, processes)
    )
    if not net.parameters():
        raise BadInput(
            f"{plan.model}: found no parameter that would be trained; expected those of an adapter",
            hint="Is the adapter's folder whole? Give its base to train a new adapter.",
        )
    return net


def _open_adapter(plan: TrainPlan, start: Start, adapter: Path, processes: Processes) -> Net:
    import torch

    loaded = load(plan.model, start.base.folder, plan.dtype)
    share_cores(processes)
    without_dropout(loaded.model)  # of the base; an adapter's own comes with it
    attach(loaded, adapter, trainable=True)
    model = loaded.adapter
    model.peft_config["default"].base_model_name_or_path = str(start.base.folder)
    compute = getattr(torch, loaded.dtype)
    if compute == torch.float16:
        raise BadInput(
            "dtype: found float16; expected bfloat16 or float32",
            hint="The gradients of a step run out of float16's range.",
        )
    for parameter in model.parameters():
        if parameter.requires_grad:  # steps of a small rate would be rounded away
            parameter.data = parameter.data.float()
    if plan.checkpoint_layers and hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Net(
        loaded=loaded,
        model=model,
        adapter=True,
        compute=compute,
        saved_as=compute,
        all_parameters=sum(count for count, _ in counts),
        trained_parameters=sum(count for count, trained in counts if trained),
    )
