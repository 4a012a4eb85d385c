"""Proposing as a run: failures in, rules out.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    rules.jsonl       the rules with what they cover and why some are flagged
    constitution.md   the rules that are not flagged, as a spec (see `ledger.py`)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from adhere.chat import Sampling, system, user
from adhere.errors import BadInput
from adhere.experiments.phases import Listener
from adhere.experiments.pricing import Prices
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.rows import FAILED, WAITING, Row, begun, ended
from adhere.experiments.stepwise.run import Made
from adhere.judging.parsing import Unreadable, refuse_quoted
from adhere.judging.questions import conversation
from adhere.judging.replies import Spent, response_format, until_readable
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts
from adhere.records import SCHEMA_VERSION
from adhere.records.run_folder import Key, write_atomic
from adhere.spec import load_spec, looks_like_refusal
from adhere.training.recipes.iteralign.failures import Failure, failures_digest, read_failures
from adhere.training.recipes.iteralign.finding import Finder, published_messages
from adhere.training.recipes.iteralign.ledger import Entry, as_spec_text, entries_of
from adhere.training.recipes.iteralign.oracle import NONE, AskingOracle, OracleRun
from adhere.training.recipes.iteralign.plan import ProposePlan
from adhere.training.recipes.iteralign.proposing import (
    Chunk,
    Proposal,
    as_told,
    chunks,
    flags_of,
    joined_answers,
    last_paragraph,
    parse_rules,
    parse_structured_rules,
    schema,
    speaking_of_rules,
    with_patterns,
)
from adhere.training.recipes.iteralign.redteam import GOOD_FILE, write_lines
from adhere.training.recipes.iteralign.seats import (
    ORACLE,
    check_seats,
    models_of,
    not_apart,
    prices_of,
)

KIND = "propose"
SUITE = "failures"
RULES_FILE = "rules.jsonl"
CONSTITUTION_FILE = "constitution.md"
TOKENS = 700
OF_A_WORD = 2  # rules about what one telling word stands in

# How a row ends: with rules, or without any.
PROPOSED = "proposed"


@dataclass(frozen=True)
class ProposeInputs:
    """Plan, failures in chunks, templates, and the rules that exist already."""

    plan: ProposePlan
    failures: tuple[Failure, ...]
    templates: Prompts
    known: tuple[str, ...]
    good: tuple[Failure, ...]
    seats: dict[str, ModelConfig]
    prices: Prices | None
    finder: Finder | None = None

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The failures of each call; published: all in one."""
        if not self.failures:
            return []
        if self.plan.form == "published":
            return [Chunk(self.failures)]
        good = self.good if self.plan.telling_words else None
        return chunks(self.failures, self.plan.chunk_tokens, good=good)

    def row_keys(self) -> list[Key]:
        """A row a chunk."""
        return [(SUITE, f"chunk-{number:03d}", "", "", 0) for number in range(len(self.chunks))]

    def chunk(self, row: Row) -> Chunk:
        """The failures of a row."""
        return self.chunks[int(str(row["case"]).removeprefix("chunk-"))]

    def beside(self, row: Row) -> list[Failure]:
        """The good answers that a call is shown, drawn by the seed; none that speak of rules."""
        loud = {name for name, _ in speaking_of_rules(self.good)}
        quiet = [one for one in self.good if one.id not in loud]
        chance = random.Random(f"{self.plan.sampling.seed} {row['case']}")  # noqa: S311
        return chance.sample(quiet, min(self.plan.contrast, len(quiet)))

    def identity(self) -> dict[str, Any]:
        """What decides the rules; models add theirs when they are connected."""
        plan = self.plan
        assert plan.oracle is not None
        return {
            "kind": KIND,
            "failures": failures_digest(self.failures),
            "known": list(self.known),
            "form": plan.form,
            "most_rules": plan.most_rules,
            "chunk_tokens": plan.chunk_tokens,
            "contrast": [plan.contrast, plan.sampling.seed] if self.good else None,
            "telling_words": plan.telling_words,
            "good": failures_digest(self.good),
            "about": plan.about,
            "templates": self.templates.digest_of("iteralign/"),
            "oracle": {k: v for k, v in plan.oracle.settings().items() if k != "mode"},
            "models": {},
        }


def read_propose_inputs(
    plan: ProposePlan,
    failures: Sequence[Failure] | None = None,
    known: Sequence[str] | None = None,
    good: Sequence[Failure] | None = None,
) -> ProposeInputs:
    """Read failures, known rules and templates. Raises BadInput before anything is written.

    `failures`, `known`, `good` (answers with nothing wrong, if they are to be shown): those that
    the caller has at hand, in the place of the plan's files.
    """
    templates = Prompts(plan.prompts_dir)
    templates.check_all()
    assert plan.failures is not None and plan.oracle is not None
    found = tuple(failures) if failures is not None else read_failures(plan.failures)
    if known is None:
        known = [r.text for r in load_spec(plan.known).rules] if plan.known else []
    if good is None:
        wanted = plan.contrast or plan.telling_words
        good = _good_beside(plan.failures) if wanted else ()
    seats: dict[str, ModelConfig] = {ORACLE: plan.oracle}
    return ProposeInputs(
        plan, found, templates, tuple(known), tuple(good), seats, prices_of(plan, seats)
    )


def _good_beside(failures: Path) -> tuple[Failure, ...]:
    """The good answers of the run whose failures are read. Raises BadInput without any file."""
    file = failures / GOOD_FILE
    if not file.is_file():
        raise BadInput(
            f"{failures}: found no {GOOD_FILE}; expected the folder of a run",
            hint="--contrast and --telling-words need what `adhere data redteam` writes there.",
        )
    return read_failures(file)


async def propose(
    plan: ProposePlan,
    listener: Listener | None = None,
    *,
    failures: Sequence[Failure] | None = None,
    known: Sequence[str] | None = None,
    good: Sequence[Failure] | None = None,
) -> RunResult:
    """Propose rules (or go on with it). Raises AdhereError."""
    inputs = read_propose_inputs(plan, failures, known, good)
    check_seats(inputs.seats)
    return await ProposeRun(inputs, listener or Silent()).run()


@dataclass
class Proposing(AskingOracle[ProposeInputs]):
    """What the rows go through (`Steps`)."""

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked."""
        return begun(key, rules=[], constitution="", reply="", reasks=0)

    async def ask(self, row: Row, model: Any) -> Row:
        """See `AskingOracle.ask`."""
        chunk = self.inputs.chunk(row)
        if self.inputs.plan.form == "published":
            return await self._published(row, chunk, model)
        return await self._rules(row, chunk, model)

    async def _published(self, row: Row, chunk: Chunk, model: Any) -> Row:
        inputs = self.inputs
        messages = published_messages(
            inputs.templates, joined_answers(chunk.failures), propose=True
        )
        [got] = await model.sample(messages, Sampling(temperature=0))
        text = last_paragraph(got.text)
        row = {**row, "reply": got.text, "constitution": text}
        return ended(row, PROPOSED)  # also an empty one: the script goes on with it

    async def _rules(self, row: Row, chunk: Chunk, model: Any) -> Row:
        inputs, plan = self.inputs, self.inputs.plan
        config = self.oracle
        structured = await self.holds_to_schema(model)
        good = [] if chunk.word else inputs.beside(row)
        shown_as = as_told(chunk)
        most = min(plan.most_rules, OF_A_WORD) if chunk.word else plan.most_rules
        shown = inputs.templates.render(
            "iteralign/propose_telling" if chunk.word else "iteralign/propose",
            about=plan.about,
            known=list(inputs.known),
            failures=[
                {
                    "question": conversation(f.case),
                    "answer": f.answer,
                    "reason": f.reason,
                    "said": one.answer,
                }
                for f, one in zip(chunk.failures, shown_as, strict=True)
            ],
            good=[{"question": conversation(g.case), "answer": g.answer} for g in good],
            word=chunk.word,
            also=list(chunk.also),
            in_good=chunk.in_good,
            of_good=chunk.of_good,
            most=most,
            structured=structured,
        )
        last: list[str] = [""]

        def read(reply: str) -> list[Proposal]:
            last[0] = reply
            if structured:
                for one in (*chunk.failures, *shown_as, *good):
                    refuse_quoted(reply, one.answer, conversation(one.case))
                found = parse_structured_rules(reply, chunk.failures, most)
            else:
                found = parse_rules(reply, chunk.failures, most)
            found = [
                replace(
                    rule,
                    flags=tuple(
                        dict.fromkeys([*rule.flags, *flags_of(rule.text, [*shown_as, *good])])
                    ),
                )
                for rule in found
            ]
            return with_patterns(found, chunk.failures, inputs.failures)

        spent = Spent()
        sampling = Sampling(
            temperature=config.temperature,
            max_tokens=config.most_tokens(TOKENS),
            extra=response_format(schema(len(chunk.failures), most)) if structured else {},
        )
        opening = [system(inputs.templates.render("iteralign/propose_system")), user(shown)]
        try:
            rules = await until_readable(
                opening,
                sampling,
                read,
                model,
                inputs.templates,
                spent,
                reasks=config.reasks,
                again="iteralign/again",
            )
        except Unreadable as problem:
            why = "declined" if looks_like_refusal(last[0]) else "unreadable"
            return ended({**row, "reply": last[0], "reasks": spent.reasks}, NONE, why, str(problem))
        told = [
            {"text": r.text, "kind": r.kind, "covers": list(r.covers), "flags": list(r.flags)}
            for r in rules
        ]
        return ended({**row, "rules": told, "reply": last[0], "reasks": spent.reasks}, PROPOSED)


@dataclass
class ProposeRun(OracleRun[ProposeInputs]):
    """One start of a run."""

    kind = KIND

    def steps(self) -> Proposing:
        """See `StepwiseRun.steps`."""
        return Proposing(self.inputs)

    def write(self, made: Made) -> dict[str, Any]:
        """Write the rules and the constitution; return the summary."""
        inputs, path = self.inputs, made.folder.path
        made.folder.export_rows(made.keys)
        found = proposals_of(inputs, made.rows)
        write_lines(path / RULES_FILE, (proposal_line(p) for p in found))
        entries = entries_of(found)
        write_atomic(path / CONSTITUTION_FILE, constitution(entries, inputs.plan.about))
        return summarize(inputs, made, found)


def constitution(entries: Sequence[Entry], about: str) -> str:
    """The rules in use as a spec file."""
    return as_spec_text(entries, name="Constitution", about=about)


def proposals_of(inputs: ProposeInputs, rows: Sequence[Row]) -> list[Proposal]:
    """All rules of a run in the order of their chunks; published: one text a batch."""
    out: list[Proposal] = []
    for row in rows:
        if row["outcome"] != PROPOSED:
            continue
        chunk = inputs.chunk(row)
        if inputs.plan.form == "published":
            text = row["constitution"]  # as it stands: that is what is spliced in
            covers = tuple(f.id for f in chunk.failures)
            out.append(Proposal(text, "safety", covers, flags_of(text, chunk.failures)))
            continue
        for rule in row["rules"]:
            flags = tuple(rule["flags"])
            out.append(Proposal(rule["text"], rule["kind"], tuple(rule["covers"]), flags))
    return out


def proposal_line(proposal: Proposal) -> dict[str, Any]:
    """A line of rules.jsonl."""
    return {
        "rule": proposal.text,
        "kind": proposal.kind,
        "covers": list(proposal.covers),
        "flags": list(proposal.flags),
    }


def summarize(inputs: ProposeInputs, made: Made, found: Sequence[Proposal]) -> dict[str, Any]:
    """The numbers of a run."""
    ends = Counter(row["outcome"] for row in made.rows)
    covered = {name for proposal in found for name in proposal.covers}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "planned": len(made.keys),
        "failures": len(inputs.failures),
        "covered": len(covered),
        "rules": len(found),
        "flagged": sum(bool(p.flags) for p in found),
        "sources_speaking_of_rules": [
            {"id": name, "where": where} for name, where in speaking_of_rules(inputs.failures)
        ],
        "none": ends[NONE],
        "none_by_reason": dict(Counter(r["reason"] for r in made.rows if r["outcome"] == NONE)),
        "failed": ends[FAILED],
        "waiting": len(made.keys) - len(made.rows) + ends[WAITING],
        "reasks": sum(row["reasks"] for row in made.rows),
        "form": inputs.plan.form,
        "not_apart": not_apart(made.record),
        "models": models_of(made.record),
        "settings": {k: v for k, v in made.record["identity"].items() if k != "models"},
        "spent": {label: used.to_dict() for label, used in made.spent.items()},
        **made.facts,
    }
