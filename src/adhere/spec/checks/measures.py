"""Built-in checks that count: length, structure, readability."""

from __future__ import annotations

from collections.abc import Callable

from adhere.spec.checks import prose
from adhere.spec.checks.running import Result, Scene, counted, listed, marked, no, yes
from adhere.spec.checks.tree import Check


def count(noun: str, measure: Callable[[str], int]) -> Callable[[Check, Scene], Result]:
    """The check that `measure` lies between the keywords min and max, both included."""

    def run(check: Check, scene: Scene) -> Result:
        found = measure(scene.text)
        low, high = check.get("min"), check.get("max")
        return marked(_within(found, low, high), f"{counted(found, noun)}, {_bounds(low, high)}")

    return run


def lix(check: Check, scene: Scene) -> Result:
    """The readability index lies between min and max."""
    found = prose.lix(scene.text)
    if found is None:
        return no("there are no sentences to read")
    low, high = check.get("min"), check.get("max")
    return marked(_within(found, low, high), f"LIX {found:.1f}, {_bounds(low, high)}")


def headings(check: Check, scene: Scene) -> Result:
    """The wanted headings stand there, each once, in the order given."""
    wanted, level = check.strings, check.get("level")
    found = [
        heading.name
        for heading in prose.outline(scene.text).headings
        if level is None or heading.level == level
    ]
    places = [
        next((i for i, name in enumerate(wanted) if prose.same_name(name, heading)), None)
        for heading in found
    ]
    order = [place for place in places if place is not None]
    sort = f"level-{level} heading" if level is not None else "heading"
    missing = [name for place, name in enumerate(wanted) if place not in order]
    if missing:
        return no(f"{sort} missing: {listed(missing)}")
    twice = [name for place, name in enumerate(wanted) if order.count(place) > 1]
    if twice:
        return no(f"{sort} more than once: {listed(twice)}")
    if order != sorted(order):
        return no(
            f"{sort}s out of order: {listed([wanted[i] for i in order])}; wanted {listed(wanted)}"
        )
    others = [name for name, place in zip(found, places, strict=True) if place is None]
    if check.get("only") is True and others:
        return no(f"other {sort}s than wanted: {listed(others)}")
    return yes(f"{sort}s in order: {listed(wanted)}")


def table(check: Check, scene: Scene) -> Result:
    """There is a table; where columns are named, one has exactly these, in this order."""
    tables, wanted = prose.outline(scene.text).tables, check.strings
    if not tables:
        return no("there is no table")
    if not wanted:
        return yes(counted(len(tables), "table"))
    for columns in tables:
        if len(columns) == len(wanted) and all(map(prose.same_name, wanted, columns)):
            return yes(f"a table with the columns {listed(wanted)}")
    return no(f"the table has the columns {listed(tables[0])}; wanted {listed(wanted)}")


def _within(found: float, low: object, high: object) -> bool:
    return not (
        (isinstance(low, (int, float)) and found < low)
        or (isinstance(high, (int, float)) and found > high)
    )


def _bounds(low: object, high: object) -> str:
    """What min and max ask for, in words."""
    if low is not None and low == high:
        return f"exactly {low} needed"
    if low is not None and high is not None:
        return f"{low} to {high} needed"
    return f"at least {low} needed" if low is not None else f"at most {high} allowed"
