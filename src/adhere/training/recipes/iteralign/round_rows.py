"""The rows that a round trains on: revisions of one or of all rounds, and good answers beside them.

A model that is shown nothing but corrections of its failures may forget what it did well, or learn
to decline. `replay` puts its own good answers to other prompts of the same rounds among the rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adhere.training.recipes.iteralign.redteam import GOOD_FILE, write_lines
from adhere.training.recipes.iteralign.reflect import ROWS_FILE

Source = tuple[int, Path]  # a round's number and folder


def revisions(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The rows of the rounds' reflections. Their ids name the round already."""
    return [line for _, folder in sources for line in _lines(folder / "reflect" / ROWS_FILE)]


def good_lines(sources: Sequence[Source], share: float, seed: int) -> list[dict[str, Any]]:
    """Good answers as rows, so many that they are `share` of all, drawn by the seed."""
    if not share:
        return []
    found = []
    for number, folder in sources:
        for line in _lines(folder / "redteam" / GOOD_FILE):
            answer = [{"role": "assistant", "content": line["answer"]}]
            lineage = {"source": "replay", "failure": "", "round": number}
            found.append({
                "id": f"good:r{number}:{line['id']}", "prompt": line["messages"],
                "completion": answer, "lineage": lineage,
            })  # fmt: skip
    wanted = round(len(revisions(sources)) * share / (1 - share))
    return random.Random(seed).sample(found, min(wanted, len(found)))  # noqa: S311


def take_rows(sources: Sequence[Source], good: Sequence[dict[str, Any]], file: Path) -> Path:
    """Write the rows of a training; where."""
    rows = []
    for line in revisions(sources):
        kept = {key: line["lineage"][key] for key in ("source", "failure")}
        rows.append({**line, "lineage": {**kept, "round": 0}})
    write_lines(file, [*rows, *good])
    return file


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
