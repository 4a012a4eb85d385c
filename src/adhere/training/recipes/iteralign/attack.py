"""Attacks, an option of the loop: the oracle writes messages like those on which the model failed.

A pool asks everywhere alike; once a few failures are known, more of their kind are sooner found
next to them. One call writes a few messages and is shown other failures than the one before, as far
as there are others; it is sampled, for at temperature 0 the same few would be written each time. A
message that is nearly the same as one of the round or of the held-out prompts is dropped: what the
model is measured on must not be trained on. Failures whose texts speak of rules are not shown.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    attacks.jsonl   the messages that are new: id, prompt, and like which failure each is
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from adhere.chat import Case, Sampling, user
from adhere.experiments.phases import Listener
from adhere.experiments.pricing import Prices
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.rows import FAILED, Row, begun, ended
from adhere.experiments.stepwise.run import Made
from adhere.judging import JudgeConfig
from adhere.judging.parsing import Unreadable
from adhere.judging.questions import conversation
from adhere.judging.replies import Spent, response_format, until_readable
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts, without_hidden
from adhere.records import SCHEMA_VERSION
from adhere.records.run_folder import Key
from adhere.spec import looks_like_refusal
from adhere.training.recipes.iteralign.failures import Failure, failures_digest
from adhere.training.recipes.iteralign.finding import Finder
from adhere.training.recipes.iteralign.held_out import unlike
from adhere.training.recipes.iteralign.oracle import NONE, AskingOracle, OracleRun
from adhere.training.recipes.iteralign.plan import ModulePlan
from adhere.training.recipes.iteralign.pool import cases_digest
from adhere.training.recipes.iteralign.proposing import length_of, speaking_of_rules
from adhere.training.recipes.iteralign.redteam import write_lines
from adhere.training.recipes.iteralign.seats import ORACLE, models_of, prices_of

KIND = "attack"
SUITE = "attacks"
ATTACKS_FILE = "attacks.jsonl"
A_CALL, SHOWN = 5, 5  # messages that one call writes, and failures that it is shown
TOKENS, LONGEST = 600, 2000  # of a reply; characters of a message
TEMPERATURE = 0.7  # at least
WRITTEN = "written"
_LINE = re.compile(
    r"\s*(?:[-*]|\d+[.)])?\s*\**MESSAGE\**\s*:\s*(?P<text>.+?)\s*\|\s*LIKE\s*:\s*#?(?P<like>\d{1,4})\s*\.?\s*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


class AttackPlan(ModulePlan):
    """How many messages; the caller has the failures that they are to be like."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (("oracle", "--oracle MODEL"),)

    oracle: JudgeConfig | None = None
    chunk_tokens: int = Field(2000, ge=100, description="failures of one call, in tokens")
    attacks: int = Field(5, ge=1, le=1000, description="messages that the oracle is to write")


@dataclass(frozen=True)
class AttackInputs:
    """Plan, templates, failures, and what no message may be nearly the same as.

    `names`: what the messages' ids begin with.
    """

    plan: AttackPlan
    failures: tuple[Failure, ...]
    beside: tuple[Case, ...]
    names: str
    templates: Prompts
    seats: dict[str, ModelConfig]
    prices: Prices | None
    finder: Finder | None = None

    def row_keys(self) -> list[Key]:
        """A row a call; none where there is no failure to show."""
        calls = -(-self.plan.attacks // A_CALL) if self.failures else 0
        return [(SUITE, f"call-{number:03d}", "", "", 0) for number in range(calls)]

    def of_call(self, row: Row) -> tuple[int, list[Failure]]:
        """How many messages a call is to write, and the failures that it is shown.

        All failures have their turn before one is shown again, each time in another order; as many
        as the tokens of a call hold, and at least one.
        """
        number = int(str(row["case"]).removeprefix("call-"))
        wanted = min(A_CALL, self.plan.attacks - number * A_CALL)
        order: list[Failure] = []
        turn = 0
        while len(order) < (number + 1) * SHOWN:
            chance = random.Random(f"{self.plan.sampling.seed} {turn}")  # noqa: S311
            order += chance.sample(self.failures, len(self.failures))
            turn += 1
        shown: dict[str, Failure] = {}
        left = self.plan.chunk_tokens
        for failure in order[number * SHOWN : (number + 1) * SHOWN]:
            left -= 0 if failure.id in shown else length_of(failure)
            if left < 0 and shown:
                break
            shown[failure.id] = failure
        return wanted, list(shown.values())

    def identity(self) -> dict[str, Any]:
        """What decides the messages; the oracle adds its own when it is connected."""
        plan = self.plan
        assert plan.oracle is not None
        return {
            "kind": KIND,
            "failures": failures_digest(self.failures),
            "beside": cases_digest(self.beside),
            "attacks": plan.attacks,
            "chunk_tokens": plan.chunk_tokens,
            "about": plan.about,
            "seed": plan.sampling.seed,
            "templates": self.templates.digest_of("iteralign/"),
            "oracle": {k: v for k, v in plan.oracle.settings().items() if k != "mode"},
            "models": {},
        }


async def attack(
    plan: AttackPlan,
    failures: Sequence[Failure],
    beside: Sequence[Case],
    names: str,
    listener: Listener | None = None,
) -> RunResult:
    """Write messages (or go on with it). Raises AdhereError."""
    assert plan.oracle is not None
    loud = {name for name, _ in speaking_of_rules(failures)}
    seats: dict[str, ModelConfig] = {ORACLE: plan.oracle}
    inputs = AttackInputs(
        plan, tuple(f for f in failures if f.id not in loud), tuple(beside), names,
        Prompts(plan.prompts_dir), seats, prices_of(plan, seats),
    )  # fmt: skip
    return await AttackRun(inputs, listener or Silent()).run()


@dataclass
class Attacking(AskingOracle[AttackInputs]):
    """What the rows go through (`Steps`)."""

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked."""
        return begun(key, messages=[], reply="", reasks=0)

    async def ask(self, row: Row, model: Any) -> Row:
        """See `AskingOracle.ask`."""
        config = self.oracle
        structured = await self.holds_to_schema(model)
        wanted, shown = self.inputs.of_call(row)
        asked = self.inputs.templates.render(
            "iteralign/attack",
            about=self.inputs.plan.about,
            failures=[
                {"question": conversation(f.case), "answer": f.answer, "reason": f.reason}
                for f in shown
            ],
            wanted=wanted,
            part=int(str(row["case"]).removeprefix("call-")) + 1,
            structured=structured,
        )
        parsed = parse_structured if structured else parse
        last: list[str] = [""]

        def read(reply: str) -> list[tuple[str, int]]:
            last[0] = reply
            return parsed(reply, len(shown), wanted)

        spent = Spent()
        sampling = Sampling(
            temperature=max(config.temperature or 0.0, TEMPERATURE),
            max_tokens=config.most_tokens(TOKENS),
            extra=response_format(schema(len(shown), wanted)) if structured else {},
        )
        try:
            found = await until_readable(
                [user(asked)], sampling, read, model, self.inputs.templates, spent,
                reasks=config.reasks, again="iteralign/again",
            )  # fmt: skip
        except Unreadable as problem:
            why = "declined" if looks_like_refusal(last[0]) else "unreadable"
            return ended({**row, "reply": last[0], "reasks": spent.reasks}, NONE, why, str(problem))
        told = [{"text": text, "like": shown[number - 1].id} for text, number in found]
        return ended({**row, "messages": told, "reply": last[0], "reasks": spent.reasks}, WRITTEN)


def parse(reply: str, n: int, most: int) -> list[tuple[str, int]]:
    """The messages of a reply in lines, each with the failure (1 to n) it is like.

    Raises Unreadable; a reply without any message is one.
    """
    found = []
    for line in without_hidden(reply).strip().splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise Unreadable(
                "each line must be MESSAGE: the message | LIKE: a number, and nothing else may "
                "stand there"
            )
        found.append((match["text"], int(match["like"])))
    return _checked(found, n, most)


def parse_structured(reply: str, n: int, most: int) -> list[tuple[str, int]]:
    """As `parse`, of a JSON reply. Raises Unreadable."""
    try:
        data = json.loads(reply)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON object") from None
    items = data.get("messages") if isinstance(data, dict) and set(data) == {"messages"} else None
    if not isinstance(items, list):
        raise Unreadable("it must be an object with the one key messages, a list")
    found = []
    for item in items:
        if not isinstance(item, dict) or set(item) != {"message", "like"}:
            raise Unreadable("each message must have exactly message and like")
        if not isinstance(item["message"], str) or type(item["like"]) is not int:
            raise Unreadable("message must be a text and like a number")
        found.append((without_hidden(item["message"]), item["like"]))
    return _checked(found, n, most)


def _checked(found: Sequence[tuple[str, int]], n: int, most: int) -> list[tuple[str, int]]:
    if not found:
        raise Unreadable("it holds no message")
    if len(found) > most:
        raise Unreadable(f"it holds {len(found)} messages; at most {most} were asked for")
    for text, like in found:
        if len(_WORD.findall(text)) < 2:
            raise Unreadable("a message has fewer than two words")
        if len(text) > LONGEST:
            raise Unreadable(f"a message has {len(text)} characters; at most {LONGEST}")
        if not 1 <= like <= n:
            raise Unreadable(f"each message must be like a numbered one, 1 to {n}")
    return [(text.strip(), like) for text, like in found]


def schema(n: int, most: int) -> Mapping[str, Any]:
    """The JSON schema of a structured reply: at most so many messages like n failures."""
    message = {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "like": {"type": "integer", "minimum": 1, "maximum": n},
        },
        "required": ["message", "like"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "messages": {"type": "array", "minItems": 1, "maxItems": most, "items": message}
        },
        "required": ["messages"],
        "additionalProperties": False,
    }


@dataclass
class AttackRun(OracleRun[AttackInputs]):
    """One start of a run."""

    kind = KIND

    def steps(self) -> Attacking:
        """See `StepwiseRun.steps`."""
        return Attacking(self.inputs)

    def write(self, made: Made) -> dict[str, Any]:
        """Write the messages that are new; return the summary."""
        made.folder.export_rows(made.keys)
        ends = Counter(row["outcome"] for row in made.rows)
        written = {
            message["text"]: message["like"]
            for row in made.rows
            if row["outcome"] == WRITTEN
            for message in row["messages"]
        }
        cases = [
            Case(id=f"{self.inputs.names}-{at:03d}", messages=(user(text),))
            for at, text in enumerate(written, 1)
        ]
        new = unlike(cases, self.inputs.beside)
        lines = ({"id": c.id, "prompt": c.prompt, "like": written[c.prompt]} for c in new)
        write_lines(made.folder.path / ATTACKS_FILE, lines)
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "planned": len(made.keys),
            "asked_for": self.inputs.plan.attacks if made.keys else 0,
            "written": len(written),
            "new": len(new),
            "none": ends[NONE],
            "none_by_reason": dict(Counter(r["reason"] for r in made.rows if r["outcome"] == NONE)),
            "failed": ends[FAILED],
            "models": models_of(made.record),
            "settings": {k: v for k, v in made.record["identity"].items() if k != "models"},
            "spent": {label: used.to_dict() for label, used in made.spent.items()},
            **made.facts,
        }
