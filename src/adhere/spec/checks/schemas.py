"""JSON schemas (Draft 2020-12) written inside a check: no network, no hanging.

`$ref` may point into the schema itself only; nothing is ever fetched. `pattern` runs under the
same guards as a /regex/; `patternProperties`, whose patterns the library would run without a
limit, is refused. Validation as a whole runs under the time limit, because a short schema of
references to references can mean more steps than there is time for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

from adhere.spec.checks.regexes import OutOfTime, PatternError, compile_regex, search
from adhere.spec.checks.tree import Regex, quoted

_DEADLINE: ContextVar[float] = ContextVar("deadline", default=float("inf"))
_REFUSED = ("patternProperties", "$dynamicRef")


class SchemaError(ValueError):
    """A text that is no usable JSON schema."""


@lru_cache(maxsize=256)
def compile_schema(source: str) -> Any:
    """Read a schema and return its validator. Raises SchemaError."""
    from jsonschema.exceptions import SchemaError as LibrarySchemaError
    from referencing import Registry

    try:
        schema = json.loads(source)
    except json.JSONDecodeError as error:
        raise SchemaError(f"a schema that is no JSON ({error})") from None
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"a schema that cannot be read ({error})") from None
    if not isinstance(schema, (dict, bool)):
        raise SchemaError(f"a schema that is no object: {quoted(source)}")
    try:
        _inspect(schema)
        _validator_class().check_schema(schema)
    except LibrarySchemaError as error:
        raise SchemaError(f"a wrong schema: {error.message[:200]}") from None
    except RecursionError:
        raise SchemaError("a schema that is nested too deep") from None
    _try_references(schema)
    # An empty registry: the library's default one would fetch addresses.
    return _validator_class()(schema, registry=Registry())


def first_violation(validator: Any, value: Any, limit: float) -> str | None:
    """What is wrong with `value`, or None. Raises OutOfTime after `limit` seconds."""
    token = _DEADLINE.set(time.monotonic() + limit)
    try:
        error = next(iter(validator.iter_errors(value)), None)
    except RecursionError:
        raise OutOfTime from None
    finally:
        _DEADLINE.reset(token)
    if error is None:
        return None
    message = error.message if len(error.message) <= 200 else error.message[:197] + "..."
    return f"the JSON breaks its schema at {error.json_path}: {message}"


@cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    keywords = {
        **Draft202012Validator.VALIDATORS,
        "pattern": _pattern,
        "uniqueItems": _unique_items,
    }
    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {name: _in_time(keyword) for name, keyword in keywords.items()}
    )


def _in_time(keyword: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """A keyword of the library's that looks at the clock before it begins."""

    def run(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if time.monotonic() > _DEADLINE.get():
            raise OutOfTime
        yield from keyword(validator, value, instance, schema) or ()

    return run


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not validator.is_type(instance, "string"):
        return
    left = max(0.001, min(60.0, _DEADLINE.get() - time.monotonic()))
    if search(compile_regex(Regex(pattern)), instance, left) is None:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _unique_items(validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[Any]:
    """By sorting texts: the library compares every pair of items, which takes minutes on many."""
    from jsonschema.exceptions import ValidationError

    if not wanted or not validator.is_type(instance, "array"):
        return
    spelled = [json.dumps(item, sort_keys=True) for item in instance]
    if len(set(spelled)) < len(spelled):
        yield ValidationError("the items are not unique")


def _inspect(schema: Any) -> None:
    """Refuse what could fetch, hang or not be compiled, wherever it stands in the schema."""
    if isinstance(schema, list):
        for item in schema:
            _inspect(item)
    elif isinstance(schema, dict):
        for key, item in schema.items():
            if key in _REFUSED:
                raise SchemaError(f'a schema with "{key}", which is not supported')
            if key in ("$ref", "$id", "$schema") and isinstance(item, str):
                _inspect_address(key, item)
            if key == "pattern" and isinstance(item, str):
                try:
                    compile_regex(Regex(item))
                except PatternError as error:
                    raise SchemaError(f"a schema whose pattern cannot be used: {error}") from None
            _inspect(item)


def _inspect_address(key: str, address: str) -> None:
    if key == "$schema":
        if address.rstrip("#") != "https://json-schema.org/draft/2020-12/schema":
            raise SchemaError(f"a schema of another draft than 2020-12: {quoted(address)}")
    elif not address.startswith("#"):
        raise SchemaError(
            f'a schema with "{key}": {quoted(address)}, which would have to be fetched; '
            "references inside the schema begin with #"
        )


def _try_references(schema: Any) -> None:
    """Look up every reference once, so that a dangling one is found when the spec is read."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    registry: Registry[Any] = Registry().with_resource("", DRAFT202012.create_resource(schema))
    for reference in _references(schema):
        try:
            registry.resolver().lookup(reference)
        except Unresolvable:
            raise SchemaError(f'a schema whose "$ref": {quoted(reference)} leads nowhere') from None


def _references(schema: Any) -> Iterator[str]:
    items = schema if isinstance(schema, list) else []
    if isinstance(schema, dict):
        items = list(schema.values())
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
    for item in items:
        yield from _references(item)
