"""Reading a training's plan: a YAML file, overlaid by the command line, over a preset."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adhere.errors import BadInput
from adhere.experiments.yaml_file import anchor_paths, read_fields
from adhere.training.plan import PRESETS, RECIPE_PRESETS, LoraPlan, TrainPlan

PRESET = "preset"  # stands in a file beside the plan's own fields
ROWS = "rows"  # the other name of `pairs`, for rows that are none
_PATHS = ("pairs", ROWS, "out", "spec", "reference_folder")
_OPTIONS = {
    "model": "--model weights:NAME",
    "out": "--out FOLDER",
}


def read_train_plan(file: Path | None, given: Mapping[str, Any]) -> tuple[TrainPlan, str | None]:
    """The plan, and the preset that filled in what neither file nor command line says.

    `given` are fields from the command line, which go before the file's; `preset` may be one.
    Paths in a file are relative to it. Raises BadInput that names the file and the field.
    """
    source = str(file) if file is not None else "the command line"
    data = read_fields(file, "model:") if file is not None else {}
    if file is not None:
        anchor_paths(data, _PATHS, file.parent)
    if ROWS in given or "pairs" in given:  # a file's other name for it makes way
        data = {key: value for key, value in data.items() if key not in (ROWS, "pairs")}
    data = _over(data, given)
    if ROWS in data:
        if "pairs" in data:
            raise BadInput(f"{source}: found both rows and pairs; expected one file")
        data["pairs"] = data.pop(ROWS)
    preset = data.pop(PRESET, None)
    if preset is None and isinstance(data.get("recipe"), str):
        preset = RECIPE_PRESETS.get(data["recipe"])
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise BadInput(
                f"{source}: preset: found {preset!r:.60}; expected one of {', '.join(PRESETS)}"
            )
        data = _over(PRESETS[preset], data)
    try:
        return TrainPlan(**data), preset
    except ValidationError as error:
        raise _explained(error, source, data.get("recipe")) from None
    except TypeError:
        raise BadInput(
            f"{source}: found a field that is no text; expected fields such as `model:`"
        ) from None


def _over(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with others over them; those that have fields themselves are laid over one by one."""
    out = dict(data)
    for key, value in given.items():
        old = out.get(key)
        out[key] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
    return out


def _explained(error: ValidationError, source: str, recipe: object = None) -> BadInput:
    """The first mistake that pydantic found, in words that say what to do."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        rows = "--rows" if recipe in ("deliberative", "iteralign") else "--pairs"
        named = rows.strip("-") if place == "pairs" else place
        wanted = f"{rows} FILE.jsonl" if place == "pairs" else _OPTIONS.get(place, place)
        return BadInput(
            f"{source}: found no {named!r}; expected {wanted}",
            hint=f"A training needs --model, {rows} and --out; `adhere train --help` shows all.",
        )
    if first["type"] == "extra_forbidden":
        known = LoraPlan.model_fields if len(first["loc"]) > 1 else TrainPlan.model_fields
        near = get_close_matches(str(first["loc"][-1]), known, 1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        return BadInput(
            f"{source}: {place}: unknown field{guess}",
            hint=f"Known: {', '.join(known)}" + ("" if len(first["loc"]) > 1 else ", preset"),
        )
    message = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict) else f"found {first['input']!r:.80}; "
    return BadInput(f"{source}: {place + ': ' if place else ''}{found}{message}")
