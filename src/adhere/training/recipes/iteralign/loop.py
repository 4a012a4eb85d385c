"""The rounds of IterAlign: what is done next, what a round came to, and when it ends.

    state        what happened
    trained      failures, rules, revisions, and a new model
    clean        no failure (or no more than `clean` allows): nothing is trained and nothing loaded
    undecided    nobody could judge any answer
    no_rules     the oracle wrote none, and there are none from before
    no_pairs     no revision passed the gate
    not_trained  the training did not come to its end (numbers that are not finite, no memory)
    rolled_back  the new model stopped talking sense: it and its pairs are left out

A round's record is committed when the round is at its end; everything before that lies in the
folders of its phases, each of which goes on where it was. So a run may be killed at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from adhere.errors import EXIT_DONE, EXIT_INCOMPLETE, AdhereError, BadInput, Stopped
from adhere.experiments.phases import Listener
from adhere.experiments.roles import decodes_here
from adhere.experiments.starts import RunResult, new_record
from adhere.experiments.starts import Silent as SilentRun
from adhere.judging.replies import offers_schema
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter
from adhere.prompting import Prompts
from adhere.records import RunFolder
from adhere.training.plan import TrainPlan
from adhere.training.recipes.iteralign.ending import (
    CLEAN,
    NO_PAIRS,
    NO_RULES,
    NOT_TRAINED,
    ROLLED_BACK,
    TRAINED,
    UNDECIDED,
    why_ended,
)
from adhere.training.recipes.iteralign.failures import Failure
from adhere.training.recipes.iteralign.health import collapse
from adhere.training.recipes.iteralign.held_out import look_of, overlap, set_aside
from adhere.training.recipes.iteralign.ledger import ACTIVE, HELD, Entry, Ledger
from adhere.training.recipes.iteralign.pool import Pool, batches, read_pool
from adhere.training.recipes.iteralign.redteam import make_finder
from adhere.training.recipes.iteralign.round_rows import good_lines, take_rows
from adhere.training.recipes.iteralign.rounds_plan import OPERATIONAL, IteratePlan
from adhere.training.recipes.iteralign.seats import check_seats
from adhere.training.recipes.iteralign.steps import (
    ATTACK,
    ATTACKED,
    REDTEAM,
    REFLECT,
    TRAIN,
    Phases,
    round_folder,
)
from adhere.training.recipes.iteralign.story import write_story
from adhere.training.steps import Progress

KIND = "iterate"
PREFIX = "weights:"
Record = dict[str, Any]
# Trains as a plan says; the new model as plans name it (`weights:FOLDER`). Raises Stopped for a
# training that broke down.
Trainer = Callable[[TrainPlan], str]


class Watcher(Protocol):
    """Who watches rounds. All methods return at once."""

    def phase(self, number: int, name: str) -> Listener:
        """Say what begins; who watches it."""

    def round(self, record: Mapping[str, Any]) -> None:
        """Take a round that is at its end."""

    def note(self, text: str) -> None:
        """Take one line."""


class Silent:
    """A watcher that does nothing."""

    def phase(self, number: int, name: str) -> Listener:
        """Ignore it."""
        return SilentRun()

    def round(self, record: Mapping[str, Any]) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


def iterate(
    plan: IteratePlan, *, trainer: Trainer | None = None, watcher: Watcher | None = None
) -> RunResult:
    """Go through the rounds of a plan, or go on with them. Raises AdhereError.

    `trainer`: another way to train than on this machine; with one, the policy may be any model. The
    calling thread is busy until the end, and holds the machine's cores while it trains.
    """
    if trainer is None:
        check_trainable(plan)
    return _Loop(plan, trainer or train_here, watcher or Silent()).run()


def check_trainable(plan: IteratePlan) -> None:
    """Raises BadInput for a policy that cannot be trained on this machine."""
    if not plan.policy.model.startswith(PREFIX):
        raise BadInput(
            f"model: found {plan.policy.model!r:.100}; expected {PREFIX}NAME of `adhere models "
            "list` or a folder of weights, for it is trained",
            hint="`adhere data redteam`, `propose` and `reflect` take any model.",
        )


def train_here(plan: TrainPlan, *, progress: Progress | None = None) -> str:
    """Train on this machine, with page and card beside the model. Raises AdhereError."""
    from adhere.training.account import Account
    from adhere.training.finishing import write_files
    from adhere.training.trainer import train

    trained = train(plan, progress=progress)
    write_files(Account.of(trained), trained.folder, trained.model)
    return f"{PREFIX}{trained.model}"


@dataclass
class _Loop:
    plan: IteratePlan
    trainer: Trainer
    watcher: Watcher
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.templates = Prompts(self.plan.prompts_dir)
        self.templates.check_all()
        self._read_prompts()
        _check_models(self.plan, self.pool, self.templates)
        self._began = self._start = time.monotonic()

    def _read_prompts(self) -> None:
        """The pool, and the prompts that models are measured on."""
        plan = self.plan
        self.pool = read_pool(plan.prompts, plan.suites, plan.wrap, self.templates)
        self.held_out: Pool | None = None
        if plan.held_out:
            self.held_out = read_pool(plan.held_out, (), "none", self.templates)
            if alike := overlap(self.pool, self.held_out):
                self.pool = replace(self.pool, notes=(*self.pool.notes, (
                    f"{alike} of {len(self.held_out.cases)} held-out prompts are nearly the same "
                    "as one of the pool, or begin like it"
                )))  # fmt: skip
        elif plan.guard:
            self.pool, self.held_out = set_aside(self.pool, plan.batch, plan.sampling.seed)
        self.batches = batches(self.pool.cases, plan.batch)

    # ------------------------------------------------------------ one start

    def run(self) -> RunResult:
        plan = self.plan
        with RunFolder(plan.out) as folder:
            record = new_record(plan, OPERATIONAL, self._identity(), kind=KIND, models={})
            folder.claim(record)
            self.folder = folder
            self.ledger = Ledger(plan.out)
            found = folder.facts("round ")
            self.records = [found[name] for name in sorted(found)]
            before = len(self.records)
            stopped: AdhereError | None = None
            try:
                while (number := self._sample()) is not None:
                    self._train(number)
            except Stopped as error:
                stopped = error
            finally:
                summary = self._tell(str(stopped) if stopped else "")
        if stopped is not None:
            return RunResult(plan.out, summary, False, str(stopped), Stopped.exit_code)
        open_ = summary["undecided"] > plan.max_unscored * summary["answers"]
        code = EXIT_INCOMPLETE if open_ else EXIT_DONE
        return RunResult(plan.out, summary, before == len(self.records), "", code)

    def _identity(self) -> Record:
        plan = self.plan
        own = plan.model_dump(
            mode="json",
            exclude={*OPERATIONAL, "model", "models", "judge", "oracle", "prompts", "suites",
                     "held_out", "spec", "methods"},
        )  # fmt: skip
        return {
            "kind": KIND,
            **own,
            "pool": self.pool.digest,
            "held_out": self.held_out.digest if self.held_out else None,
            "found_by_settings": make_finder(plan, self.pool.cases, self.templates).settings,
            "policy": plan.policy.settings(),
            "oracle": plan.oracle.settings() if plan.oracle else None,
            "templates": self.templates.digest_of("iteralign/"),
            "models": {},
        }

    # ------------------------------------------------------------ between two trainings

    def _sample(self) -> int | None:
        """Everything up to the next training: the round that is to be trained, or None at the end.

        Raises AdhereError.
        """
        return asyncio.run(self._until_training())

    async def _until_training(self) -> int | None:
        async with AsyncExitStack() as stack:
            opened = ""
            while True:
                number = len(self.records) + 1
                if (model := self._trained_model(number)) is not None:
                    await self._finish(number, model)
                    continue
                policy = self._policy()
                if opened != policy.model and self._keeps_open():
                    # One load for all phases and rounds until the weights change.
                    await stack.aclose()
                    limits = self.plan.limits
                    await stack.enter_async_context(
                        connect(policy, Limiter(limits.concurrency), note=self.watcher.note)
                    )
                    opened = policy.model
                await self._settle_output()
                await self._first_look(policy)
                if self.ended:
                    return None
                if await self._round(number, policy):
                    return number

    def _keeps_open(self) -> bool:
        """Whether the policy may stay loaded beside the oracle and the judge."""
        others = [role for role in (self.plan.oracle, self.plan.judge) if role is not None]
        return not any(decodes_here(role) for role in others)

    def _policy(self) -> ModelConfig:
        """The model of the last round that left one."""
        return self._as_policy(self._model_now())

    def _as_policy(self, model: str) -> ModelConfig:
        # The same name in all rounds, so that their rows go together.
        plan = self.plan
        return plan.policy.model_copy(update={"model": model, "name": plan.policy.label})

    def _model_now(self) -> str:
        models = [r["model"] for r in self.records if r["state"] == TRAINED]
        return models[-1] if models else self.plan.policy.model

    def _phases(self, number: int, name: str) -> Phases:
        return Phases(self.plan, self.watcher.phase(number, name), self._start)

    async def _settle_output(self) -> None:
        """Find out once, and not in each phase, whether oracle and judge hold to a schema."""
        plan, known = self.plan, {}
        for role in ("oracle", "judge"):
            config = getattr(plan, role)
            writes = plan.form == "rules" or plan.attacks or plan.compare
            asked = plan.found_by == "judge" if role == "judge" else writes
            if config is None or config.output != "auto" or not asked:
                continue
            fact = f"schema {config.model} {config.base_url or ''}"
            if (found := self.folder.get_fact(fact)) is None:
                limits = plan.limits
                opened = connect(
                    config.model_only(), Limiter(limits.concurrency), timeout=limits.timeout
                )
                async with opened as model:
                    found = await offers_schema(model)
                self.folder.put_fact(fact, found)
            known[role] = config.model_copy(update={"output": "json" if found else "text"})
        self.plan = plan.model_copy(update=known)

    async def _first_look(self, policy: ModelConfig) -> None:
        """The first model on the held-out prompts."""
        if self.held_out is None or self.folder.get_fact("look 0000") is not None:
            return
        found = await self._phases(0, "probe").probe(0, policy, self.held_out)
        self.folder.put_fact("look 0000", look_of(found))

    async def _round(self, number: int, policy: ModelConfig) -> bool:
        """A round up to its training; False where it ended without one."""
        plan = self.plan
        self._take_edits()
        self.folder.put_fact(f"begun {number:04d}", True)
        cases = self.batches[number - 1]
        pool = Pool(cases, harmful=self.pool.harmful, by_id={c.id: c for c in cases})
        found = await self._phases(number, REDTEAM).redteam(number, policy, pool)
        failures = Phases(plan, SilentRun()).failures(number)
        of = found["bad_rate"]["of"]
        facts: Record = {"found": _counts(found), "rules": None, "rows": None}
        if not of:
            return self._end(number, UNDECIDED, facts)
        if not failures or found["bad"] / of <= plan.clean:
            return self._end(number, CLEAN, facts)
        if plan.attacks:
            more, facts["attacks"] = await self._attacks(number, policy, failures)
            failures += more
        rules, facts["rules"] = await self._rules(number, failures)
        if not rules:
            return self._end(number, NO_RULES, facts)
        made = await self._phases(number, REFLECT).reflect(number, policy, failures, rules)
        facts["rows"] = {
            key: made[key]
            for key in ("rows", "rejected", "failed", "rejected_by_reason", "refusals")
        }
        self.folder.put_fact(f"before training {number:04d}", facts)
        if not made["rows"]:
            return self._end(number, NO_PAIRS, facts)
        return True

    async def _attacks(
        self, number: int, policy: ModelConfig, failures: Sequence[Failure]
    ) -> tuple[tuple[Failure, ...], Record]:
        """Failures on prompts that the oracle wrote for the round, and how that went.

        They are counted apart: a share of bad answers to prompts that were made to bring them
        about says nothing about the pool.
        """
        held = self.held_out.cases if self.held_out is not None else ()
        beside = (*self.batches[number - 1], *held)
        pool, told = await self._phases(number, ATTACK).attack(number, failures, beside)
        keys = ("asked_for", "written", "new", "none_by_reason", "failed")
        facts = {key: told[key] for key in keys}
        if not pool.cases:
            return (), {**facts, "found": None}
        found = await self._phases(number, ATTACKED).attacked(number, policy, pool)
        more = Phases(self.plan, SilentRun()).failures_attacked(number)
        return more, {**facts, "found": _counts(found)}

    def _take_edits(self) -> None:
        """Take over what a person changed in constitution.md, for the next round that begins."""
        number = len(self.records) + 1
        begun = self.folder.get_fact(f"begun {number:04d}") is not None
        if edits := self.ledger.take_edits(number + begun):
            self.watcher.note(f"{len(edits)} edits of a person in constitution.md are taken over")

    async def _rules(self, number: int, failures: Sequence[Any]) -> tuple[list[Entry], Record]:
        """The rules to reflect on, and what came of proposing."""
        plan, ledger = self.plan, self.ledger
        before = ledger.before(number)
        proposals, told = await self._phases(number, "propose").propose(number, failures, before)
        oracle = next((m["identity"] for m in told["models"] if m["role"] == "oracle"), "")
        ledger.propose(number, proposals, oracle, dedupe=plan.dedupe)
        new = [e for e in ledger.proposed_in(number) or [] if e.status in (ACTIVE, HELD)]
        if plan.compare and new and (before or len(new) > 1):
            found = await self._phases(number, "compare").compare(number, new, before)
            for one in found["found"]:
                ledger.compare(number, one["id"], one["same_as"], one["contradicts"])
        self._write_specs()
        entries = ledger.proposed_in(number) or []
        now = ledger.at(number)
        facts = {
            "proposed": len(entries),
            "novel_share": ledger.novel_share(number),
            "held": sum(e.status == HELD for e in now.values() if e.round == number),
            "active": len(ledger.active_in(number)),
            "flagged_sources": told["sources_speaking_of_rules"],
            "none_by_reason": told["none_by_reason"],
            "edits": ledger.edits_in(number),
        }
        if plan.form == "published":
            # A batch goes by its own text, as it stands, whatever was written before.
            return [
                Entry(f"r{number}-batch", p.text, p.kind, number, p.covers) for p in proposals
            ], facts
        return ledger.active_in(number), facts

    def _write_specs(self) -> None:
        """Write the rules for people to read, after what they changed there was taken over."""
        self._take_edits()
        self.ledger.write_specs(self.plan.about)

    # ------------------------------------------------------------ the training

    def _train(self, number: int) -> None:
        """Train a round's model. A training that breaks down ends the round."""
        plan, folder = self.plan, round_folder(self.plan.out, number)
        rows = self._rows(number)
        model = plan.policy.model if plan.start == "base" else self._model_now()
        made = plan.train_plan(model, rows, folder / TRAIN)
        self._phases(number, TRAIN).check_time()
        try:
            trained = self.trainer(made)
        except Stopped as error:
            facts = self.folder.get_fact(f"before training {number:04d}")
            self._end(number, NOT_TRAINED, {**facts, "why": error.message})
            return
        self.folder.put_fact(f"model {number:04d}", trained)

    def _rows(self, number: int) -> Path:
        """The rows of a round's training, in a file."""
        plan = self.plan
        rounds = [number]
        if plan.data == "pool":
            rounds = [r["round"] for r in self.records if r["state"] == TRAINED] + rounds
        sources = [(n, round_folder(plan.out, n)) for n in rounds]
        good = good_lines(sources, plan.replay, plan.sampling.seed)
        return take_rows(sources, good, round_folder(plan.out, number) / "rows.jsonl")

    def _trained_model(self, number: int) -> str | None:
        """The model of a round that was trained and has no record yet."""
        found: str | None = self.folder.get_fact(f"model {number:04d}")
        return found

    async def _finish(self, number: int, model: str) -> None:
        """Look at a round's model, and keep it or leave it out."""
        facts = self.folder.get_fact(f"before training {number:04d}")
        facts["model"] = model
        if self.held_out is None:
            self._end(number, TRAINED, facts)
            return
        seen = await self._phases(number, "probe").probe(
            number, self._as_policy(model), self.held_out
        )
        facts["look"] = look_of(seen)
        state = TRAINED
        if self.plan.guard:
            first = self.folder.get_fact("look 0000")
            last = next((r["look"] for r in reversed(self.records) if r["state"] == TRAINED), first)
            facts["collapse"] = collapse(
                first["answers"], facts["look"]["answers"], self.plan.bands.bands(),
                bad_before=last["bad_rate"]["value"], bad_now=facts["look"]["bad_rate"]["value"],
            )  # fmt: skip
            if facts["collapse"]:
                state = ROLLED_BACK
        self._end(number, state, facts)

    # ------------------------------------------------------------ ends

    def _end(self, number: int, state: str, facts: Record) -> bool:
        """Commit a round's record; False, for it needs no training any more."""
        record = {"round": number, "state": state, "seconds": self._seconds(), **facts}
        self.folder.put_fact(f"round {number:04d}", record)
        self.records.append(record)
        self.watcher.round(record)
        self._tell("")
        return False

    def _seconds(self) -> float:
        now = time.monotonic()
        seconds, self._began = now - self._began, now
        return round(seconds, 1)

    @property
    def ended(self) -> str:
        """Why there is no further round, in words; empty while there is one."""
        first = self.folder.get_fact("look 0000")
        return why_ended(self.plan, self.records, first, len(self.batches))

    def _tell(self, stopped: str) -> Mapping[str, Any]:
        """Write what there is to read: the ledger's specs, the table of rounds, the page."""
        try:
            self._write_specs()
        except BadInput as error:  # half saved by whoever edits it: theirs stays as it is
            self.watcher.note(f"note: {error.message}")
        return write_story(
            self.plan, self.folder, self.ledger, self.records,
            ended=self.ended, stopped=stopped, model=self._model_now(),
            pool=self.pool, held_out=self.held_out,
        )  # fmt: skip


def _counts(found: Mapping[str, Any]) -> Record:
    keys = ("bad", "good", "unscored", "failed", "bad_rate", "by_axis", "by_rule", "answers")
    return {key: found[key] for key in keys}


def _check_models(plan: IteratePlan, pool: Pool, templates: Prompts) -> None:
    """Find missing keys and unknown names before a folder is made. Raises BadInput."""
    finder = make_finder(plan, pool.cases, templates)
    seats: dict[str, ModelConfig] = {"policy": plan.policy}
    if plan.oracle is not None:
        seats["oracle"] = plan.oracle
    if finder.config is not None:
        seats["judge"] = finder.config

    check_seats(seats)


__all__ = [
    "KIND", "Silent", "Trainer", "Watcher", "check_trainable", "iterate", "train_here",
]  # fmt: skip
