"""Which rules each method fixes and which it breaks: a picture for the page, a table to print.

Rules that a judge decided whose numbers are withheld are left out, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adhere.reporting import formats as f
from adhere.reporting.grid import varying
from adhere.reporting.withheld import is_withheld, who_decided

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HALF = 60  # units of the picture on either side of 0
_NAMED = 12  # rules named in a sentence before the rest is counted

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A diverging bar: shares broken and fixed, and the difference with its interval.

    All in units from 0 to the right; what goes left is negative.
    """

    broken: float
    fixed: float
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class ChangeRow:
    """One rule that changed under a method."""

    rule: str
    text: str
    fixed: str
    broken: str
    of: str
    note: str
    diff: str
    interval: str
    verdict: str
    sure: bool
    picture: Picture | None


@dataclass(frozen=True)
class MethodChanges:
    """One method against the baseline. `still`: the rules of which no answer changed."""

    method: str
    baseline: str
    where: str
    fixes: tuple[str, ...]
    breaks: tuple[str, ...]
    rows: tuple[ChangeRow, ...]
    still: str


@dataclass(frozen=True)
class ChangesView:
    """The section. `scale` is the share at either end of every picture.

    `tests` of rules were made, of which `by_chance` may look like a change; `sure` ones hold with
    all counted. `early`: the run chose its size by its own numbers. `withheld`: rules left out.
    """

    methods: tuple[MethodChanges, ...]
    scale: float
    tests: int
    sure: int
    by_chance: float
    oracle: bool
    repeated: bool
    early: bool
    withheld: str
    left_out: int


def changes_view(summary: Mapping[str, Any], max_rows: int = 400) -> ChangesView | None:
    """The section, or None for a run without a baseline or one that knows no such numbers."""
    entries = f.objects(summary.get("rule_changes"))
    if not entries:
        return None
    believed, withheld = _believed(summary, entries)
    tests = [e for e in believed if f.number(e, "p") is not None]
    changed = [e for e in believed if f.number(e, "fixed") or f.number(e, "broken")]
    shown = _shown(changed, max_rows)
    scale = _scale(shown)
    named = varying(entries)
    texts = {
        r.get("id"): str(r.get("text") or "")
        for r in f.objects(f.mapping(summary.get("spec")).get("rules"))
    }
    arms = {_arm(r): r for r in f.objects(summary.get("rows")) if r.get("subset", "all") == "all"}
    methods = []
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in believed:
        groups.setdefault(_arm(entry), []).append(entry)
    kept = {id(e) for e in shown}
    for arm, own in groups.items():
        rows = sorted(
            (e for e in own if id(e) in kept), key=lambda e: -(f.number(e, "diff") or 0.0)
        )
        still = [_rule(e) for e in own if not (f.number(e, "fixed") or f.number(e, "broken"))]
        methods.append(
            MethodChanges(
                f.method_label(arms.get(arm, own[0])),
                f.one_line(own[0].get("baseline") or "the baseline", 60),
                ", ".join(f.one_line(own[0].get(key) or f"no {key}", 60) for key in named),
                tuple(_rule(e) for e in rows if e.get("verdict") == "fixes"),
                tuple(_rule(e) for e in reversed(rows) if e.get("verdict") == "breaks"),
                tuple(_row(e, texts.get(e.get("rule"), ""), scale) for e in rows),
                _listed(still),
            )
        )
    return ChangesView(
        tuple(methods),
        scale,
        len(tests),
        sum(e.get("sure") is True for e in tests),
        0.05 * len(tests),
        any(arms.get(arm, {}).get("oracle") for arm in groups),
        any(f.number(e, "n_cases") != f.number(e, "n_paired") for e in believed),
        isinstance(summary.get("until_ci"), Mapping),
        withheld,
        len(changed) - len(shown),
    )


def _believed(summary: Mapping[str, Any], entries: list[Entry]) -> tuple[list[Entry], str]:
    """The entries that may be shown, and the rules that may not, by name."""
    if not is_withheld(summary):
        return entries, ""
    rules = {r.get("id"): r for r in f.objects(f.mapping(summary.get("spec")).get("rules"))}
    who: dict[tuple[Any, Any], str] = {}
    for entry in entries:
        key = entry.get("suite"), entry.get("rule")
        if key not in who:
            who[key] = who_decided(summary, rules.get(key[1], {"id": key[1]}), key[0])
    kept = [e for e in entries if who[e.get("suite"), e.get("rule")] == "check"]
    gone = dict.fromkeys(f.one_line(rule, 80) for (_, rule), by in who.items() if by != "check")
    return kept, _listed(list(gone))


def _shown(changed: list[Entry], most: int) -> list[Entry]:
    """At most so many: those with a verdict first, then by how much they moved."""

    def weight(entry: Entry) -> tuple[bool, bool, float]:
        moved = abs(f.number(entry, "diff") or 0.0)
        return entry.get("sure") is not True, not entry.get("verdict"), -moved

    return changed if len(changed) <= most else sorted(changed, key=weight)[:most]


def _scale(entries: Sequence[Entry]) -> float:
    """The share at the ends of the pictures: the least round one that holds all of them."""
    most = 0.0
    for entry in entries:
        n = f.number(entry, "n_paired") or 0.0
        if n > 0:
            most = max(most, *((f.number(entry, key) or 0.0) / n for key in ("fixed", "broken")))
        ends = (f.number(entry, f"diff_{end}") for end in ("low", "high"))
        most = max(most, *(abs(end or 0.0) for end in ends))
    steps = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
    return next((step for step in steps if most <= step), 1.0)


def _row(entry: Entry, text: str, scale: float) -> ChangeRow:
    fixed, broken, n = (f.number(entry, key) or 0.0 for key in ("fixed", "broken", "n_paired"))
    value, low, high = (f.number(entry, key) for key in ("diff", "diff_low", "diff_high"))
    picture = None

    def unit(share: float) -> float:
        return round(HALF * min(max(share / scale, -1.0), 1.0), 1)

    if n > 0 and value is not None and low is not None and high is not None:
        picture = Picture(unit(-broken / n), unit(fixed / n), unit(value), unit(low), unit(high))
    apart = f.number(entry, "na_changes")
    verdict = entry.get("verdict")
    return ChangeRow(
        _rule(entry),
        f.one_line(text, 240),
        f.count(fixed),
        f.count(broken),
        f.count(n),
        f"{f.count(apart)} applied to one only" if apart else "",
        f.difference(value),
        f.interval(low, high, signed=True),
        str(verdict) if verdict in ("fixes", "breaks") else "",
        entry.get("sure") is True,
        picture,
    )


def _arm(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row.get("suite")), str(row.get("model")), str(row.get("method"))


def _rule(entry: Entry) -> str:
    return f.one_line(entry.get("rule") or "?", 80)


def _listed(names: Sequence[str]) -> str:
    more = f" and {f.count(len(names) - _NAMED)} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


# ---------------------------------------------------------------- terminal


def changes_table(summary: Mapping[str, Any], width: int = 100) -> RichTable | None:
    """The rules that a method fixes or breaks, for a terminal; None where there is no such rule.

    Only changes that are larger than their own uncertainty; `!` marks those that stay so when all
    tests of the run are counted. The page has the rest.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    view = changes_view(summary, max_rows=10**9)
    told = [(m, r) for m in view.methods for r in m.rows if r.verdict] if view else []
    if view is None or not told:
        return None
    out = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    room = max(width - 62, 18)
    columns = (
        ("method", "left", room // 2), ("rule", "left", room - room // 2), ("", "left", 8),
        ("fixed", "right", 6), ("broken", "right", 6), ("of", "right", 6),
        ("rate moved", "right", 24),
    )  # fmt: skip
    for title, side, wide in columns:
        out.add_column(title, justify=side, width=wide, overflow="fold")  # type: ignore[arg-type]
    last = ""
    for method, row in told:
        name = method.method + (f"\n{method.where}" if method.where else "")
        out.add_row(
            Text("" if name == last else name),
            Text(row.rule),
            Text(
                row.verdict + (" !" if row.sure else ""),
                style="red" if row.verdict == "breaks" else "green",
            ),
            *(Text(value) for value in (row.fixed, row.broken, row.of)),
            Text.assemble(row.diff, " ", (row.interval, "dim")),
        )
        last = name
    within = sum(not row.verdict for method in view.methods for row in method.rows)
    rest = [f"{within:,} more moved within their uncertainty."] if within else []
    if any(row.sure for _, row in told):
        rest.append(f"! stays so with all {view.tests:,} tests counted.")
    if view.withheld:
        rest.append(f"Left out, for its judge is not believed: {view.withheld}.")
    out.caption = Text(" ".join(rest), style="dim")
    out.caption_justify = "left"
    return out
