"""The phases of one round, each a run in a folder of its own.

    rounds/0003/redteam    the round's prompts answered and judged
    rounds/0003/attack     (optional) the oracle writes prompts like those that failed
    rounds/0003/attacked   (optional) those answered and judged
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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adhere.chat import Case, Usage, user
from adhere.errors import Stopped
from adhere.experiments.phases import Listener
from adhere.experiments.plan import StopPlan
from adhere.experiments.starts import RunResult
from adhere.models.connect import ModelConfig
from adhere.prompting import Prompts
from adhere.records.run_folder import SUMMARY_FILE, write_atomic
from adhere.training.recipes.iteralign.attack import ATTACKS_FILE, AttackPlan, attack
from adhere.training.recipes.iteralign.compare import ComparePlan, compare
from adhere.training.recipes.iteralign.failures import Failure, read_failures
from adhere.training.recipes.iteralign.ledger import Entry
from adhere.training.recipes.iteralign.plan import ProposePlan, RedteamPlan, ReflectPlan
from adhere.training.recipes.iteralign.pool import Pool, wrapped
from adhere.training.recipes.iteralign.propose import RULES_FILE, propose
from adhere.training.recipes.iteralign.proposing import Proposal
from adhere.training.recipes.iteralign.redteam import GOOD_FILE, redteam
from adhere.training.recipes.iteralign.reflect import reflect
from adhere.training.recipes.iteralign.rounds_plan import IteratePlan

REDTEAM, PROPOSE, COMPARE, REFLECT = "redteam", "propose", "compare", "reflect"
TRAIN, PROBE = "train", "probe"
ATTACK, ATTACKED = "attack", "attacked"
PHASES = (REDTEAM, ATTACK, ATTACKED, PROPOSE, COMPARE, REFLECT, PROBE)  # those that ask models


def round_folder(out: Path, number: int) -> Path:
    """Where a round lies; round 0 is the model as it came."""
    return out / "rounds" / f"{number:04d}"


@dataclass
class Phases:
    """Runs the phases of rounds. `listener` watches the one that is running.

    `began`: when this start of the run did (monotonic), for its limit of time.
    """

    plan: IteratePlan
    listener: Listener
    began: float = 0.0

    async def redteam(self, number: int, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        """The round's prompts, answered and judged; the summary. Raises AdhereError."""
        return await self._find(round_folder(self.plan.out, number) / REDTEAM, policy, pool)

    async def probe(self, number: int, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        """The round's model on the held-out prompts; the summary. Raises AdhereError."""
        return await self._find(round_folder(self.plan.out, number) / PROBE, policy, pool)

    async def _find(self, out: Path, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        if (done := _done(out)) is not None:
            return done
        plan = RedteamPlan(**self._common(out), **self._finding(), model=policy)
        summary = self._whole(await redteam(plan, self.listener, pool=pool))
        return _finished(out, summary, nothing=not summary["bad_rate"]["of"])

    async def attack(
        self, number: int, failures: Sequence[Failure], beside: Sequence[Case]
    ) -> tuple[Pool, Mapping[str, Any]]:
        """New prompts like those that failed, and the summary. Raises AdhereError.

        `beside`: prompts that none of them may be nearly the same as.
        """
        plan, out = self.plan, round_folder(self.plan.out, number) / ATTACK
        summary = _done(out)
        if summary is None:
            made = AttackPlan(
                **self._common(out),
                oracle=plan.oracle,
                attacks=plan.attacks,
                chunk_tokens=plan.chunk_tokens,
            )
            names = f"attack-{number:04d}"
            summary = self._whole(await attack(made, failures, beside, names, self.listener))
            summary = _finished(out, summary, nothing=not summary["written"])
        templates = Prompts(plan.prompts_dir)
        shown = tuple(
            wrapped(Case(id=line["id"], messages=(user(line["prompt"]),)), plan.wrap, templates)
            for line in _attacks(out)
        )
        return Pool(shown, harmful=True, by_id={case.id: case for case in shown}), summary

    async def attacked(self, number: int, policy: ModelConfig, pool: Pool) -> Mapping[str, Any]:
        """The oracle's prompts, answered and judged; the summary. Raises AdhereError."""
        return await self._find(round_folder(self.plan.out, number) / ATTACKED, policy, pool)

    def failures(self, number: int) -> tuple[Failure, ...]:
        """The bad answers to a round's prompts, under ids that name the round."""
        return self._failures(number, REDTEAM)

    def failures_attacked(self, number: int) -> tuple[Failure, ...]:
        """Those to the oracle's prompts; each says like which failure its prompt was written."""
        like = {
            line["id"]: line["like"]
            for line in _attacks(round_folder(self.plan.out, number) / ATTACK)
        }
        return tuple(
            replace(failure, like=like[failure.case.id])
            for failure in self._failures(number, ATTACKED)
        )

    def _good(self, number: int) -> tuple[Failure, ...]:
        """The good answers to the round's prompts."""
        return read_failures(round_folder(self.plan.out, number) / REDTEAM / GOOD_FILE)

    def _failures(self, number: int, phase: str) -> tuple[Failure, ...]:
        found = read_failures(round_folder(self.plan.out, number) / phase)
        return tuple(
            Failure(f"r{number}:{f.id}", f.case, f.answer, f.reason, f.rules) for f in found
        )

    async def propose(
        self, number: int, failures: Sequence[Failure], known: Sequence[Entry]
    ) -> tuple[list[Proposal], Mapping[str, Any]]:
        """Rules out of failures, and the summary. Raises AdhereError."""
        plan, out = self.plan, round_folder(self.plan.out, number) / PROPOSE
        if (done := _done(out)) is not None:
            return read_proposals(out), done
        made = ProposePlan(
            **self._common(out),
            oracle=plan.oracle,
            failures=out,
            form=plan.form,
            most_rules=plan.most_rules,
            chunk_tokens=plan.chunk_tokens,
            contrast=plan.contrast,
            telling_words=plan.telling_words,
        )
        good = self._good(number) if plan.contrast or plan.telling_words else ()
        texts = tuple(entry.text for entry in known) if plan.form == "rules" else ()
        summary = self._whole(
            await propose(made, self.listener, failures=failures, known=texts, good=good)
        )
        return read_proposals(out), _finished(out, summary, nothing=not summary["rules"])

    async def compare(
        self, number: int, new: Sequence[Entry], known: Sequence[Entry]
    ) -> Mapping[str, Any]:
        """What the oracle says of new rules beside those that are there. Raises AdhereError."""
        out = round_folder(self.plan.out, number) / COMPARE
        if (done := _done(out)) is not None:
            return done
        made = ComparePlan(**self._common(out), oracle=self.plan.oracle)
        summary = self._whole(await compare(made, new, known, self.listener))
        return _finished(out, summary, nothing=not summary["compared"])

    async def reflect(
        self,
        number: int,
        policy: ModelConfig,
        failures: Sequence[Failure],
        rules: Sequence[Entry],
    ) -> Mapping[str, Any]:
        """The policy answers again under rules; the summary. Raises AdhereError."""
        plan, out = self.plan, round_folder(self.plan.out, number) / REFLECT
        if (done := _done(out)) is not None:
            return done
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
        summary = self._whole(await reflect(made, self.listener, failures=failures, rules=rules))
        return _finished(out, summary, nothing=not summary["rows"])

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
        self.check_time()
        seconds = None if stop.seconds is None else stop.seconds - (time.monotonic() - self.began)
        if stop.tokens is None and stop.cost is None:
            return stop.model_copy(update={"seconds": seconds})
        tokens, cost = spent_in(self.plan.out, but=out)
        left = stop.tokens - tokens if stop.tokens is not None else None
        money = stop.cost - cost if stop.cost is not None else None
        if (left is not None and left < 1) or (money is not None and money <= 0):
            raise Stopped(self._limits(), hint=_MORE)
        return stop.model_copy(update={"tokens": left, "cost": money, "seconds": seconds})

    def check_time(self) -> None:
        """Raises Stopped when the run's time is over."""
        seconds = self.plan.stop.seconds
        if seconds is not None and time.monotonic() - self.began >= seconds:
            raise Stopped(f"the deadline of {seconds:g} s is over", hint=_MORE)

    def _limits(self) -> str:
        stop = self.plan.stop
        told = [f"{stop.tokens:,} tokens"] if stop.tokens is not None else []
        told += [f"a cost of {stop.cost:g}"] if stop.cost is not None else []
        return f"the run's limit ({' or '.join(told)}) is reached"

    def _whole(self, result: RunResult) -> Mapping[str, Any]:
        """The summary of a phase that came to its end. Raises Stopped for one that did not."""
        if not result.stopped:
            return result.summary
        self.check_time()
        stop = self.plan.stop
        limited = stop.tokens is not None or stop.cost is not None
        if limited and "limit" in result.stopped:  # of the phase, which had what was left
            raise Stopped(self._limits(), hint=_MORE)
        raise Stopped(result.stopped)


_MORE = "Run the same command again with a higher limit; it goes on from here."
_DONE = ".done"


def _done(out: Path) -> Mapping[str, Any] | None:
    """The summary of a phase that is at its end for good, or None."""
    if not (out / _DONE).is_file():
        return None
    found: Mapping[str, Any] = json.loads((out / SUMMARY_FILE).read_text(encoding="utf-8"))
    return found


def _finished(out: Path, summary: Mapping[str, Any], *, nothing: bool) -> Mapping[str, Any]:
    """Mark a phase as being at its end: later ones build on what it says now.

    A row that failed is a row. But where failed calls are why a phase came to nothing, the round
    would end with a finding about the model that is one about a server. Raises Stopped then, where
    the next start tries these calls again; one that fails for good (a text that no context holds)
    would fail there too.
    """
    if nothing and summary["tried_again"]:
        raise Stopped(
            f"{summary['failed']} of {summary['planned']} calls failed in {out.parent.name}/"
            f"{out.name}, and nothing came of the others",
            hint="Their errors stand in results.jsonl there. The same command tries them again.",
        )
    write_atomic(out / _DONE, "")
    return summary


def _attacks(folder: Path) -> list[dict[str, str]]:
    """The oracle's prompts: id, prompt, and like which failure it is."""
    text = (folder / ATTACKS_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


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
