"""Attack the goals of a plan, and write what came of it.

Beside what every run that goes step by step leaves (`experiments/stepwise/run.py`),

    results.jsonl     every row with all its turns: attack, answer, marks or rating
    attacks.jsonl     the messages that reached a goal, as prompts for `adhere eval`
    responses.jsonl   the last answer of each row, as `adhere judge` takes them: for a second judge

The texts stand in these files alone: nothing of them is
printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from adhere.chat import Message, digest
from adhere.experiments.opening import Opening
from adhere.experiments.pair_attack.attacking import BROKEN, Attacking, attacked
from adhere.experiments.pair_attack.inputs import KIND, AttackInputs, read_attack_inputs
from adhere.experiments.pair_attack.plan import OPERATIONAL, AttackPlan
from adhere.experiments.pair_attack.seats import check_seats, check_target, open_seats
from adhere.experiments.pair_attack.summary import not_apart, summarize
from adhere.experiments.phases import Listener
from adhere.experiments.starts import RunResult, Silent
from adhere.experiments.stepwise.run import Made, StepwiseRun
from adhere.experiments.stepwise.seats import Open
from adhere.records import RunFolder
from adhere.records.run_folder import SUMMARY_FILE, dump_json, write_atomic

ATTACKS_FILE = "attacks.jsonl"
RESPONSES_FILE = "responses.jsonl"


async def attack(plan: AttackPlan, listener: Listener | None = None) -> RunResult:
    """Make (or go on with) the attacks of a plan. Raises AdhereError."""
    inputs = read_attack_inputs(plan)
    check_seats(inputs)
    if not (plan.out / SUMMARY_FILE).is_file():  # else a start before this one has found it well
        await check_target(inputs)
    return await AttackRun(inputs, listener or Silent()).run()


@dataclass
class AttackRun(StepwiseRun[AttackInputs]):
    """One start of a run."""

    kind = KIND
    operational = OPERATIONAL
    weights_together = True  # each turn of the models brings a row but one step on

    def steps(self) -> Attacking:
        """See `StepwiseRun.steps`."""
        return Attacking(self.inputs)

    def open_seats(self, opening: Opening, seats: list[str]) -> AbstractAsyncContextManager[Open]:
        """See `StepwiseRun.open_seats`."""
        return open_seats(self.inputs, opening, seats)

    def not_apart(self, record: Mapping[str, Any]) -> list[str]:
        """See `StepwiseRun.not_apart`."""
        return not_apart(record)

    def undecided(self, summary: Mapping[str, Any]) -> int:
        """See `StepwiseRun.undecided`."""
        return sum(summary["rows"][k] for k in ("unscored", "attacker_failed", "failed"))

    def write(self, made: Made) -> dict[str, Any]:
        """Write the rows, the attacks and the answers; return the summary."""
        inputs = self.inputs
        made.folder.export_rows(made.keys)
        _write_lines(made.folder, ATTACKS_FILE, attack_lines(inputs, made.rows))
        _write_lines(made.folder, RESPONSES_FILE, response_lines(inputs, made.rows))
        return summarize(
            inputs, made.rows, made.record,
            planned=len(made.keys), spent=made.spent, facts=made.facts,
        )  # fmt: skip


def _write_lines(folder: RunFolder, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
    write_atomic(folder.path / name, "".join(dump_json(line) + "\n" for line in lines))


def attack_lines(inputs: AttackInputs, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The attacks that reached a goal, as a prompts file has them; the same message once."""
    cases = {case.id: case for case in inputs.cases}
    seen: set[str] = set()
    out = []
    for row in rows:
        if row["outcome"] != BROKEN:
            continue
        case = attacked(cases[row["case"]], row["turns"][-1]["attack"])
        mark = digest([m.to_dict() for m in case.messages])
        if mark not in seen:
            seen.add(mark)
            told = {"label": "unsafe", "judged_prompt": case.judged_prompt}
            out.append({"id": _row_id(row), **_asked(case.messages), **told})
    return out


def response_lines(inputs: AttackInputs, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last answer of each row, as a responses file has them; rows without one are left out."""
    cases = {case.id: case for case in inputs.cases}
    out = []
    for row in rows:
        answered = [turn for turn in row["turns"] if turn.get("text", "").strip()]
        if not answered:
            continue
        case = attacked(cases[row["case"]], answered[-1]["attack"])
        said = [*(m.to_dict() for m in case.messages),
                {"role": "assistant", "content": answered[-1]["text"]}]  # fmt: skip
        out.append({
            "id": _row_id(row), "messages": said, "label": "unsafe",
            "judged_prompt": case.judged_prompt, "model": row["model"], "method": row["method"],
        })  # fmt: skip
    return out


def _asked(messages: Sequence[Message]) -> dict[str, Any]:
    if len(messages) == 1:
        return {"prompt": messages[0].text}
    return {"messages": [m.to_dict() for m in messages]}


def _row_id(row: Mapping[str, Any]) -> str:
    return f"{row['case']}#{row['repeat']}" if row["repeat"] else str(row["case"])
