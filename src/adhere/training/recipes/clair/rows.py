"""From rows that ended to the files: `pairs.jsonl` as TRL reads it, and `dropped.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adhere.chat import Message, digest
from adhere.experiments.stepwise.rows import FAILED
from adhere.methods.prompting import compose
from adhere.records import row_key
from adhere.training.contrast import Contrast, contrast
from adhere.training.recipes.clair.inputs import REVISER, ClairInputs, row_id
from adhere.training.recipes.clair.making import DROPPED, PAIR
from adhere.training.recipes.clair.plan import RULES
from adhere.training.recipes.clair.refusing import violated
from adhere.training.rows import PreferenceRow

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """A pair with what is measured of it."""

    row: PreferenceRow
    contrast: Contrast

    @property
    def before(self) -> Mapping[str, str]:
        """Marks of the rejected text."""
        marks: Mapping[str, str] = self.row.extras["marks"]["before"]
        return marks

    @property
    def after(self) -> Mapping[str, str]:
        """Marks of the chosen text."""
        marks: Mapping[str, str] = self.row.extras["marks"]["after"]
        return marks


def make_pairs(
    inputs: ClairInputs, rows: Iterable[Row], record: Mapping[str, Any]
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """The pairs, in the order of the rows, and those that are dropped for standing there already.

    Repeats of a prompt may come to the same two texts; such a pair counts once.
    """
    settings = digest({k: v for k, v in inputs.identity().items() if k != "models"})[:16]
    prompts = {case.id: row_prompt(inputs, case.messages) for case in inputs.cases}
    seen: set[tuple[str, str, str]] = set()
    pairs, repeated = [], []
    for row in rows:
        if row["outcome"] != PAIR:
            continue
        chosen, rejected = row["chosen"], row["rejected"]
        said = (row["case"], rejected["text"], chosen["text"])
        if said in seen:
            repeated.append({**row, "outcome": DROPPED, "reason": "duplicate"})
            continue
        seen.add(said)
        measured = contrast(rejected["text"], chosen["text"])
        extras = {
            "rationale": chosen.get("rationale", ""),
            "marks": {"before": rejected["marks"], "after": chosen["marks"]},
            "contrast": measured.as_json(),
            "edit": row["edit"],
            "lineage": _lineage(inputs, row, record, settings),
        }
        made = PreferenceRow(
            row_id(row_key(row)), prompts[row["case"]], chosen["text"], rejected["text"], extras
        )
        pairs.append(Pair(made, measured))
    return pairs, repeated


def row_prompt(inputs: ClairInputs, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The prompt of a pair: the conversation, with the spec in it where the plan says so."""
    plan = inputs.plan
    if not plan.spec_in_rows:
        return tuple(messages)
    return tuple(compose(messages, inputs.spec, inputs.common.prompts, plan.order))


def _lineage(
    inputs: ClairInputs, row: Row, record: Mapping[str, Any], settings: str
) -> dict[str, Any]:
    """Where a pair comes from. All values are text or whole numbers, in every row the same keys."""
    plan = inputs.plan
    chosen, rejected = row["chosen"], row["rejected"]
    return {
        "set": plan.set,
        "case": row["case"],
        "repeat": row["repeat"],
        "rejected_by": _who(inputs, rejected["seat"], record),
        "rejected_draw": rejected["draw"],
        "chosen_by": _who(inputs, chosen["seat"], record),
        "chosen_draw": chosen["draw"],
        "tries": len(row["tries"]) + (chosen["seat"] in (REVISER, RULES)),
        "judged_by": record["identity"].get("judge_model", "checks"),
        "method": plan.method.label,
        "spec": inputs.spec.name,
        "spec_version": str(inputs.spec.version),
        "spec_digest": inputs.spec.digest,
        "settings": settings,
    }


def _who(inputs: ClairInputs, seat: str, record: Mapping[str, Any]) -> str:
    if seat == RULES:
        return "the rules' checks"
    if seat == REVISER:
        return str(record["identity"].get("reviser_model", ""))
    return str(record["identity"]["models"].get(inputs.label(seat), ""))


def dropped_line(row: Row) -> dict[str, Any]:
    """A line of `dropped.jsonl`: why a prompt gave no pair, with every try that was refused.

    `violated` is None where the answer has no marks. A row of several answers has them all.
    """
    draft = row["texts"][0] if row["texts"] else {}
    several = [
        {"by": text["seat"], "draw": text["draw"], "text": text["text"],
         "marks": text.get("marks"), "why": text.get("unscored") or text["reason"]}
        for text in row["texts"]
    ]  # fmt: skip
    return {
        "id": row_id(row_key(row)),
        "outcome": row["outcome"],
        "reason": row["reason"] or ("failed" if row["outcome"] == FAILED else ""),
        "detail": row["detail"],
        "error": row["error"]["kind"] if row["error"] else "",
        "draft": draft.get("text", ""),
        "violated": violated(draft["marks"]) if "marks" in draft else None,
        **({"answers": several} if len(several) > 1 else {}),
        "tries": [
            {**{k: tried[k] for k in ("reason", "detail")}, "reply": tried.get("reply", "")}
            for tried in row["tries"]
        ],
    }


def not_pairs(rows: Iterable[Row]) -> list[Row]:
    """The rows that gave no pair and are at an end, or failed."""
    return [row for row in rows if row["outcome"] in (DROPPED, FAILED)]
