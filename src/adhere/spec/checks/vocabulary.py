"""The closed vocabulary: which checks there are and which arguments each takes.

Every call is verified when the spec is read, so that a check which was read can be run. Names
not found here are looked up among the plugins: installed packages may offer checks in the
entry-point group `adhere.checks` (`find_plugin`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from adhere.errors import BadInput
from adhere.spec.checks import contents, logic, measures, prose
from adhere.spec.checks.regexes import PatternError, compile_regex
from adhere.spec.checks.running import Result, Scene
from adhere.spec.checks.schemas import SchemaError, compile_schema
from adhere.spec.checks.tree import Call, Check, Regex, Value, near, quoted

PLUGIN_GROUP = "adhere.checks"

# What a person calls each sort of value.
_KINDS = {
    "string": 'a "string"',
    "regex": "a /regex/",
    "check": "a check",
    "count": "a whole number",
    "number": "a number",
    "flag": "true or false",
}


@dataclass(frozen=True)
class Builtin:
    """One built-in check: how to run it, what it takes, and an example for error messages."""

    name: str
    example: str
    run: Callable[[Check, Scene], Result]
    values: tuple[str, ...] = ()
    least: int = 0
    most: int | None = None
    keywords: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # at least one of these keywords


_BOUNDS = {"min": "count", "max": "count"}
_TEXTS = ("string", "regex")


def _counting(name: str, noun: str, measure: Callable[[str], int]) -> Builtin:
    return Builtin(
        name,
        f"{name}(max=3)",
        measures.count(noun, measure),
        keywords=_BOUNDS,
        needs=("min", "max"),
    )


def _combining(name: str, run: Callable[[Check, Scene], Result], count: int | None) -> Builtin:
    inner = "words(max=150)"
    example = f"{name}({inner})" if count == 1 else f"{name}({inner}, absent(/\\d/))"
    return Builtin(name, example, run, ("check",), least=count or 1, most=count)


BUILTINS: dict[str, Builtin] = {
    builtin.name: builtin
    for builtin in (
        _counting("words", "word", prose.words),
        _counting("sentences", "sentence", prose.sentences),
        _counting("characters", "character", prose.characters),
        _counting("bullets", "bullet", lambda text: prose.outline(text).bullets),
        Builtin(
            "lix",
            "lix(max=40)",
            measures.lix,
            keywords={"min": "number", "max": "number"},
            needs=("min", "max"),
        ),
        Builtin(
            "headings",
            'headings("Overview", "Next step")',
            measures.headings,
            ("string",),
            least=1,
            keywords={"level": "count", "only": "flag"},
        ),
        Builtin("table", 'table("Drug", "Use")', measures.table, ("string",)),
        Builtin(
            "contains",
            'contains("doctor", "pharmacist", any=true)',
            contents.contains,
            _TEXTS,
            least=1,
            keywords={"any": "flag", "case": "flag"},
        ),
        Builtin(
            "absent",
            'absent("cure", /\\d+ mg/i)',
            contents.absent,
            _TEXTS,
            least=1,
            keywords={"case": "flag"},
        ),
        Builtin("matches", "matches(/\\d{4}/)", contents.matches, ("regex",), least=1, most=1),
        Builtin(
            "starts_with",
            'starts_with("Hello")',
            contents.starts_with,
            ("string",),
            least=1,
            keywords={"case": "flag"},
        ),
        Builtin(
            "ends_with",
            'ends_with("Stay safe.")',
            contents.ends_with,
            ("string",),
            least=1,
            keywords={"case": "flag"},
        ),
        Builtin(
            "json",
            "json()",
            contents.is_json,
            most=0,
            keywords={"schema": "string", "bare": "flag"},
        ),
        Builtin(
            "on_topic",
            "on_topic(words=2)",
            contents.on_topic,
            most=0,
            keywords={"words": "count"},
        ),
        Builtin("not_refusal", "not_refusal()", contents.not_refusal, most=0),
        _combining("not", logic.negation, 1),
        _combining("all", logic.every, None),
        _combining("any", logic.some, None),
        _combining("prompt", logic.on_prompt, 1),
        _combining("when", logic.when, 2),
    )
}


def verify(call: Call) -> None:
    """Raise CheckSyntaxError where a call is none of the vocabulary's."""
    check = call.check
    builtin = BUILTINS.get(check.name)
    if builtin is None:
        _verify_plugin(call)
        return
    hint = f"Example: {builtin.example}"
    for position, value in zip(call.args_at, check.args, strict=True):
        _verify_value(call, builtin, position, value, hint)
    count = len(check.args)
    if count < builtin.least or (builtin.most is not None and count > builtin.most):
        call.refuse(call.at, f"{check.name} with {_values(count)}", _wanted(builtin), hint)
    for name, value in check.keywords:
        _verify_keyword(call, builtin, name, value, hint)
    given = [name for name, _ in check.keywords]
    if builtin.needs and not set(builtin.needs) & set(given):
        wanted = " or ".join(f"{name}=" for name in builtin.needs)
        call.refuse(call.at, f"{check.name} without a limit", wanted, hint)
    low, high = check.get("min"), check.get("max")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
        call.refuse(call.keywords_at["min"], f"min={low} above max={high}", "min to be at most max")


@cache
def find_plugin(name: str) -> Callable[..., Any] | None:
    """The check that an installed package offers under exactly this name, or None.

    A plugin is a function `(text, prompt, *values, **keywords) -> RuleMark | Unscored`; a regex
    arrives as `Regex`. Raises BadInput where two packages offer the name, one takes a built-in's
    name, or the plugin cannot be loaded.
    """
    from importlib.metadata import entry_points

    offered = entry_points(group=PLUGIN_GROUP)
    clash = next((point for point in offered if point.name in BUILTINS), None)
    found = [point for point in offered if point.name == name]
    clash = clash or (found[1] if len(found) > 1 else None)
    if clash:
        raise BadInput(
            f'the plugin {clash.value} offers a check named "{clash.name}", '
            "and there is one of that name already",
            hint="Uninstall one of the packages, or have its author rename the check.",
        )
    if not found:
        return None
    try:
        plugin = found[0].load()
    except Exception as error:
        raise BadInput(
            f'the check "{name}" of the plugin {found[0].value} cannot be loaded: {error!r:.200}',
            hint="Reinstall or uninstall the package that offers it.",
        ) from error
    if not callable(plugin):
        raise BadInput(f'the check "{name}" of the plugin {found[0].value} is no function')
    return plugin  # type: ignore[no-any-return]


def _verify_plugin(call: Call) -> None:
    import inspect

    check = call.check
    plugin = find_plugin(check.name)
    if plugin is None:
        call.refuse(
            call.at,
            f"the unknown check {quoted(check.name)}",
            f"one of {', '.join(sorted(BUILTINS))}",
            near(check.name, BUILTINS),
        )
    try:
        inspect.signature(plugin).bind("", "", *check.args, **dict(check.keywords))
    except (TypeError, ValueError) as error:
        call.refuse(call.at, f"{check.name} with other arguments than it takes", str(error))
    for position, value in zip(call.args_at, check.args, strict=True):
        _verify_regex(call, position, value)


def _verify_value(call: Call, builtin: Builtin, position: int, value: Value, hint: str) -> None:
    name = call.check.name
    if _kind(value) not in builtin.values:
        if not builtin.values:
            if _kind(value) == "number" and "max" in builtin.keywords:
                hint = f"Write {name}(max={value}), or min= for the least."
            call.refuse(position, _shown(value), f"{_wanted(builtin)} in {name}", hint)
        wanted = " or ".join(_KINDS[kind] for kind in builtin.values)
        call.refuse(position, _shown(value), f"{wanted} in {name}", hint)
    if isinstance(value, str):
        if not value.strip():
            call.refuse(position, "an empty text", f"a text to look for in {name}", hint)
        # These compare names by what is left of them without markup.
        if builtin.name in ("headings", "table"):
            if not prose.plain(value):
                call.refuse(position, quoted(value), f"a name in {name}", hint)
            same = [v for v in call.check.strings if prose.plain(v) == prose.plain(value)]
            if builtin.name == "headings" and len(same) > 1:
                call.refuse(position, f"{quoted(value)} twice", "each heading once", hint)
    _verify_regex(call, position, value)


def _verify_regex(call: Call, position: int, value: Value) -> None:
    if not isinstance(value, Regex):
        return
    try:
        compile_regex(value)
    except PatternError as error:
        # The offset counts in the pattern after its "/"; an escaped slash before it shifts it
        # by one, which is near enough for a caret.
        at = min(position + 1 + error.offset, len(call.source))
        call.refuse(at, f"a regex that cannot be used: {error}", "a regex within the limits")


def _verify_keyword(call: Call, builtin: Builtin, name: str, value: Value, hint: str) -> None:
    position = call.keywords_at[name]
    kind = builtin.keywords.get(name)
    if kind is None:
        if not builtin.keywords:
            expected = f"no keywords in {builtin.name}"
        else:
            expected = f"one of {', '.join(f'{key}=' for key in builtin.keywords)}"
        call.refuse(
            position,
            f"the unknown keyword {quoted(name)}",
            expected,
            near(name, builtin.keywords) or hint,
        )
    fits = {
        "count": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, (int, float)) and not isinstance(value, bool),
        "flag": isinstance(value, bool),
        "string": isinstance(value, str),
    }
    if not fits[kind]:
        call.refuse(position, f"{name}= with {_shown(value)}", f"{name}= with {_KINDS[kind]}", hint)
    if name == "level" and not (isinstance(value, int) and 1 <= value <= 6):
        call.refuse(position, f"level={value}", "a level from 1 to 6", hint)
    if builtin.name == "on_topic" and value == 0:
        call.refuse(position, "words=0", "at least 1", hint)
    if name == "schema" and isinstance(value, str):
        try:
            compile_schema(value)
        except SchemaError as error:
            call.refuse(position, str(error), "a JSON schema of Draft 2020-12 in one string")


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Regex):
        return "regex"
    return "check" if isinstance(value, Check) else "number"


def _shown(value: Value) -> str:
    if isinstance(value, Check):
        return f"the check {value.name[:40]}(...)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a /regex/" if isinstance(value, Regex) else f"the text {quoted(value)}"


def _values(count: int) -> str:
    return "no values" if count == 0 else "one value" if count == 1 else f"{count} values"


def _wanted(builtin: Builtin) -> str:
    if not builtin.values:
        keywords = ", ".join(f"{name}=" for name in builtin.keywords)
        return f"only the keywords {keywords}" if keywords else "nothing between the brackets"
    kinds = " or ".join(_KINDS[kind] for kind in builtin.values)
    if builtin.least == builtin.most:
        return f"exactly {_values(builtin.least)}: {kinds}"
    return f"at least {_values(builtin.least)}: {kinds}"
