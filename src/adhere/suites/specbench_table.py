"""SpecBench's published data set: one table a scenario, with the spec in columns of every row.

Beside the five columns of a row each holds `scenario` (its full name), `scenario_description`,
`safety_spec_1` to `safety_spec_12` and `behavioral_spec_1` to `behavioral_spec_11`; where a
scenario has fewer rules, the last ones are null or empty. The data set comes from a hub through
the `datasets` library, or from a folder: saved by `save_to_disk`, or Parquet or JSON-lines files
named after their scenarios, directly in it or under `data/`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from adhere.errors import BadInput
from adhere.spec import Specification
from adhere.spec.formats.specbench import read_specbench
from adhere.suites.reading import check_size, json_lines, parse_pairs
from adhere.suites.specbench_rows import (
    Reader,
    Row,
    Scenario,
    Wrong,
    one_mapping,
    read_row,
    wrong_at,
)

INSTALL = "pip install 'adhere[datasets]'"
ENDINGS = (".parquet", ".jsonl")
_SAVED = ("dataset_dict.json", "dataset_info.json")  # what `save_to_disk` leaves
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_SPEC = re.compile(r"(safety|behavioral)_spec_([1-9]\d?)")
_NAMES = ("scenario", "scenario_description")


def table_readers(path: Path) -> dict[str, Reader]:
    """A reader for each scenario's table in a folder or file; none where it is no such thing."""
    if path.is_file():
        return {_key(path): partial(_read_files, [path])} if path.suffix in ENDINGS else {}
    if any((path / name).is_file() for name in _SAVED):
        return _splits(_saved(path), str(path))
    files = [f for folder in (path, path / "data") if folder.is_dir() for f in folder.iterdir()]
    tables: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files):
        if file.suffix in ENDINGS and file.is_file():
            tables[_key(file)].append(file)
    for key, found in tables.items():
        if len(found) > 1 and not all(_SHARD.fullmatch(file.stem) for file in found):
            raise BadInput.at(
                path, None, f"{found[0].name} and {found[1].name}", f"one table of {key}"
            )
    return {key: partial(_read_files, found) for key, found in sorted(tables.items())}


def hub_readers(dataset: str, revision: str | None) -> dict[str, Reader]:
    """A reader for each split of a data set on the hub. Raises BadInput when it is out of reach."""
    library = _library(f"the data set {dataset}")
    library.disable_progress_bars()
    try:
        found = library.load_dataset(dataset, revision=revision)
    except Exception as error:  # the library's, the hub client's and the network's are many
        raise _failed(f"the data set {dataset}", error) from error
    source = f"{dataset}@{_commit(found) or revision or 'main'}"
    return _splits(found, source)


def read_table(source: str, key: str, data: Iterable[Any]) -> Scenario:
    """A scenario from its table. Raises BadInput that names the item of the first mistake."""
    rows: list[Row] = []
    first: tuple[Mapping[str, Any], Specification] | None = None
    for number, item in enumerate(data):
        wrong = wrong_at(source, key, number)
        columns = one_mapping(item, wrong)
        shared = {k: v for k, v in columns.items() if k in _NAMES or _SPEC.fullmatch(k)}
        own = {k: v for k, v in columns.items() if k not in shared}
        if first is None:
            first = shared, _spec(shared, source, key, wrong)
        elif shared != first[0]:
            column = _difference(shared, first[0])
            raise wrong(
                f"another {column} than in the rows before it",
                "one description and one list of rules for all rows of a scenario",
            )
        rows.append(read_row(own, number, wrong))
    if first is None:
        raise BadInput.at(source, None, f"no rows of {key}", "at least one")
    return Scenario(key, tuple(rows), first[1], source)


def _spec(shared: Mapping[str, Any], source: str, key: str, wrong: Wrong) -> Specification:
    for name in _NAMES:
        if not isinstance(shared.get(name), str):
            found = f"{name} = {shared[name]!r:.60}" if name in shared else f"no {name!r}"
            raise wrong(found, "text")
    texts = {
        f"{kind}_specifications": _rules(shared, kind, wrong) for kind in ("safety", "behavioral")
    }
    scenario = {"name": shared["scenario"], "description": shared["scenario_description"]}
    return read_specbench(json.dumps(texts), source, json.dumps(scenario), source, default_name=key)


def _rules(shared: Mapping[str, Any], kind: str, wrong: Wrong) -> list[str]:
    """The rules of a kind, which fill their columns from the first one on."""
    numbered = {
        int(match[2]): value
        for name, value in shared.items()
        if (match := _SPEC.fullmatch(name)) and match[1] == kind
    }
    rules: list[str] = []
    for number, value in sorted(numbered.items()):
        if not isinstance(value, str | None):
            raise wrong(f"{kind}_spec_{number} = {value!r:.60}", "text or null")
        if not value:
            continue
        if number != len(rules) + 1:
            raise wrong(
                f"{kind}_spec_{number} without {kind}_spec_{len(rules) + 1}",
                "rules that fill their columns from the first one on",
            )
        rules.append(value)
    return rules


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return min(key for key in {**one, **other} if one.get(key, ...) != other.get(key, ...))


# ---------------------------------------------------------------- files and the library


def _key(file: Path) -> str:
    shard = _SHARD.fullmatch(file.stem)
    return shard[1] if shard else file.stem


def _read_files(files: list[Path]) -> Scenario:
    rows: list[Any] = []
    for file in files:
        check_size(file)
        rows += _parquet(file) if file.suffix == ".parquet" else _json_lines(file)
    return read_table(str(files[0]), _key(files[0]), rows)


def _json_lines(file: Path) -> list[Any]:
    rows = []
    for number, text, _ in json_lines(file):
        try:
            rows.append(parse_pairs(text))
        except (ValueError, RecursionError) as error:
            found = f"broken JSON ({error})"
            raise BadInput.at(file, number, found, "one JSON object a line") from None
    return rows


def _parquet(file: Path) -> list[Any]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise _not_installed(str(file)) from None
    try:
        rows: list[Any] = parquet.read_table(file).to_pylist()
    except Exception as error:  # pyarrow's errors share no base of their own
        raise _failed(str(file), error) from error
    return rows


def _saved(path: Path) -> Any:
    library = _library(str(path))
    try:
        return library.load_from_disk(str(path))
    except Exception as error:
        raise _failed(str(path), error) from error


def _splits(found: Any, source: str) -> dict[str, Reader]:
    """A reader for each split of a loaded data set, or for the one table that it is."""
    if isinstance(found, dict):
        tables = {str(key): table for key, table in found.items()}
    else:
        tables = {str(found.split or Path(source).name): found}
    return {key: partial(read_table, source, key, table) for key, table in sorted(tables.items())}


def _library(what: str) -> Any:
    try:
        return import_module("datasets")
    except ImportError:
        raise _not_installed(what) from None


def _not_installed(what: str) -> BadInput:
    return BadInput(
        f"{what}: reading it needs a library that is not installed; expected {INSTALL}",
        hint="Or give path=FOLDER with the scenarios in SpecBench's own layout (docs/suites.md).",
    )


def _failed(what: str, error: Exception) -> BadInput:
    reason = str(error).strip().split("\n")[0][:300]
    return BadInput(
        f"{what}: could not be loaded ({type(error).__name__}: {reason})",
        hint="Check the name and the network, or give path=FOLDER with a copy (docs/suites.md).",
    )


def _commit(found: Any) -> str | None:
    """The commit that the hub's files came from: the library names its cache's folder after it."""
    tables = found.values() if isinstance(found, dict) else [found]
    names = {Path(file["filename"]).parent.name for table in tables for file in table.cache_files}
    return next((name for name in names if re.fullmatch(r"[0-9a-f]{40}", name)), None)
