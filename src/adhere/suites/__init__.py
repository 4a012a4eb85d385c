"""Data sets with their scoring: what a model is asked, and how to get one by name.

A suite is loaded only when named. Others can be added by the entry-point group `adhere.suites`:
a class with `name`, `Config` and `load` as in `suites/base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from adhere.errors import BadInput
from adhere.suites.base import Suite, SuiteConfig, SuiteSource
from adhere.suites.prompts_file import load_prompts

BUILT_IN = {
    "specbench": ("adhere.suites.specbench", "SpecBench"),
    "truthfulqa": ("adhere.suites.truthfulqa", "TruthfulQA"),
    "hhh": ("adhere.suites.hhh", "HHH"),
    "safetybench": ("adhere.suites.safetybench", "SafetyBench"),
    "mixeval": ("adhere.suites.mixeval", "MixEval"),
    "strongreject": ("adhere.suites.strongreject", "StrongReject"),
    "dan": ("adhere.suites.dan", "Dan"),
    "wildjailbreak": ("adhere.suites.wildjailbreak", "WildJailbreak"),
    "harmfulqa": ("adhere.suites.red_instruct", "HarmfulQA"),
    "dangerousqa": ("adhere.suites.red_instruct", "DangerousQA"),
    "hh_rlhf": ("adhere.suites.hh_rlhf", "HHRlhf"),
    "xstest": ("adhere.suites.xstest", "XSTest"),
    "gsm8k": ("adhere.suites.gsm8k", "GSM8K"),
    "mmlu": ("adhere.suites.mmlu", "MMLU"),
}

__all__ = [
    "BUILT_IN",
    "Suite",
    "SuiteConfig",
    "SuiteSource",
    "is_multiple_choice",
    "load_prompts",
    "load_suite",
    "measured_by",
    "suite_parts",
]


def load_suite(name: str, /, **options: Any) -> Suite:
    """All cases of a suite as one: its only part, or its parts joined, which have no one spec.

    Raises BadInput for an unknown name, a wrong option, or data that cannot be read.
    """
    parts = suite_parts(name, options)
    if len(parts) == 1:
        return parts[0]
    cases = tuple(case for part in parts for case in part.cases)
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise BadInput(f"suite {name}: two of its parts have the case {case.id!r}")
        seen.add(case.id)
    return Suite(name, cases, source=", ".join(dict.fromkeys(part.source for part in parts)))


def suite_parts(name: str, options: Mapping[str, Any] | None = None) -> list[Suite]:
    """The parts of a suite, each with a spec of its own. Raises BadInput as `load_suite` does."""
    cls = _class(name)
    try:
        config = cls.Config(**(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = ", ".join(cls.Config.model_fields) or "none"
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(
            f"suite {name}: option {place!r}: {message}", hint=f"Its options are: {known}"
        ) from None
    source: SuiteSource = cls(config)
    parts = source.load()
    if not any(part.cases for part in parts):
        raise BadInput(f"suite {name}: found no cases; expected at least one")
    return parts


def is_multiple_choice(name: str) -> bool:
    """Whether a suite has answers to choose among, and no judge. Raises BadInput for no suite."""
    return bool(getattr(_class(name), "multiple_choice", False))


def measured_by(name: str) -> str:
    """What a suite measures: `attack`, `over_refusal` or `utility`; empty where it does not say.

    Raises BadInput for no suite.
    """
    return str(getattr(_class(name), "measures", ""))


def _class(name: str) -> Any:
    found = [ep for ep in entry_points(group="adhere.suites") if ep.name == name]
    if name in BUILT_IN:
        if found:
            raise BadInput(
                f"suite {name!r}: the plugin {found[0].value} has the name of a built-in suite",
                hint="Uninstall the plugin, or ask its author for another name.",
            )
        module, attribute = BUILT_IN[name]
        return getattr(import_module(module), attribute)
    if len(found) > 1:
        raise BadInput(f"suite {name!r}: offered by {' and '.join(ep.value for ep in found)}")
    if found:
        return found[0].load()
    near = get_close_matches(name.lower(), BUILT_IN, 1)
    raise BadInput(
        f"unknown suite {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint="Known suites: " + ", ".join(BUILT_IN),
    )
