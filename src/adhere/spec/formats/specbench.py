"""The SpecBench form: a scenario's `specifications.json` with `scenario.json` beside it.

The official layout (arXiv 2509.14760) is two lists of texts without ids, so ids are derived.
It has no place for given ids, checks and other keys, a version or a fallback: the writer leaves
them out, and `specbench_losses` says which.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any

from adhere.errors import BadInput
from adhere.spec.checks.tree import near, quoted
from adhere.spec.formats.building import RULE_KEYS, Entry, Found, build, normalized
from adhere.spec.model import Kind, Specification, derive_id

_LISTS: dict[str, Kind] = {
    "safety_specifications": "safety",
    "behavioral_specifications": "behavioral",
}
_SCENARIO_KEYS = ("name", "description")


def read_specbench(
    text: str,
    file: str,
    scenario: str | None = None,
    scenario_file: str = "scenario.json",
    *,
    default_name: str = "",
) -> Specification:
    """Read `specifications.json`, and the text of `scenario.json` where there is one.

    `default_name` (or else the file's name) is used where the scenario gives none. Raises
    BadInput.
    """
    data = _object(text, file, tuple(_LISTS))
    entries: list[Entry] = []
    for key, kind in _LISTS.items():
        rules = data.get(key, [])
        if not isinstance(rules, list):
            raise BadInput.at(file, None, f"no list under {key}", "a list of texts")
        for number, rule in enumerate(rules, start=1):
            place = f"{key}, item {number}"
            if not isinstance(rule, str):
                raise BadInput.at(file, None, f"{quoted(repr(rule))} at {place}", "a text")
            entries.append(Entry(kind, Found(rule), place=place))
    front = _front(scenario, scenario_file) if scenario is not None else {}
    return build(file, default_name or PurePath(file).stem, front, entries)


def write_specbench(spec: Specification) -> str:
    """The text of `specifications.json`. Raises BadInput where a rule cannot be written."""
    spec = normalized(spec)
    data = {key: [r.text for r in spec.rules if r.kind == kind] for key, kind in _LISTS.items()}
    return json.dumps(data, indent=4, ensure_ascii=False) + "\n"


def write_scenario(spec: Specification) -> str:
    """The text of `scenario.json`."""
    spec = normalized(spec)
    data = {"name": spec.name, "description": spec.description}
    return json.dumps(data, indent=4, ensure_ascii=False) + "\n"


def specbench_losses(spec: Specification) -> tuple[str, ...]:
    """What the SpecBench layout cannot hold of this specification, a phrase for each sort."""
    spec = normalized(spec)
    counts = {"id": sum(rule.id != derive_id(rule.text) for rule in spec.rules)}
    for key in RULE_KEYS:
        counts[key] = sum(getattr(rule, key) is not None for rule in spec.rules)
    losses = [
        f"{key} of {count} {'rule' if count == 1 else 'rules'}"
        for key, count in counts.items()
        if count
    ]
    losses += ["version"] if spec.version != "1" else []
    losses += ["fallback"] if spec.fallback else []
    return (*losses, *spec.meta)


def _front(text: str, file: str) -> dict[str, Found]:
    data = _object(text, file, _SCENARIO_KEYS)
    for key, value in data.items():
        if not isinstance(value, str):
            raise BadInput.at(file, None, f"{quoted(repr(value))} under {key}", "a text")
    return {key: Found(value) for key, value in data.items()}


def _object(text: str, file: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with some of the allowed keys and no others."""
    try:
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadInput.at(
            file, error.lineno, f"broken JSON ({error.msg}, column {error.colno})", "valid JSON"
        ) from None
    except _TwiceError as error:
        line = _last_line(text, error.key)
        raise BadInput.at(
            file, line, f"the key {quoted(error.key)} again", "each key once"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadInput.at(file, None, f"broken JSON ({reason})", "valid JSON") from None
    if not isinstance(data, dict):
        raise BadInput.at(file, None, "JSON that is no object", f"an object with {allowed[0]}")
    for key in data:
        if key not in allowed:
            raise BadInput.at(
                file,
                _last_line(text, key),
                f"the unknown key {quoted(key)}",
                f"{' and '.join(allowed)}",
                hint=near(key, allowed),
            )
    return data


class _TwiceError(ValueError):
    """A key occurs twice in an object."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise _TwiceError(key)
        out[key] = value
    return out


def _last_line(text: str, key: str) -> int | None:
    """The line of a key's last occurrence, where it is spelled plainly."""
    found = list(re.finditer(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text))
    return text.count("\n", 0, found[-1].start()) + 1 if found else None
