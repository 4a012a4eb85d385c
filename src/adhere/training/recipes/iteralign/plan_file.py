"""Reading IterAlign's plans: a YAML file, overlaid by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from adhere.errors import BadInput
from adhere.experiments.plan_file import make_plan
from adhere.experiments.yaml_file import anchor_paths, read_fields
from adhere.training.recipes.iteralign.plan import ModulePlan

PlanT = TypeVar("PlanT", bound=ModulePlan)

_PATHS = ("spec", "prompts_dir", "out", "reuse", "prices", "failures", "rules", "known")
_LISTS = ("prompts", "held_out")
_ROLES = ("model", "judge", "oracle")
_PARTS = ("sampling", "limits", "stop", "training", "bands")


def read_plan(cls: type[PlanT], file: Path | None, given: dict[str, Any]) -> PlanT:
    """The plan of a file (paths in it are relative to it) overlaid by what the command line gave.

    Raises BadInput that names the file and the field.
    """
    data = {} if file is None else read_fields(file, "model:")
    if file is not None:
        anchor_paths(data, _PATHS, file.parent)
        for key in _LISTS:
            items = [data[key]] if isinstance(data.get(key), str) else data.get(key)
            if isinstance(items, list):
                data[key] = [
                    file.parent / item if isinstance(item, str) else item for item in items
                ]
        for item in data.get("suites") or ():
            if isinstance(item, dict):
                anchor_paths(item, ("path",), file.parent)
    for role in _ROLES:
        if isinstance(data.get(role), str):
            data[role] = {"model": data[role]}
    for key, value in given.items():
        old = data.get(key)
        # Another model: nothing of the file's one is its.
        replaces = key in _ROLES and isinstance(value, dict) and "model" in value
        merges = key in (*_ROLES, *_PARTS) and isinstance(value, dict) and isinstance(old, dict)
        data[key] = {**old, **value} if merges and not replaces else value  # type: ignore[dict-item]
    for role in _ROLES:
        found = data.get(role)
        if isinstance(found, dict) and "model" not in found:
            options = ", ".join(f"--{role}-{field.replace('_', '-')}" for field in found)
            raise BadInput(f"{options}: found no --{role} MODEL beside it")
    return make_plan(cls, data, str(file) if file else "the command line")
