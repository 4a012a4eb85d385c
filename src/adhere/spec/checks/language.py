"""Reading and running checks: `parse_check`, `evaluate`, `decide`."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from adhere.chat import RuleMark, Unscored
from adhere.spec.checks import logic
from adhere.spec.checks.regexes import OutOfTime
from adhere.spec.checks.running import Result, Scene
from adhere.spec.checks.syntax import parse
from adhere.spec.checks.tree import Check
from adhere.spec.checks.vocabulary import BUILTINS, find_plugin, verify
from adhere.spec.model import Rule

TIME_LIMIT = 0.25  # seconds for one regex search or one JSON schema


@lru_cache(maxsize=2048)
def parse_check(source: str) -> Check:
    """Read a check. Raises CheckSyntaxError (a ValueError) that says where and what is allowed.

    Patterns are compiled and JSON schemas read here, so a check that was read can be run.
    Raises BadInput where the check is a plugin's and the plugin is broken.
    """
    return parse(source, verify)


def evaluate(
    check: Check, text: str, prompt: str = "", *, limit: float = TIME_LIMIT
) -> RuleMark | Unscored:
    """Decide a check on a text: YES, NO or NA with a reason of a few words, or Unscored.

    `prompt` is the user's text, for the checks that look at it. `limit` is in seconds, for each
    regex search; a search that takes longer leaves the check undecided. Texts are compared in
    Unicode's composed form (NFC).
    """
    scene = Scene(
        unicodedata.normalize("NFC", text), unicodedata.normalize("NFC", prompt), limit, _run
    )
    return _run(check, scene)


def decide(
    rule: Rule, text: str, prompt: str = "", *, limit: float = TIME_LIMIT
) -> RuleMark | Unscored:
    """Decide a rule by its check. NA where its `applies` does not hold.

    A rule without a check that does apply is for a judge: it is Unscored here, never passed.
    """
    if rule.applies is not None:
        condition = evaluate(parse_check(rule.applies), text, prompt, limit=limit)
        skipped = logic.unless_holds(condition)
        if skipped is not None:
            return skipped
    if rule.check is None:
        return Unscored("the rule has no check; a judge decides it")
    return evaluate(parse_check(rule.check), text, prompt, limit=limit)


def _run(check: Check, scene: Scene) -> Result:
    """Run one call, built in or a plugin's."""
    builtin = BUILTINS.get(check.name)
    if builtin is None:
        return _run_plugin(check, scene)
    try:
        return builtin.run(check, scene)
    except OutOfTime:
        shown = check.source if len(check.source) <= 80 else check.source[:77] + "..."
        return Unscored(f"{shown} timed out after {scene.limit:g} s")


def _run_plugin(check: Check, scene: Scene) -> Result:
    plugin = find_plugin(check.name)
    if plugin is None:
        return Unscored(f"the check {check.name} is not installed")
    # A plugin is foreign code: what it raises is its own failure, and never a pass.
    try:
        result = plugin(scene.text, scene.prompt, *check.args, **dict(check.keywords))
    except Exception as error:
        return Unscored(f"the check {check.name} failed: {error!r:.200}")
    if isinstance(result, (RuleMark, Unscored)):
        return result
    return Unscored(f"the check {check.name} gave {result!r:.80}, which is no mark")
