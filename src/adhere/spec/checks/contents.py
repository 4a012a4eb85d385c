"""Built-in checks on what a text says: literal texts, patterns, JSON, topic, refusal."""

from __future__ import annotations

import json
from typing import Any

from adhere.spec.checks import prose
from adhere.spec.checks.refusal import looks_like_refusal
from adhere.spec.checks.regexes import compile_regex, literal_pattern, search
from adhere.spec.checks.running import Result, Scene, listed, marked, na, no, yes
from adhere.spec.checks.schemas import compile_schema, first_violation
from adhere.spec.checks.tree import Check, Regex, Value, quoted, render


def contains(check: Check, scene: Scene) -> Result:
    """All the texts occur, or with any=true at least one of them."""
    case = check.get("case") is True
    occurs = [_find(value, scene, case=case) is not None for value in check.args]
    names = [_name(value) for value in check.args]
    if check.get("any") is True:
        if True not in occurs:
            return no(f"none of these occurs: {_joined(names)}")
        return yes(f"{names[occurs.index(True)]} occurs")
    missing = [name for name, found in zip(names, occurs, strict=True) if not found]
    return no(f"missing: {_joined(missing)}") if missing else yes("all the texts occur")


def absent(check: Check, scene: Scene) -> Result:
    """None of the texts and patterns occurs."""
    case = check.get("case") is True
    for value in check.args:
        found = _find(value, scene, case=case)
        if found is not None:
            what = f" (matches {_name(value)})" if isinstance(value, Regex) else ""
            return no(f"{quoted(found)} occurs, which must not{what}")
    return yes("none of the texts to be avoided occurs")


def matches(check: Check, scene: Scene) -> Result:
    """The pattern is found somewhere in the text."""
    found = _find(check.args[0], scene, case=True)
    name = _name(check.args[0])
    if found is None:
        return no(f"nothing matches {name}")
    return yes(f"{quoted(found)} matches {name}")


def starts_with(check: Check, scene: Scene) -> Result:
    """The text begins with one of these, white space aside."""
    return _edge(check, scene, start=True)


def ends_with(check: Check, scene: Scene) -> Result:
    """The text ends with one of these, white space aside."""
    return _edge(check, scene, start=False)


def is_json(check: Check, scene: Scene) -> Result:
    """The whole text is one JSON value, which follows the schema where one is given."""
    text = scene.text.strip()
    if check.get("bare") is not True:
        text = _unfenced(text)
    try:
        value = json.loads(text, parse_constant=_not_json)
    except RecursionError:
        return no("the JSON is nested too deep")
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            return no(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
        return no(f"not JSON: {error}")
    schema = check.get("schema")
    if not isinstance(schema, str):
        return yes("the answer is JSON")
    violation = first_violation(compile_schema(schema), value, scene.limit)
    return no(violation) if violation else yes("the answer is JSON that follows the schema")


def on_topic(check: Check, scene: Scene) -> Result:
    """The text shares content words with the prompt."""
    asked = prose.topics(scene.prompt)
    if not asked:
        return na("the prompt has no content words")
    wanted = check.get("words")
    least = min(wanted if isinstance(wanted, int) else 2, len(asked))
    shared = sorted(asked & prose.topics(scene.text))
    what = f" ({', '.join(shared[:5])})" if shared else ""
    return marked(
        len(shared) >= least,
        f"{len(shared)} of the prompt's content words occur{what}, at least {least} needed",
    )


def not_refusal(_check: Check, scene: Scene) -> Result:
    """The text does not open by declining."""
    if looks_like_refusal(scene.text):
        return no(f"opens like a refusal: {quoted(scene.text, 60)}")
    return yes("does not open like a refusal")


def _find(value: Value, scene: Scene, *, case: bool) -> str | None:
    """The first occurrence of a literal text or pattern."""
    if isinstance(value, Regex):
        return search(compile_regex(value), scene.text, scene.limit)
    return search(literal_pattern(str(value), case=case), scene.text, scene.limit)


def _edge(check: Check, scene: Scene, *, start: bool) -> Result:
    case = check.get("case") is True
    text = scene.text.strip()
    verb = "begin" if start else "end"
    for literal in check.strings:
        pattern = literal_pattern(literal, case=case, start=start, end=not start)
        if search(pattern, text, scene.limit) is not None:
            return yes(f"{verb}s with {quoted(literal)}")
    # The last 40 characters where the end is what matters.
    shown = quoted(text, 40) if start or len(text) <= 40 else f'"...{quoted(text[-37:])[1:]}'
    wanted = listed(check.strings)
    alternatives = " one of" if len(check.strings) > 1 else ""
    return no(f"{verb}s with {shown}; must {verb} with{alternatives} {wanted}")


def _unfenced(text: str) -> str:
    """Take off one code fence around the whole text, which most chat models put there."""
    first, _, rest = text.partition("\n")
    if first.startswith("```") and rest.endswith("```") and "`" not in first[3:]:
        return rest.removesuffix("```").rstrip("`")
    return text


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _name(value: Value) -> str:
    """A value as a reason shows it."""
    if isinstance(value, Regex):
        source = render(value)
        return source if len(source) <= 60 else source[:57] + "..."
    return quoted(str(value))


def _joined(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
