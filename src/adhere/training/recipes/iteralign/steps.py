"""The phases of one round, each a run in a folder of its own.

    rounds/0003/redteam    the round's prompts answered and judged
    rounds/0003/propose    rules out of the failures
    rounds/0003/compare    (optional) the new rules beside those that are there
    rounds/0003/reflect    the policy answers again under the rules
    rounds/0003/train      the training
    rounds/0003/probe      the round's model on the held-out prompts

A phase that was killed goes on where it was, and a finished one asks nobody: what a round has come
to is what lies in its folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.chat import Usage
from adhere.errors import Stopped
from adhere.experiments.phases import Listener
from adhere.experiments.plan import StopPlan
from adhere.experiments.starts import RunResult
from adhere.models.connect import ModelConfig
from adhere.records.run_folder import SUMMARY_FILE
from adhere.training.recipes.iteralign.compare import ComparePlan, compare
from adhere.training.recipes.iteralign.failures import Failure, read_failures
from adhere.training.recipes.iteralign.ledger import Entry
from adhere.training.recipes.iteralign.plan import ProposePlan, RedteamPlan, ReflectPlan
from adhere.training.recipes.iteralign.pool import Pool
from adhere.training.recipes.iteralign.propose import RULES_FILE, propose
from adhere.training.recipes.iteralign.proposing import Proposal
from adhere.training.recipes.iteralign.redteam import redteam
from adhere.training.recipes.iteralign.reflect import reflect
from adhere.training.recipes.iteralign.rounds_plan import IteratePlan

REDTEAM, PROPOSE, COMPARE, REFLECT = "redteam", "propose", "compare", "reflect"
TRAIN, PROBE = "train", "probe"
PHASES = (REDTEAM, PROPOSE, COMPARE, REFLECT, PROBE)  # those that ask models


def round_folder(out: Path, number: int) -> Path:
    """Where a round lies; round 0 is the model as it came."""
    return out / "rounds" / f"{number:04d}"


@dataclass
class Phases:
    """Runs the phases of rounds. `listener` watches the one that is running."""

    plan: IteratePlan
    listener: Listener

    async def redteam(self, number: int, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        """The round's prompts, answered and judged; the summary. Raises AdhereError."""
        return await self._find(round_folder(self.plan.out, number) / REDTEAM, policy, pool)

    async def probe(self, number: int, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        """The round's model on the held-out prompts; the summary. Raises AdhereError."""
        return await self._find(round_folder(self.plan.out, number) / PROBE, policy, pool)

    async def _find(self, out: Path, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        plan = RedteamPlan(**self._common(out), **self._finding(), model=policy)
        return _whole(await redteam(plan, self.listener, pool=pool))

    def failures(self, number: int) -> tuple[Failure, ...]:
        """The round's bad answers, under ids that name the round."""
        found = read_failures(round_folder(self.plan.out, number) / REDTEAM)
        return tuple(
            Failure(f"r{number}:{f.id}", f.case, f.answer, f.reason, f.rules) for f in found
        )

    async def propose(
        self, number: int, failures: Sequence[Failure], known: Sequence[Entry]
    ) -> tuple[list[Proposal], Mapping[str, Any]]:
        """Rules out of failures, and the summary. Raises AdhereError."""
        plan, out = self.plan, round_folder(self.plan.out, number) / PROPOSE
        made = ProposePlan(
            **self._common(out),
            oracle=plan.oracle,
            failures=out,
            form=plan.form,
            most_rules=plan.most_rules,
            chunk_tokens=plan.chunk_tokens,
        )
        texts = tuple(entry.text for entry in known) if plan.form == "rules" else ()
        summary = _whole(await propose(made, self.listener, failures=failures, known=texts))
        return read_proposals(out), summary

    async def compare(
        self, number: int, new: Sequence[Entry], known: Sequence[Entry]
    ) -> Mapping[str, Any]:
        """What the oracle says of new rules beside those that are there. Raises AdhereError."""
        out = round_folder(self.plan.out, number) / COMPARE
        made = ComparePlan(**self._common(out), oracle=self.plan.oracle)
        return _whole(await compare(made, new, known, self.listener))

    async def reflect(
        self,
        number: int,
        policy: ModelConfig,
        failures: Sequence[Failure],
        rules: Sequence[Entry],
    ) -> Mapping[str, Any]:
        """The policy answers again under rules; the summary. Raises AdhereError."""
        plan, out = self.plan, round_folder(self.plan.out, number) / REFLECT
        fields = self._finding() if plan.gate else {}
        made = ReflectPlan(
            **self._common(out),
            **fields,
            model=policy,
            failures=out,
            rules=out,
            way=plan.way,
            most_rules=plan.rules_shown,
            tries=plan.tries,
            gate=plan.gate,
            most_repeated=plan.most_repeated,
        )
        return _whole(await reflect(made, self.listener, failures=failures, rules=rules))

    # ------------------------------------------------------------ what phases share

    def _common(self, out: Path) -> dict[str, Any]:
        plan = self.plan
        return {
            "out": out,
            "about": plan.about,
            "sampling": plan.sampling,
            "limits": plan.limits,
            "prompts_dir": plan.prompts_dir,
            "prices": plan.prices,
            "stop": self._left(out),
            "max_unscored": 1.0,  # what is too much for a round is said of the round
        }

    def _finding(self) -> dict[str, Any]:
        plan = self.plan
        return {"found_by": plan.found_by, "judge": plan.judge, "spec": plan.spec}

    def _left(self, out: Path) -> StopPlan:
        """What is left of the run's limits for one more phase. Raises Stopped for nothing."""
        stop = self.plan.stop
        if stop.tokens is None and stop.cost is None:
            return stop
        tokens, cost = spent_in(self.plan.out, but=out)
        left = stop.tokens - tokens if stop.tokens is not None else None
        money = stop.cost - cost if stop.cost is not None else None
        if (left is not None and left < 1) or (money is not None and money <= 0):
            raise Stopped(
                "the run's limit is used up",
                hint="Run the same command again with a higher limit; it goes on from here.",
            )
        return stop.model_copy(update={"tokens": left, "cost": money})


def _whole(result: RunResult) -> Mapping[str, Any]:
    """The summary of a phase that came to its end. Raises Stopped for one that did not."""
    if result.stopped:
        raise Stopped(result.stopped)
    return result.summary


def read_proposals(folder: Path) -> list[Proposal]:
    """The rules that a proposing run wrote."""
    text = (folder / RULES_FILE).read_text(encoding="utf-8")
    return [
        Proposal(line["rule"], line["kind"], tuple(line["covers"]), tuple(line["flags"]))
        for line in map(json.loads, text.splitlines())
    ]


def summaries(out: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """The summaries of all phases so far: round, phase, summary."""
    found = []
    for file in sorted(out.glob(f"rounds/*/*/{SUMMARY_FILE}")):
        if file.parent.name in PHASES:
            summary = json.loads(file.read_text(encoding="utf-8"))
            found.append((int(file.parent.parent.name), file.parent.name, summary))
    return found


def spent_in(out: Path, *, but: Path | None = None) -> tuple[int, float]:
    """Tokens and money that all phases spent, one left out."""
    tokens, cost = 0, 0.0
    for number, phase, summary in summaries(out):
        if but is not None and round_folder(out, number) / phase == but:
            continue
        for used in map(Usage.from_dict, summary["spent"].values()):
            tokens += used.prompt_tokens + used.completion_tokens
        cost += summary["spent_cost"] or 0.0
    return tokens, cost
