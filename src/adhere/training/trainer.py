"""`train`: from a plan to a trained model on disk.

The parts: `folder.py` is the training's folder and what makes a resume the same training,
`loading.py` the model with what is trained of it, `dataset.py` the pairs and their groups,
`stepping.py` one optimizer step, `optimizing.py` the optimizer and the schedule, `checkpoints.py`
what a resume starts from, `processes.py` the processes that train together, `keeping.py` and
`saving.py` what is kept. This module is the order in which they are asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import torch

from adhere.errors import AdhereError, Stopped
from adhere.models.open_weights.adapters import SpecNote
from adhere.models.open_weights.loading import resolve_dtype
from adhere.training.checkpoints import Checkpoint, newest_checkpoint, prune, write_checkpoint
from adhere.training.dataset import Pairs
from adhere.training.dry_run import planned_steps
from adhere.training.exactness import check_exact
from adhere.training.folder import CHECKPOINTS, MODEL, TrainFolder, identity_of, read_record
from adhere.training.keeping import adapter_note, load_checkpoint, spec_note, trained_tensors
from adhere.training.lineage import spec_of
from adhere.training.loading import Base, Net, check_plan, machine
from adhere.training.log_probs import PairScorer
from adhere.training.optimizing import make_optimizer, state_tensors
from adhere.training.plan import TrainPlan
from adhere.training.plan_rows import Rows, chosen_objective, read
from adhere.training.processes import Processes, open_processes
from adhere.training.referencing import references_of
from adhere.training.result import Trained, trained_from
from adhere.training.saving import save_model
from adhere.training.starting import Start, check_start, find_start, open_start
from adhere.training.stepping import Stepper
from adhere.training.steps import Progress, Silent, StepLog

__all__ = ["Trained", "train"]

_NO_MEMORY = "can't allocate memory"  # of torch's allocator on CPUs


def train(plan: TrainPlan, *, progress: Progress | None = None) -> Trained:
    """Train as the plan says, or go on where it was left; both give the same model.

    Of several processes (`accelerate launch`) each calls it with the same plan; all read the same
    files, and the first one writes. A finished training is not done again: what came of it is told.

    Raises BadInput (also for a folder of another training), DiskFull, and Stopped for a loss or a
    gradient that is not finite; the last checkpoint is kept, whatever happens. The calling thread
    is busy until the end, and holds the compute lease.
    """
    with open_processes() as processes:
        devices = [processes.device] if processes.device.type == "cuda" else []
        try:
            check_plan(plan, processes)
            with ExitStack() as stack, torch.random.fork_rng(devices=devices):
                heard = (progress or Silent()) if processes.main else Silent()
                with _memory_told():
                    return _Training(plan, processes, heard, stack).run()
        except AdhereError as error:
            if processes.main:
                raise
            processes.end(error)


@contextmanager
def _memory_told() -> Iterator[None]:
    """Around a training: memory that ran out, as Stopped with what takes less of it."""
    try:
        yield
    except RuntimeError as error:  # torch has a class of its own for this on GPUs only
        if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
            raise
        raise Stopped(
            f"the memory is full ({str(error).splitlines()[0]:.200})",
            hint="The last checkpoint is kept. The same command goes on with --checkpoint-layers "
            "or a smaller --logit-chunk. With a new --out: a smaller --group-size or --max-length, "
            "--tune lora or qlora.",
        ) from None


class _Training:
    """One start of a training."""

    def __init__(
        self, plan: TrainPlan, processes: Processes, progress: Progress, stack: ExitStack
    ) -> None:
        self.plan = plan
        self.processes = processes
        self.progress = progress
        self.folder: TrainFolder | None = None
        self.spec: SpecNote | None = None
        self.spec_doubts: list[str] = []
        self.notes: list[str] = []
        self._stack = stack

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.note(text)

    def run(self) -> Trained:
        plan = self.plan
        given = spec_note(plan)
        rows = read(plan)
        self.spec, self.spec_doubts = spec_of(rows.rows, given)
        # Here at the earliest: rows that cannot be read leave no folder behind.
        self.folder = self.processes.on_main(
            lambda: self._stack.enter_context(TrainFolder(plan.out))
        )
        start = find_start(plan, self.processes, self.progress.note)
        base = start.base
        dtype = resolve_dtype(plan.dtype)
        asked = identity_of(plan, dtype=dtype, rows=rows.digest, base=base.digest)
        if start.adapter is not None:
            asked["adapter"] = start.adapter_digest
            del asked["lora"]  # it has its own
        if plan.objective == "auto":
            del asked["objective"]  # it may be what the record has
        if self.processes.number(lambda: self._is_done(asked)):
            self.progress.note(f"{plan.out}: this training is finished already")
            told = self._told()
            if given is not None and given != told.spec:
                self.progress.note(
                    f"It was not for {plan.spec} as that is now; card and page name its own spec."
                )
            return told
        for text in self.spec_doubts:
            self.note(text)
        self._stack.enter_context(machine(self.processes, self.progress.note))
        objective, why = self._objective(rows)
        if why:
            self.note(f"objective: {why}")
        check_start(plan, start, objective)
        self.progress.note(f"loading {plan.model}")
        net = open_start(plan, start, self.processes)
        pairs = Pairs(plan, rows, net.loaded, self.progress.note)
        for text in pairs.notes:
            self.note(text)
        settled = {
            "objective": objective,
            "template": pairs.template,
            "tokens": pairs.digest,
        }
        record = self.processes.on_main(
            lambda: self._on_disk().claim(
                {**asked, **settled}, self._facts(rows, start, net, pairs, why)
            )
        )
        stepper = self._stepper(objective, base, net, pairs)
        self._go(stepper, start, record or {})
        return self._told()

    # ------------------------------------------------------------ before the first step

    def _on_disk(self) -> TrainFolder:
        assert self.folder is not None  # only the first process asks
        return self.folder

    def _is_done(self, asked: Mapping[str, Any]) -> int:
        record = self._on_disk().check(asked)
        there = (self.plan.out / MODEL).is_dir()
        return int(record is not None and "result" in record and there)

    def _objective(self, rows: Rows) -> tuple[str, str]:
        record = read_record(self.plan.out)
        if self.plan.objective == "auto" and record is not None:
            return str(record["identity"]["objective"]), str(record["facts"].get("why", ""))
        return chosen_objective(
            self.plan, rows, self.progress.note, may_sample=self.processes.world == 1
        )

    def _facts(self, rows: Rows, start: Start, net: Net, pairs: Pairs, why: str) -> dict[str, Any]:
        """What the record says besides the identity."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "base": start.base.name,
            "base_digest": start.base.digest,
            "adapter_digest": start.adapter_digest,
            "rows_digest": rows.digest,
            "pairs": pairs.n_train,
            "held_out": pairs.n_dev,
            "set_aside": [list(one) for one in pairs.set_aside],
            "trained_parameters": net.trained_parameters,
            "all_parameters": net.all_parameters,
            "dtype": resolve_dtype(self.plan.dtype),
            "device": self.processes.device.type,
            "processes": self.processes.world,
            "why": why,
            "spec": asdict(self.spec) if self.spec is not None else None,
            "spec_doubts": self.spec_doubts,
        }

    def _stepper(self, objective: str, base: Base, net: Net, pairs: Pairs) -> Stepper:
        plan = self.plan
        scorer = PairScorer(
            net.model,
            chunk=plan.logit_chunk,
            share=plan.share_prompt and not pairs.alone,
            checkpoint_layers=plan.checkpoint_layers,
            longest=max(pair.length for pair in pairs.pairs),
            note=self.note,
        )
        with net.products():
            check_exact(scorer, pairs.pairs, self.note)
        wrapped = self.processes.wrap(scorer, net.model)
        references = None  # only rewards would need them
        if not pairs.alone:
            references = references_of(
                plan, base, scorer, net, pairs, self.processes, note=self.progress.note,
                progress=self.progress,
            )  # fmt: skip
        return Stepper(
            plan=plan,
            objective=objective,
            net=net,
            pairs=pairs,
            layout=pairs.layouts(scorer),
            wrapped=wrapped,
            references=references,
            optimizer=make_optimizer(net.parameters(), plan),
            processes=self.processes,
        )

    # ------------------------------------------------------------ the steps

    def _go(self, stepper: Stepper, start: Start, record: Mapping[str, Any]) -> None:
        plan, pairs, net = self.plan, stepper.pairs, stepper.net
        an_epoch = pairs.steps_an_epoch
        steps = planned_steps(plan, an_epoch)
        done = self._resume(stepper)
        self.progress.plan(steps, pairs.n_train, pairs.n_dev, pairs.called)
        if done:
            self.note(f"going on from the checkpoint of step {done}")
        if done == 0 and pairs.dev:
            self._tell(stepper.look(0, pairs.dev, 0.0))
        for step in range(done + 1, steps + 1):
            epoch, place = divmod(step - 1, an_epoch)
            batch = pairs.batches(epoch)[place]
            self._tell(stepper.train(step, steps, batch, step / an_epoch))
            last = step == steps
            if pairs.dev and (last or (plan.eval_every and step % plan.eval_every == 0)):
                self._tell(stepper.look(step, pairs.dev, step / an_epoch))
            if last or step % plan.save_every == 0:
                self._save(stepper, step)
        trained = trained_tensors(net, keep=self.processes.main)
        self.processes.on_main(
            lambda: save_model(
                plan.out / MODEL, net, trained, adapter_note(plan, stepper, start, self.spec, steps)
            )
        )
        result = {"steps": steps, "notes": self.notes, "resumed_at": done}
        self.processes.on_main(lambda: self._on_disk().finish(result))

    def _tell(self, log: StepLog) -> None:
        self.processes.on_main(lambda: self._on_disk().append(log))
        self.progress.step(log)

    def _resume(self, stepper: Stepper) -> int:
        """Load the newest checkpoint and cut the log back to it; its step, or 0."""
        parent = self.plan.out / CHECKPOINTS

        def find() -> int:
            found = newest_checkpoint(parent)
            self._on_disk().cut_back(found.step if found else None)
            return found.step if found else 0

        step = self.processes.number(find)
        if step:
            load_checkpoint(Checkpoint(step, parent / f"step-{step}"), stepper)
        return step

    def _save(self, stepper: Stepper, step: int) -> None:
        keep = self.processes.main
        trained = trained_tensors(stepper.net, keep=keep)
        state = state_tensors(stepper.optimizer, stepper.net.parameters(), keep=keep)
        parent = self.plan.out / CHECKPOINTS

        def write() -> None:
            found = write_checkpoint(parent, step, trained, state)
            prune(parent, self.plan.keep)
            self.progress.saved(step, str(found.folder))

        self.processes.on_main(write)

    def _told(self) -> Trained:
        return trained_from(self.plan, main=self.processes.main)
