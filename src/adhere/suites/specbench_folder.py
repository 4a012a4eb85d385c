"""SpecBench's official layout: a folder for each scenario, with three JSON files in it.

Health/scenario.json         {"name": ..., "description": ...}
Health/specifications.json   {"safety_specifications": [...], "behavioral_specifications": [...]}
Health/prompts.json          [{"adversarial_prompt": ..., "prompt": ..., "label": ...,
"source": ..., "answer": ...}, ...]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from adhere.errors import BadInput
from adhere.spec import load_spec
from adhere.suites.reading import read_json
from adhere.suites.specbench_rows import Reader, Row, Scenario, one_mapping, read_row, wrong_at

PROMPTS = "prompts.json"
FILES = ("scenario.json", "specifications.json", PROMPTS)


def folder_readers(path: Path) -> dict[str, Reader]:
    """A reader for each scenario in a folder, or for the one that the folder is; maybe none."""
    if any((path / name).exists() for name in FILES):
        return {path.resolve().name: partial(read_folder, path, path.resolve().name)}
    found = sorted(
        child for child in path.iterdir() if any((child / name).exists() for name in FILES)
    )
    return {child.name: partial(read_folder, child, child.name) for child in found}


def read_folder(folder: Path, key: str) -> Scenario:
    """Read one scenario. Raises BadInput that names the file and the item of the first mistake."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise BadInput.at(
            folder,
            None,
            f"no {missing[0]}",
            f"{FILES[0]}, {FILES[1]} and {FILES[2]}",
            hint="A scenario of SpecBench is a folder with these three files.",
        )
    return Scenario(key, _rows(folder / PROMPTS, key), load_spec(folder), str(folder))


def _rows(file: Path, key: str) -> tuple[Row, ...]:
    data = read_json(file)
    if type(data) is not list:  # an object comes as a list of pairs
        found = "an object" if isinstance(data, list) else type(data).__name__
        raise BadInput.at(file, None, found, "a list of prompts")
    if not data:
        raise BadInput.at(file, None, "an empty list", "a list of prompts")
    rows = []
    for number, item in enumerate(data):
        wrong = wrong_at(file, key, number)
        rows.append(read_row(one_mapping(item, wrong), number, wrong))
    return tuple(rows)
