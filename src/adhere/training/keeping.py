"""Between a model in memory and what is kept of it: its tensors by name, and the note beside it."""

from __future__ import annotations

from typing import Any

import torch

from adhere.errors import BadInput
from adhere.models.open_weights.adapters import AdapterNote, SpecNote
from adhere.training.checkpoints import OPTIMIZER_FILE, TRAINED_FILE, Checkpoint, load_tensors
from adhere.training.folder import LOG_FILE, read_logs
from adhere.training.loading import Net
from adhere.training.optimizing import load_state
from adhere.training.plan import TrainPlan
from adhere.training.processes import like, whole
from adhere.training.starting import Start
from adhere.training.stepping import Stepper

_PLACES = {"out", "pairs", "spec", "reference_folder", "model"}  # where things lay on this machine


def trained_tensors(net: Net, *, keep: bool) -> dict[str, torch.Tensor]:
    """What is trained, whole and on the CPU, by name; every process must ask.

    `keep`: whether this process is one that wants them; the others get nothing.
    """
    found = {}
    for name, parameter in net.parameters().items():
        tensor = whole(parameter.detach())
        if keep:
            found[name] = tensor.to("cpu", copy=True).contiguous()
    return found


def load_checkpoint(checkpoint: Checkpoint, stepper: Stepper) -> None:
    """Put a checkpoint's numbers into a model and its optimizer. Raises BadInput."""
    parameters = stepper.net.parameters()
    tensors = load_tensors(checkpoint.folder / TRAINED_FILE)
    state = load_tensors(checkpoint.folder / OPTIMIZER_FILE)
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(like(tensors[name], parameter))
        load_state(stepper.optimizer, parameters, state)
    except (KeyError, RuntimeError) as error:
        raise BadInput(
            f"{checkpoint.folder}: does not fit the model ({error!s:.200})",
            hint="Remove this folder; the training goes on from the checkpoint before it.",
        ) from None


def spec_note(plan: TrainPlan) -> SpecNote | None:
    """The spec that a plan names, as the note has it. Raises BadInput."""
    if plan.spec is None:
        return None
    from adhere.spec import load_spec

    spec = load_spec(plan.spec)
    return SpecNote(spec.name, spec.version, spec.digest)


def adapter_note(
    plan: TrainPlan, stepper: Stepper, start: Start, spec: SpecNote | None, steps: int
) -> AdapterNote:
    """What `adhere.json` beside the model says. It names no path but that of a base folder."""
    logs = read_logs(plan.out / LOG_FILE)
    told: dict[str, Any] = {
        **plan.model_dump(mode="json", exclude=_PLACES),
        "objective": stepper.objective,
        "steps": steps,
        "pairs": stepper.pairs.n_train,
        "held_out": stepper.pairs.n_dev,
        "loss": next((log.loss for log in reversed(logs) if log.split == "train"), None),
    }
    if start.adapter is not None:
        told["began_as"] = start.adapter_digest
        del told["lora"]  # the adapter's own, in its configuration
    return AdapterNote(
        base=start.base.name,
        base_digest=start.base.digest,
        kind="adapter" if stepper.net.adapter else "model",
        spec=spec,
        training=told,
    )
