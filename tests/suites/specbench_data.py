"""The made-up data set in SpecBench's layouts, to be changed at will."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "fixtures" / "specbench"
KEYS = ("Biochem", "Child", "Code", "Health", "Travel")
RULES = {"Biochem": (2, 3), "Child": (3, 3), "Code": (2, 3), "Health": (2, 3), "Travel": (2, 4)}


def read(key: str, name: str) -> Any:
    return json.loads((DATA / key / name).read_text("utf-8"))


def copy(folder: Path, key: str = "Health") -> Path:
    """A copy of one scenario's folder."""
    return Path(shutil.copytree(DATA / key, folder / key))


def edit(folder: Path, change: Callable[[Any], Any], name: str = "prompts.json") -> None:
    """Change a file of a scenario: in place, or into what `change` returns."""
    data = json.loads((folder / name).read_text("utf-8"))
    made = change(data)
    (folder / name).write_text(json.dumps(data if made is None else made), "utf-8")


def table(key: str, *, empty: str | None = None) -> list[dict[str, Any]]:
    """The rows of a scenario as the published data set has them; `empty` stands for no rule."""
    scenario, spec = read(key, "scenario.json"), read(key, "specifications.json")
    columns = {"scenario": scenario["name"], "scenario_description": scenario["description"]}
    for kind, most in (("safety", 12), ("behavioral", 11)):
        rules = spec[f"{kind}_specifications"]
        for number in range(1, most + 1):
            rule = rules[number - 1] if number <= len(rules) else empty
            columns[f"{kind}_spec_{number}"] = rule
    return [{**row, **columns} for row in read(key, "prompts.json")]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    """Needs pyarrow."""
    import pyarrow
    from pyarrow import parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([(name, pyarrow.string()) for name in rows[0]])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file)
