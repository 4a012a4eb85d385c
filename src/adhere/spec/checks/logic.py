"""Built-in checks made of checks.

Marks combine as a person would: one definite NO decides `all`, one definite YES decides `any`,
whatever the others are. Where nothing decides, an undecided part (a regex that ran out of time)
makes the whole undecided. Parts that do not apply are left out; if no part applies, the whole
does not.
"""

from __future__ import annotations

from dataclasses import replace

from adhere.chat import Mark, RuleMark, Unscored
from adhere.spec.checks.running import Result, Scene, na, no, yes
from adhere.spec.checks.tree import Check


def negation(check: Check, scene: Scene) -> Result:
    """YES becomes NO and NO becomes YES; what does not apply still does not."""
    result = scene.run(check.nested[0], scene)
    if isinstance(result, Unscored) or result.mark is Mark.NA:
        return result
    return no(f"not wanted: {result.reason}") if result.mark is Mark.YES else yes(result.reason)


def every(check: Check, scene: Scene) -> Result:
    """All of the parts hold."""
    return _combine(check, scene, deciding=Mark.NO)


def some(check: Check, scene: Scene) -> Result:
    """At least one of the parts holds."""
    return _combine(check, scene, deciding=Mark.YES)


def on_prompt(check: Check, scene: Scene) -> Result:
    """The inner check, on the user's prompt instead of the response."""
    result = scene.run(check.nested[0], replace(scene, text=scene.prompt))
    if isinstance(result, Unscored):
        return result
    return result._replace(reason=f"prompt: {result.reason}")


def when(check: Check, scene: Scene) -> Result:
    """The second check where the first one holds; elsewhere the rule does not apply."""
    condition, then = check.nested
    skipped = unless_holds(scene.run(condition, scene))
    return scene.run(then, scene) if skipped is None else skipped


def unless_holds(condition: Result) -> Result | None:
    """None where a condition came out YES; NA where it did not; undecided where it is."""
    if isinstance(condition, Unscored):
        return condition
    if condition.mark is Mark.YES:
        return None
    return na(f"does not apply ({condition.reason})")


def _combine(check: Check, scene: Scene, *, deciding: Mark) -> Result:
    marks: list[RuleMark] = []
    undecided: Unscored | None = None
    for part in check.nested:
        result = scene.run(part, scene)
        if isinstance(result, Unscored):
            undecided = undecided or result
        elif result.mark is deciding and deciding is Mark.YES:
            return result
        else:
            marks.append(result)
    # For NO all parts are run, so that the reason names everything that must change.
    decisive = [mark for mark in marks if mark.mark is deciding]
    if decisive:
        return no("; ".join(mark.reason for mark in decisive))
    if undecided:
        return undecided
    rest = [mark for mark in marks if mark.mark is not Mark.NA]
    reason = "; ".join(mark.reason for mark in rest or marks)
    if not rest:
        return na(reason)
    return yes(reason) if deciding is Mark.NO else no(reason)
