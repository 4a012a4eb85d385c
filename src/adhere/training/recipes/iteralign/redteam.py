"""Red-teaming: a policy answers a pool of prompts, and each answer is found good or bad.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    failures.jsonl   the bad answers, with their prompts and why: what proposing and reflecting read
    good.jsonl       the prompts that went well, with their answers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.chat import Case, Completion, Models, Outcome, Role
from adhere.errors import AdhereError, ContextTooLong, Filtered
from adhere.experiments.answering import error_facts, kept
from adhere.experiments.inputs import common_inputs
from adhere.experiments.marking import JUDGE_ROLE
from adhere.experiments.metrics import means
from adhere.experiments.phases import Listener
from adhere.experiments.pricing import Prices
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.rows import FAILED, WAITING, Row, begun, ended
from adhere.experiments.stepwise.run import Made
from adhere.experiments.stepwise.seats import NOBODY, Open
from adhere.judging import JudgeConfig
from adhere.methods.base import DRAWS_PER_REPEAT, read_answer
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts
from adhere.records import SCHEMA_VERSION
from adhere.records.run_folder import Key, dump_json, write_atomic
from adhere.training.recipes.iteralign.failures import FAILURES_FILE, Failure, failure_line
from adhere.training.recipes.iteralign.finding import (
    AsPublished,
    ByJudge,
    ByRules,
    Finder,
    Said,
)
from adhere.training.recipes.iteralign.health import health_of
from adhere.training.recipes.iteralign.plan import FindingPlan, RedteamPlan
from adhere.training.recipes.iteralign.pool import Pool, as_suite, read_pool
from adhere.training.recipes.iteralign.seats import (
    JUDGE,
    POLICY,
    SeatedRun,
    check_seats,
    models_of,
    not_apart,
    prices_of,
)

KIND = "redteam"
SUITE = "pool"
GOOD_FILE = "good.jsonl"

# How a row ends.
BAD, GOOD, UNSCORED = "bad", "good", Outcome.UNSCORED.value


@dataclass(frozen=True)
class RedteamInputs:
    """Plan, pool, templates, and who says what is bad."""

    plan: RedteamPlan
    pool: Pool
    templates: Prompts
    finder: Finder
    seats: dict[str, ModelConfig]
    prices: Prices | None

    def row_keys(self) -> list[Key]:
        """All rows, in the order of the pool."""
        label = self.plan.policy.label
        return [
            (SUITE, case.id, label, "", repeat)
            for case in self.pool.cases
            for repeat in range(self.plan.repeats)
        ]

    def identity(self) -> dict[str, Any]:
        """What decides the rows; models add theirs when they are connected."""
        plan = self.plan
        return {
            "kind": KIND,
            "pool": self.pool.digest,
            "found_by": self.finder.settings,
            "templates": self.templates.digest_of("iteralign/"),
            "sampling": plan.sampling.model_dump(mode="json"),
            "repeats": plan.repeats,
            "policy": plan.policy.settings(),
            "models": {},
        }


def read_redteam_inputs(plan: RedteamPlan, pool: Pool | None = None) -> RedteamInputs:
    """Read the pool and the templates. Raises BadInput before anything is written.

    `pool`: prompts that the caller has read already.
    """
    templates = Prompts(plan.prompts_dir)
    templates.check_all()
    pool = pool or read_pool(plan.prompts, plan.suites, plan.wrap, templates)
    finder = make_finder(plan, pool.cases, templates)
    seats: dict[str, ModelConfig] = {POLICY: plan.policy}
    if finder.config is not None:
        seats[JUDGE] = finder.config
    return RedteamInputs(plan, pool, templates, finder, seats, prices_of(plan, seats))


def make_finder(plan: FindingPlan, cases: Sequence[Case], templates: Prompts) -> Finder:
    """Who says what is bad. Raises BadInput."""
    if plan.found_by == "rules":
        common = common_inputs(plan, [as_suite(SUITE, cases, harmful=False)], [])
        return ByRules(common.judge, common.spec)
    assert isinstance(plan.judge, JudgeConfig)
    if plan.found_by == "published":
        return AsPublished(plan.judge, templates)
    return ByJudge(plan.judge, templates, plan.about)


async def redteam(
    plan: RedteamPlan, listener: Listener | None = None, *, pool: Pool | None = None
) -> RunResult:
    """Red-team (or go on with it). Raises AdhereError."""
    inputs = read_redteam_inputs(plan, pool)
    check_seats(inputs.seats)
    return await RedteamRun(inputs, listener or Silent()).run()


@dataclass
class Redteaming:
    """What the rows go through (`Steps`)."""

    inputs: RedteamInputs

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked."""
        return begun(key, text=None, thought="", finish_reason="", found=None)

    def next_seat(self, row: Row) -> str:
        """Who must be open for a row's next step."""
        if row["text"] is None:
            return POLICY
        return JUDGE if self.inputs.finder.config is not None else NOBODY

    async def step(self, row: Row, open_: Open) -> Row:
        """The row one step further."""
        case = self.inputs.pool.by_id[row["case"]]
        if row["text"] is None:
            return await self._answer(row, case, open_)
        models: Models = {Role.JUDGE: open_.models[JUDGE]} if JUDGE in open_.models else {}
        said = await found_in(self.inputs.finder, case, row["text"], models)
        if said.error is not None:
            return failed(row, said.error, JUDGE_ROLE)
        row = {**row, "found": told(said)}
        if said.bad is None:
            return ended(row, UNSCORED, said.reason)
        return ended(row, BAD if said.bad else GOOD)

    async def _answer(self, row: Row, case: Case, open_: Open) -> Row:
        sampling = self.inputs.plan.sampling.sampling()

        async def asked() -> tuple[Completion, str, str]:
            draw = row["repeat"] * DRAWS_PER_REPEAT
            [got] = await open_.models[POLICY].sample(
                list(case.messages), sampling, first_draw=draw
            )
            return got, *read_answer(got)

        made, outcome, reason, error = await kept(asked())
        if outcome is Outcome.FAILED:
            assert error is not None
            return failed(row, error, POLICY)
        if made is None:  # cut within a thought, or withheld by a filter: nobody can say
            return ended({**row, "text": ""}, UNSCORED, reason)
        got, text, thought = made
        row = {**row, "text": text, "thought": thought, "finish_reason": got.finish_reason}
        if not text.strip():
            return ended(row, UNSCORED, "the answer is empty")
        return row


async def found_in(finder: Finder, case: Case, text: str, models: Models) -> Said:
    """What is said of an answer; whatever fails on the way is part of it.

    Raises DiskFull and Stopped.
    """
    made, outcome, reason, error = await kept(finder.find(case, text, models))
    if made is not None:
        return made
    return Said(None, reason, error=error if outcome is Outcome.FAILED else None)


def told(said: Said) -> dict[str, Any]:
    """What was said, as a row keeps it."""
    out: dict[str, Any] = {"bad": said.bad, "reason": said.reason, "axis": said.axis}
    return {**out, "rules": list(said.rules)} if said.rules else out


def failed(row: Row, error: AdhereError, role: str) -> Row:
    """The row at its end by a call that failed."""
    facts = {**error_facts(error), "role": role}
    if isinstance(error, ContextTooLong | Filtered):
        facts["retry"] = False
    return {**ended(row, FAILED, "call_failed", error.message), "error": facts}


@dataclass
class RedteamRun(SeatedRun[RedteamInputs]):
    """One start of a run."""

    kind = KIND

    def steps(self) -> Redteaming:
        """See `StepwiseRun.steps`."""
        return Redteaming(self.inputs)

    def undecided(self, summary: Mapping[str, Any]) -> int:
        """See `StepwiseRun.undecided`."""
        return int(summary["unscored"] + summary["failed"])

    def write(self, made: Made) -> dict[str, Any]:
        """Write rows, failures and what went well; return the summary."""
        inputs, path = self.inputs, made.folder.path
        made.folder.export_rows(made.keys)
        write_lines(path / FAILURES_FILE, (failure_line(f) for f in failures_of(inputs, made.rows)))
        write_lines(path / GOOD_FILE, _good_lines(inputs, made.rows))
        return summarize(inputs, made)


def write_lines(path: Any, lines: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, the whole file or nothing."""
    write_atomic(path, "".join(dump_json(line) + "\n" for line in lines))


def failures_of(inputs: RedteamInputs, rows: Sequence[Row]) -> list[Failure]:
    """The bad answers in the order of the pool."""
    return [
        Failure(
            row_id(row),
            inputs.pool.by_id[row["case"]],
            row["text"],
            row["found"]["reason"],
            tuple(row["found"].get("rules", ())),
        )
        for row in rows
        if row["outcome"] == BAD
    ]


def row_id(row: Row) -> str:
    """What a row is called in files: its prompt's id, and `#N` for a later repeat."""
    return f"{row['case']}#{row['repeat']}" if row["repeat"] else str(row["case"])


def _good_lines(inputs: RedteamInputs, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "id": row_id(row),
            "messages": [m.to_dict() for m in inputs.pool.by_id[row["case"]].messages],
            "answer": row["text"],
        }
        for row in rows
        if row["outcome"] == GOOD
    ]


def summarize(inputs: RedteamInputs, made: Made) -> dict[str, Any]:
    """The numbers of a run: the share of bad answers with its interval over prompts."""
    rows, planned = made.rows, len(made.keys)
    ends = Counter(row["outcome"] for row in rows)
    by_case: dict[str, list[float]] = {}
    for row in rows:
        if row["outcome"] in (BAD, GOOD):
            by_case.setdefault(row["case"], []).append(float(row["outcome"] == BAD))
    [rate] = means([by_case], seed=inputs.plan.sampling.seed)
    answers = [row["text"] for row in rows if row["text"]]
    broken = Counter(rule for row in rows for rule in (row["found"] or {}).get("rules", ()))
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "planned": planned,
        "bad": ends[BAD],
        "good": ends[GOOD],
        "unscored": ends[UNSCORED],
        "failed": ends[FAILED],
        "waiting": planned - len(rows) + ends[WAITING],
        "bad_rate": {
            "value": rate.value, "low": rate.low, "high": rate.high,
            "of": ends[BAD] + ends[GOOD], "prompts": len(by_case),
        },
        "by_axis": dict(Counter(r["found"]["axis"] for r in rows if r["outcome"] == BAD)),
        "by_rule": {rule: broken[rule] for rule in sorted(broken)},
        "unscored_by_reason": dict(
            Counter(r["reason"] for r in rows if r["outcome"] == UNSCORED).most_common()
        ),
        "answers": health_of(answers),
        "pool": {
            "prompts": len(inputs.pool.cases), "sources": list(inputs.pool.sources),
            "notes": list(inputs.pool.notes), "harmful": inputs.pool.harmful,
        },
        "found_by": inputs.plan.found_by,
        "not_apart": not_apart(made.record),
        "models": models_of(made.record),
        "settings": {k: v for k, v in made.record["identity"].items() if k != "models"},
        "spent": {label: used.to_dict() for label, used in made.spent.items()},
        **made.facts,
    }  # fmt: skip
