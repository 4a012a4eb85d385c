"""The model that is trained: its base, what of it is trained, and in which number formats.

* LoRA: the base stays as it is, in the plan's number format; the adapter is float32, or steps of a
  small learning rate would be rounded away.
* Full: all weights are float32 for the same reason, and saved in the plan's number format.

Where that format is narrower, products are made in it (autocast), for the reference too: the policy
before the first step and its reference are then the same numbers.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from adhere.errors import BadInput
from adhere.models.catalog import CatalogModel
from adhere.models.open_weights.adapters import base_of
from adhere.models.open_weights.connect import source_of
from adhere.models.open_weights.export import check_can_export, exported
from adhere.models.open_weights.lease import attempts, give_back, lease_file
from adhere.models.open_weights.loading import (
    Loaded,
    check_folder,
    check_installed,
    load,
    resolve_dtype,
)
from adhere.training.four_bit import check_four_bit, load_four_bit
from adhere.training.plan import TrainPlan
from adhere.training.processes import Processes, share_cores

T = TypeVar("T")
Note = Callable[[str], None]

PREFIX = "weights:"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "safetensors")


@dataclass(frozen=True)
class Base:
    """A base model on disk: as the plan names it, in the catalog or its folder, and its SHA-256."""

    asked: str
    name: str
    digest: str
    folder: Path


@dataclass
class Net:
    """A model in memory that can be trained.

    `model` is the language model, in PEFT's wrapping when an adapter is trained; `parameters` are
    those that are trained, by name, as they are after sharding too (`refresh`). `compute` is the
    number format of the products, `saved_as` that in which a whole model is saved.
    """

    loaded: Loaded
    model: Any
    adapter: bool
    compute: torch.dtype
    saved_as: torch.dtype
    all_parameters: int
    trained_parameters: int

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: float32."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def products(self) -> AbstractContextManager[Any]:
        """Around a pass through the model: the number format of its products."""
        if self.compute == torch.float32:
            return nullcontext()
        return torch.autocast(self.loaded.device.split(":")[0], dtype=self.compute)

    def reference(self) -> AbstractContextManager[Any]:
        """Around a pass through the base model alone; a full training has it before step 1."""
        return self.model.disable_adapter() if self.adapter else nullcontext()


# ---------------------------------------------------------------- before anything is loaded


def check_plan(plan: TrainPlan, processes: Processes) -> None:
    """Raises BadInput for what can be known without looking at the data."""
    check_installed(plan.model, PACKAGES, extra="train")
    if not plan.model.startswith(PREFIX):
        raise BadInput(
            f"model: found {plan.model!r:.100}; expected {PREFIX}NAME of `adhere models list`, or "
            f"{PREFIX}FOLDER of safetensors or of an adapter",
            hint="Only open weights can be trained; a server's model can write or judge the pairs.",
        )
    if plan.tune == "qlora":
        check_four_bit(plan, processes)


def find_base(plan: TrainPlan, processes: Processes, note: Note) -> Base:
    """Find the plan's base model; a model of the catalog is exported first. Raises BadInput."""
    source = source_of(plan.model, plan.model.removeprefix(PREFIX))
    if isinstance(source, CatalogModel):
        check_can_export(plan.model, source)
        folder = _run(exported(source, note if processes.main else lambda text: None))
    else:
        check_folder(plan.model, source)
        folder = source
    name, digest = base_of(source)
    return Base(plan.model, name, digest, folder)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end, also where a loop is running (a notebook)."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@contextmanager
def machine(processes: Processes, note: Note) -> Iterator[None]:
    """Hold the machine's cores while training: the compute lease, once a machine.

    Waits for them as long as it takes. Raises DiskFull, BadInput.
    """
    if not processes.local_main:
        yield
        return
    for seconds in attempts(note):
        time.sleep(seconds)
    try:
        yield
    finally:
        give_back(lease_file())


# ---------------------------------------------------------------- into memory


def open_net(plan: TrainPlan, base: Base, processes: Processes) -> Net:
    """Load the base, and put a new adapter on it or make all its weights trainable.

    An adapter begins as random numbers of the plan's seed times zeros: it changes nothing yet.
    Raises BadInput.
    """
    compute = getattr(torch, resolve_dtype(plan.dtype))
    if compute == torch.float16:
        raise BadInput(
            "dtype: found float16; expected bfloat16 or float32",
            hint="The gradients of a step run out of float16's range.",
        )
    full = plan.tune == "full"
    if plan.tune == "qlora":
        loaded = load_four_bit(plan, base.folder, processes)
    else:
        loaded = load(plan.model, base.folder, "float32" if full else plan.dtype)
    share_cores(processes)
    model = loaded.model
    for parameter in model.parameters():
        parameter.requires_grad_(full)
    without_dropout(model)
    if not full:
        model = _with_adapter(plan, model, base)
    if plan.checkpoint_layers and hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return Net(
        loaded=loaded,
        model=model,
        adapter=not full,
        compute=compute,
        saved_as=compute,
        all_parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars, and their warnings to each other."""
    bars: Any = import_module("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            bars.enable_progress_bar()


def without_dropout(model: Any) -> None:
    """Dropout of the base off: with it, the policy would differ from its reference at once.

    Models keep their rates in layers of dropout, in numbers of their modules and in their
    configuration, under many names that end alike. An adapter's own comes later, and stays.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero_dropout(module)
    _zero_dropout(model.config)
    _zero_dropout(model.config.get_text_config())


def _zero_dropout(holder: Any) -> None:
    for name, value in list(vars(holder).items()):
        if name.endswith(("dropout", "pdrop", "layerdrop")) and isinstance(value, float):
            setattr(holder, name, 0.0)


def _with_adapter(plan: TrainPlan, model: Any, base: Base) -> Any:
    peft: Any = import_module("peft")
    targets = plan.lora.targets
    config = peft.LoraConfig(
        r=plan.lora.r,
        lora_alpha=plan.lora.alpha,
        lora_dropout=plan.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(plan.seed)
    try:
        with quiet():
            wrapped = peft.get_peft_model(model, config)
    except ValueError as error:
        raise BadInput(
            f"{plan.model}: no adapter can be put on it ({str(error).splitlines()[0]:.200})",
            hint="lora.targets names modules of the model, or is all-linear.",
        ) from None
    wrapped.peft_config["default"].base_model_name_or_path = str(base.folder)
    return wrapped
