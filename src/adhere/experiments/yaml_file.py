"""Reading a YAML file of fields, with errors that name the file and the line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from adhere.errors import BadInput


def read_fields(file: Path, example: str, hint: str = "") -> dict[str, Any]:
    """The fields of a file, such as `example`. Raises BadInput; `hint` is for a missing file."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})", hint=hint) from None
    except UnicodeDecodeError:
        raise BadInput.at(file, None, "bytes that are not UTF-8", "UTF-8 text") from None
    data = parse_yaml(text, file)
    if not isinstance(data, dict):
        raise BadInput(f"{file}: found {type(data).__name__}; expected fields such as `{example}`")
    return data


def parse_yaml(text: str, file: Path) -> Any:
    """What a YAML text says. Raises BadInput."""
    try:
        return yaml.safe_load(text)
    # A date that does not exist is a ValueError, and lists in lists in lists a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        said = str(error) if isinstance(error, ValueError) else "it cannot be read"
        problem = getattr(error, "problem", None) or said
        line = mark.line + 1 if mark else None
        raise BadInput.at(file, line, f"broken YAML ({problem})", "YAML") from None


def anchor_paths(data: dict[str, Any], keys: Iterable[str], folder: Path) -> None:
    """Make the paths under these keys, texts and lists of texts, relative to a folder."""
    for key in keys:
        value = data.get(key)
        if isinstance(value, str):
            data[key] = folder / value
        elif isinstance(value, list):
            data[key] = [folder / item if isinstance(item, str) else item for item in value]
