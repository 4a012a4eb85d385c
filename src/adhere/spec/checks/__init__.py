"""The check language: rules that code can decide.

`parse_check` reads a check, `evaluate` runs it on a text, `decide` runs a rule's check and its
`applies` condition. The grammar is in `syntax.py` and in `docs/checks.md`, what is counted and
how in `prose.py`.
"""

from adhere.spec.checks.language import TIME_LIMIT, decide, evaluate, parse_check
from adhere.spec.checks.refusal import looks_like_refusal
from adhere.spec.checks.tree import Check, CheckSyntaxError, Regex
from adhere.spec.checks.vocabulary import BUILTINS

__all__ = [
    "BUILTINS",
    "TIME_LIMIT",
    "Check",
    "CheckSyntaxError",
    "Regex",
    "decide",
    "evaluate",
    "looks_like_refusal",
    "parse_check",
]
