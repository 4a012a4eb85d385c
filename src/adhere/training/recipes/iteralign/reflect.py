"""Reflecting as a run: failures and rules in, rows to train on out.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    rows.jsonl       prompt and revision, as TRL and `adhere train` read them (sft)
    pairs.jsonl      the same with the bad answer as the rejected one (apo, dpo)
    rejected.jsonl   the failures that gave none, each with its reason and its refused tries
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adhere.chat import Models, Outcome, Role, digest
from adhere.errors import BadInput
from adhere.experiments.answering import kept
from adhere.experiments.marking import JUDGE_ROLE
from adhere.experiments.phases import Listener
from adhere.experiments.pricing import Prices
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.rows import FAILED, WAITING, Row, begun, ended
from adhere.experiments.stepwise.run import Made
from adhere.experiments.stepwise.seats import NOBODY, Open
from adhere.methods.base import DRAWS_PER_REPEAT
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts
from adhere.records import SCHEMA_VERSION
from adhere.records.run_folder import Key
from adhere.spec import load_spec, looks_like_refusal
from adhere.training.recipes.iteralign.failures import Failure, failures_digest, read_failures
from adhere.training.recipes.iteralign.finding import Finder
from adhere.training.recipes.iteralign.gate import REASONS, refuse
from adhere.training.recipes.iteralign.health import health_of
from adhere.training.recipes.iteralign.ledger import ANSWERS, Entry
from adhere.training.recipes.iteralign.plan import ReflectPlan
from adhere.training.recipes.iteralign.redteam import (
    failed,
    found_in,
    make_finder,
    told,
    write_lines,
)
from adhere.training.recipes.iteralign.reflecting import in_order, next_step, take
from adhere.training.recipes.iteralign.seats import (
    JUDGE,
    POLICY,
    SeatedRun,
    check_seats,
    models_of,
    not_apart,
    prices_of,
)

KIND = "reflect"
SUITE = "failures"
ROWS_FILE, PAIRS_FILE, REJECTED_FILE = "rows.jsonl", "pairs.jsonl", "rejected.jsonl"

KEPT, REJECTED = "kept", "rejected"  # how a row ends


@dataclass(frozen=True)
class ReflectInputs:
    """Plan, failures, rules, templates and the gate's judge (None without a gate)."""

    plan: ReflectPlan
    failures: tuple[Failure, ...]
    rules: tuple[Entry, ...]
    templates: Prompts
    finder: Finder | None
    seats: dict[str, ModelConfig]
    prices: Prices | None
    by_id: dict[str, Failure] = field(default_factory=dict)

    def row_keys(self) -> list[Key]:
        """A row for each failure and repeat."""
        plan = self.plan
        return [
            (SUITE, failure.id, plan.policy.label, plan.way, repeat)
            for failure in self.failures
            for repeat in range(plan.repeats)
        ]

    def rules_for(self, failure: Failure) -> list[Entry]:
        """The rules of a failure's prompt: those that it called for first, then the newest."""
        own = [rule for rule in self.rules if failure.id in rule.covers]
        others = [rule for rule in reversed(self.rules) if rule not in own]
        return [*own, *others][: self.plan.most_rules]

    def texts_for(self, failure: Failure) -> list[str]:
        """Their texts, in the order in which they are gone through."""
        texts = [rule.text for rule in self.rules_for(failure)]
        one_by_one = self.plan.way == "one_by_one"
        return in_order(texts, failure, self.plan.sampling.seed) if one_by_one else texts

    def identity(self) -> dict[str, Any]:
        """What decides the rows; models add theirs when they are connected."""
        plan = self.plan
        return {
            "kind": KIND,
            "failures": failures_digest(self.failures),
            "rules": digest([[r.id, r.text, list(r.covers)] for r in self.rules]),
            "way": plan.way,
            "most_rules": plan.most_rules,
            "tries": plan.tries,
            "gate": self.finder.settings if self.finder else None,
            "most_repeated": plan.most_repeated,
            "templates": self.templates.digest_of("iteralign/"),
            "sampling": plan.sampling.model_dump(mode="json"),
            "repeats": plan.repeats,
            "policy": plan.policy.settings(),
            "models": {},
        }


def read_reflect_inputs(
    plan: ReflectPlan,
    failures: Sequence[Failure] | None = None,
    rules: Sequence[Entry] | None = None,
) -> ReflectInputs:
    """Read failures, rules and templates. Raises BadInput before anything is written.

    `failures`, `rules`: those that the caller has at hand, in the place of the plan's files.
    """
    templates = Prompts(plan.prompts_dir)
    templates.check_all()
    assert plan.failures is not None and plan.rules is not None
    found = tuple(failures) if failures is not None else read_failures(plan.failures)
    given = tuple(rules) if rules is not None else rules_of_spec(plan)
    finder = make_finder(plan, [f.case for f in found], templates) if plan.gate else None
    seats: dict[str, ModelConfig] = {POLICY: plan.policy}
    if finder is not None and finder.config is not None:
        seats[JUDGE] = finder.config
    by_id = {failure.id: failure for failure in found}
    return ReflectInputs(
        plan, found, given, templates, finder, seats, prices_of(plan, seats), by_id
    )


def rules_of_spec(plan: ReflectPlan) -> tuple[Entry, ...]:
    """The rules of a spec file. Raises BadInput for one that has none to reflect on."""
    assert plan.rules is not None
    spec = load_spec(plan.rules)
    rules = tuple(Entry(r.id, r.text, r.kind, 0) for r in spec.rules if r.id != ANSWERS.id)
    if not rules:
        raise BadInput(f"{plan.rules}: found no rule to reflect on; expected at least one")
    return rules


async def reflect(
    plan: ReflectPlan,
    listener: Listener | None = None,
    *,
    failures: Sequence[Failure] | None = None,
    rules: Sequence[Entry] | None = None,
) -> RunResult:
    """Reflect (or go on with it). Raises AdhereError."""
    inputs = read_reflect_inputs(plan, failures, rules)
    check_seats(inputs.seats)
    return await ReflectRun(inputs, listener or Silent()).run()


@dataclass
class Reflecting:
    """What the rows go through (`Steps`)."""

    inputs: ReflectInputs

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked. `draft` is what the gate has yet to decide on."""
        return begun(key, steps=[], draft=None, tries=[], found=None)

    def next_seat(self, row: Row) -> str:
        """Who must be open for a row's next step."""
        if row["draft"] is None:
            return POLICY
        finder = self.inputs.finder
        if finder is None or finder.config is None or self._refused(row):
            return NOBODY
        return JUDGE

    def _refused(self, row: Row) -> str:
        plan, draft = self.inputs.plan, row["draft"]
        if not plan.gate:
            return "" if draft["text"].strip() else "empty"  # there would be nothing to train on
        failure = self.inputs.by_id[row["case"]]
        return refuse(
            failure.answer, draft["text"], cut=draft["cut"], most_repeated=plan.most_repeated
        )

    async def step(self, row: Row, open_: Open) -> Row:
        """The row one step further."""
        failure = self.inputs.by_id[row["case"]]
        if row["draft"] is None:
            return await self._revise(row, failure, open_)
        if reason := self._refused(row):
            return self._again(row, reason)
        finder = self.inputs.finder
        if finder is None:
            return ended(row, KEPT)
        models: Models = {Role.JUDGE: open_.models[JUDGE]} if JUDGE in open_.models else {}
        said = await found_in(finder, failure.case, row["draft"]["text"], models)
        if said.error is not None:
            return failed(row, said.error, JUDGE_ROLE)
        if said.bad is None:
            return self._again(row, "unscored", said.reason)
        if said.bad:
            return self._again(row, "still_bad", said.reason or ", ".join(said.rules))
        return ended({**row, "found": told(said)}, KEPT)

    async def _revise(self, row: Row, failure: Failure, open_: Open) -> Row:
        inputs, plan = self.inputs, self.inputs.plan
        step = next_step(
            plan.way, failure, inputs.texts_for(failure), [s["text"] for s in row["steps"]],
            plan.sampling.sampling(), inputs.templates,
        )  # fmt: skip
        if step is None:
            last = row["steps"][-1]
            return {
                **row,
                "draft": {"text": last["text"], "cut": last["finish_reason"] == "length"},
            }
        draw = row["repeat"] * DRAWS_PER_REPEAT + len(row["tries"])
        made, outcome, reason, error = await kept(take(step, open_.models[POLICY], draw))
        if outcome is Outcome.FAILED:
            assert error is not None
            return failed(row, error, POLICY)
        if made is None:
            why = "cut" if outcome is Outcome.TRUNCATED else "filtered"
            return self._again(row, why, reason)
        row = {**row, "steps": [*row["steps"], made[2]]}
        return row if made[1].strip() else self._again(row, "empty")

    def _again(self, row: Row, reason: str, detail: str = "") -> Row:
        """The row with this try refused: the next one, or its end."""
        text = row["steps"][-1]["text"] if row["steps"] else ""
        tried = {"reason": reason, "detail": detail, "text": text}
        row = {**row, "tries": [*row["tries"], tried], "steps": [], "draft": None}
        if len(row["tries"]) >= self.inputs.plan.tries:
            return ended(row, REJECTED, reason, detail)
        return row


@dataclass
class ReflectRun(SeatedRun[ReflectInputs]):
    """One start of a run."""

    kind = KIND

    def steps(self) -> Reflecting:
        """See `StepwiseRun.steps`."""
        return Reflecting(self.inputs)

    def undecided(self, summary: Mapping[str, Any]) -> int:
        """See `StepwiseRun.undecided`."""
        return int(summary["failed"] + summary["rejected_by_reason"].get("unscored", 0))

    def write(self, made: Made) -> dict[str, Any]:
        """Write rows, pairs and what was rejected; return the summary."""
        inputs, path = self.inputs, made.folder.path
        made.folder.export_rows(made.keys)
        rows = train_rows(inputs, made.rows, made.record)
        write_lines(path / ROWS_FILE, (_completion(row) for row in rows))
        write_lines(path / PAIRS_FILE, (_pair(row) for row in rows))
        gone = [r for r in made.rows if r["outcome"] in (REJECTED, FAILED)]
        write_lines(path / REJECTED_FILE, (_rejected(row) for row in gone))
        return summarize(inputs, made, rows)


def train_rows(
    inputs: ReflectInputs, rows: Sequence[Row], record: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What was kept, in the order of the failures; the same revision of a prompt once."""
    seen: set[tuple[str, str]] = set()
    out: list[dict[str, Any]] = []
    identity = record["identity"]
    for row in rows:
        if row["outcome"] != KEPT:
            continue
        failure = inputs.by_id[row["case"]]
        text = row["draft"]["text"]
        if (failure.id, text) in seen:
            continue
        seen.add((failure.id, text))
        out.append({
            "id": f"{failure.id}#{row['repeat']}" if row["repeat"] else failure.id,
            "messages": [m.to_dict() for m in failure.case.messages],
            "revision": text,
            "bad": failure.answer,
            "lineage": {
                "source": KIND,
                "failure": failure.id,
                "way": inputs.plan.way,
                "rules": [rule.id for rule in inputs.rules_for(failure)],
                "tries": len(row["tries"]) + 1,
                "policy": str(identity["models"].get(inputs.plan.policy.label, "")),
                "judged_by": str(identity.get("judge_model", "")) if inputs.finder else "nobody",
            },
        })  # fmt: skip
    return out


def _completion(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = [{"role": "assistant", "content": row["revision"]}]
    return {
        "id": row["id"], "prompt": row["messages"], "completion": answer, "lineage": row["lineage"]
    }  # fmt: skip


def _pair(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "prompt": row["messages"],
        "chosen": [{"role": "assistant", "content": row["revision"]}],
        "rejected": [{"role": "assistant", "content": row["bad"]}],
        "lineage": row["lineage"],
    }


def _rejected(row: Row) -> dict[str, Any]:
    return {
        "id": f"{row['case']}#{row['repeat']}" if row["repeat"] else row["case"],
        "outcome": row["outcome"],
        "reason": row["reason"],
        "detail": row["detail"],
        "error": row["error"]["kind"] if row["error"] else "",
        "tries": [dict(tried) for tried in row["tries"]],
    }


def summarize(
    inputs: ReflectInputs, made: Made, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The numbers of a run."""
    ends = Counter(row["outcome"] for row in made.rows)
    reasons = Counter(r["reason"] for r in made.rows if r["outcome"] == REJECTED)
    tries = Counter(tried["reason"] for row in made.rows for tried in row["tries"])
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "planned": len(made.keys),
        "rows": len(rows),
        "rejected": ends[REJECTED],
        "failed": ends[FAILED],
        "waiting": len(made.keys) - len(made.rows) + ends[WAITING],
        "rejected_by_reason": {why: reasons[why] for why in REASONS if reasons[why]},
        "refused_tries_by_reason": {why: tries[why] for why in REASONS if tries[why]},
        "refusals": sum(looks_like_refusal(row["revision"]) for row in rows),
        "way": inputs.plan.way,
        "gate": inputs.plan.gate,
        "rules": len(inputs.rules),
        "before": health_of([f.answer for f in inputs.failures]),
        "after": health_of([row["revision"] for row in rows]),
        "not_apart": not_apart(made.record),
        "models": models_of(made.record),
        "settings": {k: v for k, v in made.record["identity"].items() if k != "models"},
        "spent": {label: used.to_dict() for label, used in made.spent.items()},
        **made.facts,
    }
