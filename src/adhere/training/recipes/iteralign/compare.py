"""Comparing, an option of the loop: the oracle says which new rules are old ones, or contradict.

Words shared find a rule that is written again; whether one says the same in other words, or the
opposite, only a reader can tell. One call a new rule; what cannot be read changes nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from adhere.chat import Sampling, user
from adhere.experiments.phases import Listener
from adhere.experiments.pricing import Prices
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.rows import FAILED, Row, begun, ended
from adhere.experiments.stepwise.run import Made
from adhere.judging import JudgeConfig
from adhere.judging.parsing import Unreadable
from adhere.judging.replies import Spent, response_format, until_readable
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts
from adhere.records import SCHEMA_VERSION
from adhere.records.run_folder import Key
from adhere.training.recipes.iteralign.finding import Finder
from adhere.training.recipes.iteralign.ledger import ACTIVE, Entry
from adhere.training.recipes.iteralign.oracle import NONE, AskingOracle, OracleRun
from adhere.training.recipes.iteralign.plan import ModulePlan
from adhere.training.recipes.iteralign.seats import (
    ORACLE,
    models_of,
    prices_of,
)

KIND = "compare"
TOKENS = 120
COMPARED = "compared"
_SAME = re.compile(r"SAME:\s*(\d+)", re.IGNORECASE)
_AGAINST = re.compile(r"CONTRADICTS:[ \t]*(\d[\d, \t]*)", re.IGNORECASE)


class ComparePlan(ModulePlan):
    """New rules and those that are there; the caller has both."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (("oracle", "--oracle MODEL"),)

    oracle: JudgeConfig | None = None


@dataclass(frozen=True)
class CompareInputs:
    """Plan, templates and rules."""

    plan: ComparePlan
    new: tuple[Entry, ...]
    known: tuple[Entry, ...]
    templates: Prompts
    seats: dict[str, ModelConfig]
    prices: Prices | None
    finder: Finder | None = None
    by_id: dict[str, Entry] = field(default_factory=dict)

    def row_keys(self) -> list[Key]:
        """A row a new rule, where there is any to compare it with."""
        return [("rules", e.id, "", "", 0) for e in self.new if self.beside(e)]

    def beside(self, entry: Entry) -> list[Entry]:
        """The rules that a new one is compared with: those in use before it."""
        earlier = [e for e in self.new[: self.new.index(entry)] if e.status == ACTIVE]
        return [*self.known, *earlier]

    def identity(self) -> dict[str, Any]:
        """What decides the rows."""
        assert self.plan.oracle is not None
        return {
            "kind": KIND,
            "rules": [[e.id, e.text] for e in (*self.known, *self.new)],
            "templates": self.templates.digest_of("iteralign/"),
            "oracle": {k: v for k, v in self.plan.oracle.settings().items() if k != "mode"},
            "models": {},
        }


async def compare(
    plan: ComparePlan,
    new: Sequence[Entry],
    known: Sequence[Entry],
    listener: Listener | None = None,
) -> RunResult:
    """Compare (or go on with it). Raises AdhereError."""
    templates = Prompts(plan.prompts_dir)
    assert plan.oracle is not None
    seats: dict[str, ModelConfig] = {ORACLE: plan.oracle}
    inputs = CompareInputs(
        plan, tuple(new), tuple(known), templates, seats, prices_of(plan, seats),
        by_id={e.id: e for e in new},
    )  # fmt: skip
    return await CompareRun(inputs, listener or Silent()).run()


@dataclass
class Comparing(AskingOracle[CompareInputs]):
    """What the rows go through (`Steps`)."""

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked."""
        return begun(key, same_as="", contradicts=[])

    async def ask(self, row: Row, model: Any) -> Row:
        """See `AskingOracle.ask`."""
        config = self.oracle
        entry = self.inputs.by_id[row["case"]]
        known = self.inputs.beside(entry)
        structured = await self.holds_to_schema(model)
        shown = self.inputs.templates.render(
            "iteralign/weigh", rule=entry.text, known=[e.text for e in known],
            structured=structured,
        )  # fmt: skip
        read = parse_structured if structured else parse
        sampling = Sampling(
            temperature=config.temperature,
            max_tokens=config.most_tokens(TOKENS),
            extra=response_format(schema(len(known))) if structured else {},
        )
        try:
            same, against = await until_readable(
                [user(shown)], sampling, lambda text: read(text, len(known)), model,
                self.inputs.templates, Spent(), reasks=config.reasks,
                again="iteralign/again",
            )  # fmt: skip
        except Unreadable as problem:
            return ended(row, NONE, "unreadable", str(problem))
        named = [known[number - 1].id for number in against]
        return ended(
            {**row, "same_as": known[same - 1].id if same else "", "contradicts": named}, COMPARED
        )


def parse(text: str, n: int) -> tuple[int, list[int]]:
    """The rule that is the same (0: none) and those that contradict, of n. Raises Unreadable."""
    same, against = _SAME.findall(text), _AGAINST.findall(text)
    if len(same) != 1 or len(against) != 1:
        raise Unreadable("it must hold SAME: and CONTRADICTS: once each, with numbers")
    return _checked(int(same[0]), [int(x) for x in re.findall(r"\d+", against[0])], n)


def parse_structured(text: str, n: int) -> tuple[int, list[int]]:
    """As `parse`, of a JSON reply. Raises Unreadable."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON object") from None
    if not isinstance(data, dict) or set(data) != {"same", "contradicts"}:
        raise Unreadable("the keys must be exactly same and contradicts")
    against = data["contradicts"]
    if type(data["same"]) is not int or not isinstance(against, list):
        raise Unreadable("same must be a number and contradicts a list of numbers")
    if any(type(number) is not int for number in against):
        raise Unreadable("contradicts must be a list of numbers")
    return _checked(data["same"], against, n)


def _checked(same: int, against: Sequence[int], n: int) -> tuple[int, list[int]]:
    named = [number for number in dict.fromkeys(against) if number]
    if not 0 <= same <= n or any(not 0 <= number <= n for number in named):
        raise Unreadable(f"the numbers must be of the list, 1 to {n}, or 0")
    if same and same in named:
        raise Unreadable("one rule cannot be the same and contradict")
    return same, named


def schema(n: int) -> Mapping[str, Any]:
    """The JSON schema of a structured reply about n rules."""
    number = {"type": "integer", "minimum": 0, "maximum": n}
    return {
        "type": "object",
        "properties": {"same": number, "contradicts": {"type": "array", "items": number}},
        "required": ["same", "contradicts"],
        "additionalProperties": False,
    }


@dataclass
class CompareRun(OracleRun[CompareInputs]):
    """One start of a run."""

    kind = KIND

    def steps(self) -> Comparing:
        """See `StepwiseRun.steps`."""
        return Comparing(self.inputs)

    def write(self, made: Made) -> dict[str, Any]:
        """Write the rows; return the summary, which has what was found."""
        made.folder.export_rows(made.keys)
        ends = Counter(row["outcome"] for row in made.rows)
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "planned": len(made.keys),
            "compared": ends[COMPARED],
            "none": ends[NONE],
            "failed": ends[FAILED],
            "found": [
                {"id": r["case"], "same_as": r["same_as"], "contradicts": r["contradicts"]}
                for r in made.rows
                if r["outcome"] == COMPARED
            ],
            "models": models_of(made.record),
            "settings": {k: v for k, v in made.record["identity"].items() if k != "models"},
            "spent": {label: used.to_dict() for label, used in made.spent.items()},
            **made.facts,
        }
