"""The written spec: its objects, its files, its checks, and what changed between two of them.

    spec = load_spec("spec.md")
    for rule in spec.rules:
        print(rule.id, decide(rule, response, prompt))

Importing this package is light; what a reader or a check needs is imported when it is used.
"""

from adhere.spec.checks import (
    Check,
    CheckSyntaxError,
    decide,
    evaluate,
    looks_like_refusal,
    parse_check,
)
from adhere.spec.diff import SpecDiff, diff_specs
from adhere.spec.formats import (
    FORMATS,
    Format,
    load_spec,
    read_spec,
    specbench_losses,
    write_markdown,
    write_scenario,
    write_specbench,
    write_yaml,
)
from adhere.spec.model import Kind, Rule, Specification, derive_id

__all__ = [
    "FORMATS",
    "Check",
    "CheckSyntaxError",
    "Format",
    "Kind",
    "Rule",
    "SpecDiff",
    "Specification",
    "decide",
    "derive_id",
    "diff_specs",
    "evaluate",
    "load_spec",
    "looks_like_refusal",
    "parse_check",
    "read_spec",
    "specbench_losses",
    "write_markdown",
    "write_scenario",
    "write_specbench",
    "write_yaml",
]
