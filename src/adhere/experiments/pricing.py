"""Prices and speeds of models, as the user's own file gives them. Nothing is looked up or guessed.

A price file is YAML. Prices are money per million tokens; keys under `models` are labels of models
(their `name`) or `model` strings:

    currency: USD
    models:
      openai:gpt-x:            # what `--model` says
        input: 2.0             # prompt tokens
        cached_input: 0.5      # prompt tokens that the server had read before; default: input
        output: 8.0            # completion tokens
        tokens_per_second: 60  # completion tokens of one call; optional, for estimates of time
        seconds_per_call: 0.4  # until the first token; optional

A model that the file does not name has no price: its cost is None, never 0. So has a model of the
embedded engine, unless the file says 0. An entry may hold speeds alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adhere.chat import Usage
from adhere.errors import BadInput
from adhere.experiments.yaml_file import parse_yaml

MILLION = 1_000_000

# Strict: YAML's `yes` or "2,0" is a mistake, not a price.
Money = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Speed = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]

_EXPECTED = {
    "extra_forbidden": "one of {fields}",
    "missing": "this field",
    "greater_than_equal": "a number that is not negative",
    "greater_than": "a number above 0",
    "finite_number": "a finite number",
    "float_type": "a number",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Strict):
    """What one model costs (money per million tokens) and how fast it answers."""

    input: Money | None = None
    cached_input: Money | None = None
    output: Money | None = None
    tokens_per_second: Speed | None = None
    seconds_per_call: Money | None = None

    @model_validator(mode="after")
    def _whole(self) -> Price:
        if (self.input is None) != (self.output is None):
            missing = "output" if self.output is None else "input"
            raise ValueError(f"a price without {missing!r}")
        if self.cached_input is not None and self.input is None:
            raise ValueError("a price without 'input'")
        if all(value is None for _, value in self):
            raise ValueError("an entry without a number")
        return self

    def cost(self, usage: Usage) -> float | None:
        """Money for `usage`, or None when this entry holds speeds alone."""
        if self.input is None or self.output is None:
            return None
        cached = min(usage.cached_prompt_tokens, usage.prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        return (
            (usage.prompt_tokens - cached) * self.input
            + cached * cached_price
            + usage.completion_tokens * self.output
        ) / MILLION


class Prices(_Strict):
    """A price file."""

    currency: str = Field(min_length=1, max_length=16)
    models: dict[str, Price] = Field(min_length=1)

    def find(self, model: str | Sequence[str]) -> Price | None:
        """The entry of a model; of several names (its label, its `model`), the first that is there.

        None when there is none.
        """
        names = [model] if isinstance(model, str) else model
        return next((self.models[name] for name in names if name in self.models), None)

    def under(self, names: Mapping[str, str]) -> Prices:
        """The same prices, also found under further names (name to the entry's own)."""
        more = {
            name: self.models[own]
            for name, own in names.items()
            if name not in self.models and own in self.models
        }
        return self.model_copy(update={"models": {**self.models, **more}})

    def cost(self, model: str | Sequence[str], usage: Usage) -> float | None:
        """Money for `usage` of a model, in `currency`. None when it has no price: never 0."""
        price = self.find(model)
        return price.cost(usage) if price is not None else None

    def speed(self, model: str | Sequence[str]) -> tuple[float, float] | None:
        """Completion tokens a second and seconds until the first, of one call; None if unknown."""
        price = self.find(model)
        if price is None or price.tokens_per_second is None:
            return None
        return price.tokens_per_second, price.seconds_per_call or 0.0


def read_prices(path: Path) -> Prices:
    """Read a price file. Raises BadInput that names file, line, what was found and expected."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror})",
            hint="docs/prices.md shows a price file.",
        ) from None
    except UnicodeDecodeError:
        raise BadInput.at(path, None, "bytes that are not UTF-8", "UTF-8 text") from None
    data = parse_yaml(text, path)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(data, dict):
        raise BadInput.at(path, 1, _kind(data), "`currency:` and `models:`")
    for key, line in _twice(node):
        raise BadInput.at(path, line, f"{key!r} a second time", "every name once")
    try:
        return Prices.model_validate({str(key): value for key, value in data.items()})
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for part in first["loc"] if part != "[key]"]
        raise BadInput.at(
            path,
            _line(node, place),
            f"{'.'.join(str(part) for part in place) or 'the file'}: {_found(first)}",
            _expected(first, place),
            hint="docs/prices.md shows a price file.",
        ) from None


def _found(error: Any) -> str:
    if error["type"] == "missing":
        return "nothing"
    if error["type"] == "extra_forbidden":
        return "an unknown field"
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{error['input']!r:.60}"


def _expected(error: Any, place: Sequence[Any]) -> str:
    if error["type"] == "value_error":
        return "`input` and `output`, or speeds alone"
    fields = Price.model_fields if len(place) > 1 else Prices.model_fields
    template = _EXPECTED.get(error["type"])
    return template.format(fields=", ".join(fields)) if template else str(error["msg"])


def _kind(data: Any) -> str:
    return "nothing" if data is None else f"{data!r:.60}"


def _line(node: yaml.Node | None, place: Sequence[Any]) -> int | None:
    """The line (from 1) of the innermost key of `place` that the file holds."""
    line = node.start_mark.line + 1 if node is not None else None
    for part in place:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == str(part):
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line


def _twice(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that stand twice in one mapping: YAML would keep the last without a word."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if isinstance(key.value, str):
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
        yield from _twice(value)
