"""From rows that ended to the files: `rows.jsonl` as TRL reads it, and `rejected.jsonl`.

The spec is in no row: the prompt is what the user asked, the completion the thought between think
tags and the answer. `lineage` says which rules the teacher was shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adhere.chat import Message, digest
from adhere.experiments.stepwise.rows import FAILED
from adhere.models.thinking import CLOSE, OPEN, split_thought
from adhere.records import row_key
from adhere.records.run_folder import dump_json
from adhere.training.lineage import SPEC_KEYS
from adhere.training.recipes.deliberative.composing import cited
from adhere.training.recipes.deliberative.inputs import DistillInputs, row_id
from adhere.training.recipes.deliberative.making import KEPT, REJECTED
from adhere.training.recipes.deliberative.mixing import MixRow

Row = Mapping[str, Any]
Line = dict[str, Any]


def completion_text(thought: str, answer: str) -> str:
    """Thought and answer as a reasoning model writes them: what a student is trained to say."""
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}"


def make_rows(
    inputs: DistillInputs, rows: Iterable[Row], record: Mapping[str, Any]
) -> tuple[list[Line], list[Line]]:
    """The rows to train on, in the order of the prompts, and those that are there already.

    Samples of a prompt may come to the same text; such a row counts once.
    """
    settings = digest({k: v for k, v in inputs.identity().items() if k != "models"})[:16]
    seen: set[tuple[str, str]] = set()
    made, repeated = [], []
    for row in rows:
        if row["outcome"] != KEPT:
            continue
        draft = row["draft"]
        text = completion_text(draft["thought"], draft["answer"])
        if (row["case"], text) in seen:
            repeated.append({**row, "outcome": REJECTED, "reason": "duplicate"})
            continue
        seen.add((row["case"], text))
        prompt = inputs.by_id[row["case"]]
        lineage = _lineage(inputs, row, record, settings)
        name = row_id(row_key(row))
        made.append(
            _line(name, prompt.case.messages, text, prompt.category, lineage, draft.get("least"))
        )
    return made, repeated


def mixed_rows(inputs: DistillInputs, made: Sequence[Line]) -> list[Line]:
    """The rows of the mix that go behind those made, under ids of their own."""
    mix = inputs.mix
    names = {line["id"] for line in made}
    out: list[Line] = []
    for row in mix.taken(len(made)) if mix else ():
        name = f"mix:{row.id}"
        while name in names:
            name += "+"
        names.add(name)
        assert mix is not None
        out.append(_line(name, row.prompt, row.completion, "", _lineage_of(row, mix.plan)))
    return out


def mix_facts(inputs: DistillInputs, made: Sequence[Line], mixed: Sequence[Line]) -> Line | None:
    """What was mixed in, for the summary; None without a mix.

    `asked` rows make up the share, `taken` are there, `of` the file's; `same_prompts`: those with
    the very prompt of a distilled row, to which they may teach another answer.
    """
    if (mix := inputs.mix) is None:
        return None
    asked = {digest(line["prompt"]) for line in made}
    return {
        "file": mix.plan.file.name,
        "sha256": mix.sha256,
        "share": mix.plan.share,
        "asked": mix.asked(len(made)),
        "taken": len(mixed),
        "of": len(mix.rows),
        "same_prompts": sum(digest(line["prompt"]) in asked for line in mixed),
    }


def as_text(lines: Iterable[Line]) -> str:
    """The lines of a file."""
    return "".join(dump_json(line) + "\n" for line in lines)


def rejected_line(inputs: DistillInputs, row: Row) -> Line:
    """A line of `rejected.jsonl`: why a prompt gave no row, with every try that was refused."""
    return {
        "id": row_id(row_key(row)),
        "category": inputs.by_id[row["case"]].category,
        "outcome": row["outcome"],
        "reason": row["reason"] or ("failed" if row["outcome"] == FAILED else ""),
        "detail": row["detail"],
        "error": row["error"]["kind"] if row["error"] else "",
        "tries": [dict(tried) for tried in row["tries"]],
    }


def _line(
    name: str,
    prompt: Sequence[Message],
    text: str,
    category: str,
    lineage: Line,
    rating: int | None = None,
) -> Line:
    split = split_thought(text)
    thought = split.thought.strip().removeprefix(OPEN).strip() if split.closed else ""
    return {
        "id": name,
        "prompt": [m.to_dict() for m in prompt],
        "completion": [{"role": "assistant", "content": text}],
        "thought": thought,
        "answer": split.answer,
        "category": category,
        "rating": rating,
        "lineage": lineage,
    }


def _lineage(inputs: DistillInputs, row: Row, record: Mapping[str, Any], settings: str) -> Line:
    """Where a row comes from. Every row has the same keys, with values of the same kind."""
    plan, draft = inputs.plan, row["draft"]
    composed = inputs.composed(inputs.by_id[row["case"]])
    identity = record["identity"]
    return {
        "source": "teacher",
        "case": row["case"],
        "repeat": row["repeat"],
        "draw": draft["draw"],
        "tries": len(row["tries"]) + 1,
        "teacher": str(identity["models"].get(plan.taught_by.label, "")),
        "form": draft["form"],
        "close": draft["close"],
        "compose": plan.compose,
        "composed": composed.note,
        "rules": [rule.id for rule in composed.full],
        "in_brief": [rule.id for rule in composed.brief],
        "cited": cited(draft["thought"], composed.full),
        "filters": list(inputs.filters),
        "judged_by": str(identity.get("judge_model", "")),
        "spec": inputs.spec.name,
        "spec_version": str(inputs.spec.version),
        "spec_digest": inputs.spec.digest,
        "settings": settings,
    }


def _lineage_of(row: MixRow, plan: Any) -> Line:
    """As `_lineage`, of a row that no teacher of this run made; for which spec it was is kept."""
    own = row.extras.get("lineage")
    spec = {key: own.get(key) if isinstance(own, Mapping) else None for key in SPEC_KEYS}
    named = all(isinstance(value, str) and value for value in spec.values())
    texts = ("teacher", "form", "close", "compose", "composed", "judged_by", "spec",
             "spec_version", "spec_digest", "settings")  # fmt: skip
    return {
        "source": f"mix {plan.file.name}",
        "case": row.id,
        **dict.fromkeys(("repeat", "draw", "tries"), 0),
        **dict.fromkeys(texts, ""),
        **(spec if named else {}),
        **{k: list[str]() for k in ("rules", "in_brief", "cited", "filters")},
    }
