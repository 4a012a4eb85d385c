"""`train_grpo`: from a plan to a trained adapter on disk, or on from where it was left.

The folder is that of any training (`training/folder.py`): train.json, train.jsonl, checkpoints of
safetensors, model/. A resume loads the newest checkpoint, cuts the log back to it and goes on with
the prompts, the rates and the random numbers that were next.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import torch

from adhere.chat import Case
from adhere.errors import BadInput, Stopped
from adhere.models.open_weights.adapters import AdapterNote, SpecNote
from adhere.models.open_weights.loading import check_installed, resolve_dtype
from adhere.spec import Specification, load_spec
from adhere.training.checkpoints import (
    OPTIMIZER_FILE,
    TRAINED_FILE,
    Checkpoint,
    load_tensors,
    newest_checkpoint,
    prune,
    write_checkpoint,
)
from adhere.training.folder import CHECKPOINTS, LOG_FILE, MODEL, TrainFolder
from adhere.training.grpo.asking import Rewarder, check_judge
from adhere.training.grpo.done import check_rewarded
from adhere.training.grpo.plan import OPERATIONAL, GrpoPlan, as_training
from adhere.training.grpo.prompts import Asked, cases_digest, order_of, read_cases, steps_of
from adhere.training.grpo.result import GrpoTrained, grpo_trained_from
from adhere.training.grpo.rewards import Grader, Tally, rewarded_spec
from adhere.training.grpo.steps import GrpoLog, GrpoProgress, Silent, append_log, cut_back
from adhere.training.grpo.with_trl import make_trainer, silenced
from adhere.training.keeping import trained_tensors
from adhere.training.loading import PREFIX, Net, machine, without_dropout
from adhere.training.optimizing import load_state, make_optimizer, state_tensors
from adhere.training.processes import Processes, open_processes
from adhere.training.saving import save_model
from adhere.training.starting import Start, find_start, open_start

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "numpy", "safetensors", "trl", "datasets"
)  # fmt: skip
_NO_MEMORY = "can't allocate memory"  # of torch's allocator on CPUs
_NO_PROBABILITY = "probability tensor contains"  # of its sampling


def train_grpo(plan: GrpoPlan, *, progress: GrpoProgress | None = None) -> GrpoTrained:
    """Train as the plan says, or go on where it was left; both give the same model.

    A finished training is not done again: what came of it is told. Raises BadInput (also for a
    folder of another training), DiskFull, what opening the judge does, and Stopped for numbers that
    are not finite or a judge that fails for good; the last checkpoint is kept, whatever happens.
    The calling thread is busy until the end, and holds the compute lease.
    """
    check_grpo(plan)
    with open_processes() as processes:
        if processes.world > 1:
            raise BadInput(
                f"recipe grpo: found {processes.world} processes; expected one",
                hint="Start it without --accelerate-config.",
            )
        devices = [processes.device] if processes.device.type == "cuda" else []
        with ExitStack() as stack, torch.random.fork_rng(devices=devices), _own_dice():
            stack.enter_context(_torch_told())
            return _Training(plan, processes, progress or Silent(), stack).run()


def check_grpo(plan: GrpoPlan) -> tuple[tuple[Case, ...], Specification]:
    """The prompts and the spec; what can be known before anything is loaded. Raises BadInput."""
    check_installed("recipe grpo", PACKAGES, extra="grpo")
    if not plan.model.startswith(PREFIX):
        raise BadInput(
            f"model: found {plan.model!r:.100}; expected {PREFIX}NAME of `adhere models list`, or "
            f"{PREFIX}FOLDER of safetensors or of an adapter",
            hint="Only open weights can be trained; a server's model can be the judge.",
        )
    spec = load_spec(plan.spec)
    if plan.judge is None:
        Grader(plan, spec)
    else:
        rewarded_spec(plan, spec)
    check_judge(plan)
    return read_cases(plan), spec


@contextmanager
def _torch_told() -> Iterator[None]:
    """Around a training: what torch raises when memory or the numbers run out, as Stopped."""
    try:
        yield
    except RuntimeError as error:  # torch has a class of its own for memory on GPUs only
        first = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY in str(error):
            raise Stopped(
                f"the memory is full ({first:.200})",
                hint="The last checkpoint is kept. The same command goes on with "
                "--checkpoint-layers. With a new --out: a smaller --batch-size (so many answers "
                "are sampled at once) or --max-tokens, or --group-size for the backward pass.",
            ) from None
        if _NO_PROBABILITY in str(error):
            raise Stopped(
                "the model's probabilities are no numbers any more",
                hint="The last checkpoint is kept. Try a lower --learning-rate with a new --out.",
            ) from None
        raise


@contextmanager
def _own_dice() -> Iterator[None]:
    """TRL seeds Python's random numbers; the caller's are as they were afterwards."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


class _Training:
    """One start of a training."""

    def __init__(
        self, plan: GrpoPlan, processes: Processes, progress: GrpoProgress, stack: ExitStack
    ) -> None:
        self.plan = plan
        self.processes = processes
        self.progress = progress
        self.notes: list[str] = []
        self.tally: Tally | None = None
        self._stack = stack

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.note(text)

    def run(self) -> GrpoTrained:
        plan = self.plan
        cases, spec = check_grpo(plan)
        # Here at the earliest: files that cannot be read leave no folder behind.
        folder = self._stack.enter_context(TrainFolder(plan.out))
        start = find_start(as_training(plan), self.processes, self.progress.note)
        asked = self._identity(start, cases, spec)
        record = folder.check(asked)
        if record is not None and "result" in record and (plan.out / MODEL).is_dir():
            check_rewarded(plan, spec, record)
            self.progress.note(f"{plan.out}: is done already")
            return grpo_trained_from(plan)
        rewarder = self._stack.enter_context(Rewarder(plan, spec, self.progress.note))
        self._stack.enter_context(machine(self.processes, self.progress.note))
        self.progress.note(f"loading {plan.model}")
        net = open_start(as_training(plan), start, self.processes)
        # An adapter's own too: an answer is to be as likely in the step as when it was sampled.
        without_dropout(net.model)
        prompts = Asked(plan, cases, net.loaded, start.base.name)
        assert rewarder.grader is not None
        if left := rewarder.grader.undecided:
            self.note(f"the reward leaves {len(left)} rules open: {', '.join(left)[:200]}")
        folder.claim(
            {**asked, "template": prompts.template, "rewarded_by": rewarder.identity},
            self._facts(start, cases, spec, net, rewarder),
        )
        self._go(folder, start, spec, net, prompts, rewarder)
        return grpo_trained_from(plan)

    def _identity(self, start: Start, cases: Sequence[Case], spec: Specification) -> dict[str, Any]:
        settings = self.plan.model_dump(mode="json", exclude=set(OPERATIONAL))
        if start.adapter is not None:
            settings.pop("lora")  # it has its own
        return {
            **settings,
            "dtype": resolve_dtype(self.plan.dtype),
            "base": start.base.digest,
            "adapter": start.adapter_digest,
            "prompts": cases_digest(cases),
            "spec": spec.digest,
        }

    def _facts(
        self,
        start: Start,
        cases: Sequence[Case],
        spec: Specification,
        net: Net,
        rewarder: Rewarder,
    ) -> dict[str, Any]:
        return {
            "plan": self.plan.model_dump(mode="json"),
            "base": start.base.name,
            "base_digest": start.base.digest,
            "adapter_digest": start.adapter_digest,
            "prompts": len(cases),
            "steps": steps_of(self.plan, len(cases)),
            "trained_parameters": net.trained_parameters,
            "all_parameters": net.all_parameters,
            "dtype": resolve_dtype(self.plan.dtype),
            "device": self.processes.device.type,
            "rewarded_by": rewarder.identity,
            "spec": asdict(_spec_note(spec)),
        }

    # ------------------------------------------------------------ the steps

    def _go(
        self,
        folder: TrainFolder,
        start: Start,
        spec: Specification,
        net: Net,
        prompts: Asked,
        rewarder: Rewarder,
    ) -> None:
        plan = self.plan
        steps = steps_of(plan, len(prompts.cases))
        found = newest_checkpoint(plan.out / CHECKPOINTS)
        done = found.step if found else 0
        cut_back(plan.out / LOG_FILE, done)
        self.progress.plan(steps, len(prompts.cases))
        parameters = net.parameters()
        optimizer = make_optimizer(parameters, as_training(plan))
        if done < steps:
            order = order_of(plan, len(prompts.cases))[done * plan.prompts_a_step :]

            def rewards(
                places: Sequence[int], answers: Sequence[Sequence[int]]
            ) -> list[float | None]:
                texts = [prompts.read(*one) for one in zip(places, answers, strict=True)]
                graded = rewarder.grade([prompts.cases[place] for place in places], texts)
                self.tally = Tally.of(graded, plan.generations)
                return [one.reward for one in graded]

            def on_log(step: int, logs: Mapping[str, Any], seconds: float) -> None:
                self._tell(self._log(step, logs, seconds, len(prompts.cases)))
                if step == steps or step % plan.save_every == 0:
                    self._save(step, net, optimizer)

            with silenced():
                trainer = make_trainer(
                    plan, net, prompts.rows(order), optimizer,
                    done=done, steps=steps, rewards=rewards, on_log=on_log,
                )  # fmt: skip
                # Behind TRL's making: with a beta it keeps a copy of the adapter as it began.
                if found is not None:
                    self._resume(found, parameters, optimizer)
                trainer.train()
                if "ref" in net.model.peft_config:
                    net.model.delete_adapter("ref")
        elif found is not None:
            self._resume(found, parameters, optimizer)
        trained = trained_tensors(net, keep=True)
        save_model(plan.out / MODEL, net, trained, self._adapter_note(start, spec, steps))
        folder.finish({"steps": steps, "notes": self.notes, "resumed_at": done})

    def _log(self, step: int, logs: Mapping[str, Any], seconds: float, prompts: int) -> GrpoLog:
        assert self.tally is not None
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm") or 0.0)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Stopped(
                f"step {step}: found a loss of {loss} and a gradient of {norm}; expected finite "
                "numbers",
                hint="The last checkpoint is kept. Try a lower --learning-rate with a new --out.",
            )
        length = float(logs["completions/mean_length"])
        return GrpoLog(
            step=step,
            epoch=step * self.plan.prompts_a_step / prompts,
            **asdict(self.tally),
            length=length,
            entropy=_number(logs, "entropy"),
            kl=_number(logs, "kl"),
            loss=loss,
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=norm,
            tokens=round(length * self.tally.answers),
            seconds=seconds,
        )

    def _tell(self, log: GrpoLog) -> None:
        append_log(self.plan.out / LOG_FILE, log)
        self.progress.step(log)

    def _save(self, step: int, net: Net, optimizer: Any) -> None:
        parameters = {n: p for n, p in net.parameters().items() if ".ref." not in n}
        tensors = {n: p.detach().to("cpu", copy=True) for n, p in parameters.items()}
        state = state_tensors(optimizer, parameters, keep=True)
        parent = self.plan.out / CHECKPOINTS
        write_checkpoint(parent, step, tensors, state)
        prune(parent, self.plan.keep)

    def _resume(
        self, found: Checkpoint, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any
    ) -> None:
        try:
            tensors = load_tensors(found.folder / TRAINED_FILE)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(tensors[name])
            load_state(optimizer, parameters, load_tensors(found.folder / OPTIMIZER_FILE))
        except (KeyError, RuntimeError) as error:
            raise BadInput(
                f"{found.folder}: does not fit the model ({error!s:.200})",
                hint="Remove this folder; the training goes on from the checkpoint before it.",
            ) from None
        self.note(f"going on from the checkpoint of step {found.step}")

    def _adapter_note(self, start: Start, spec: Specification, steps: int) -> AdapterNote:
        told = self.plan.model_dump(
            mode="json", exclude={"out", "prompts", "spec", "model", "judge"}
        )
        return AdapterNote(
            base=start.base.name,
            base_digest=start.base.digest,
            kind="adapter",
            spec=_spec_note(spec),
            training={**told, "steps": steps, "began_as": start.adapter_digest or None},
        )


def _spec_note(spec: Specification) -> SpecNote:
    return SpecNote(spec.name, spec.version, spec.digest)


def _number(logs: Mapping[str, Any], name: str) -> float | None:
    value = logs.get(name)
    return float(value) if value is not None and math.isfinite(value) else None
