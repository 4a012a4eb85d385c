"""Reading a plan for pairs: a YAML file, overlaid by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adhere.errors import BadInput
from adhere.experiments.plan_file import make_plan
from adhere.experiments.yaml_file import anchor_paths, read_fields
from adhere.training.recipes.clair.plan import RULES, ClairPlan

_PATHS = ("spec", "prompts", "prompts_dir", "out", "reuse", "prices")
_ROLES = ("judge", "reviser")


def read_clair_plan(file: Path | None, given: dict[str, Any]) -> ClairPlan:
    """The plan of a file (paths in it are relative to it) overlaid by what the command line gave.

    Raises BadInput that names the file and the field.
    """
    data = {} if file is None else read_fields(file, "spec:")
    if file is not None:
        anchor_paths(data, _PATHS, file.parent)
    for role in _ROLES:
        if isinstance(data.get(role), str) and data[role] != RULES:
            data[role] = {"model": data[role]}
    for key, value in given.items():
        # Another model: nothing of the file's one is its.
        replaces = key in _ROLES and isinstance(value, dict) and "model" in value
        if isinstance(value, dict) and isinstance(data.get(key), dict) and not replaces:
            data[key] = {**data[key], **value}
        else:
            data[key] = value
    for role in _ROLES:
        found = data.get(role)
        if isinstance(found, dict) and "model" not in found:
            options = ", ".join(f"--{role}-{field.replace('_', '-')}" for field in found)
            raise BadInput(f"{options}: found no --{role} MODEL beside it")
    return make_plan(ClairPlan, data, str(file) if file else "the command line")
