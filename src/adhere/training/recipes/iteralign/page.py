"""A run of rounds in words and pictures, for the terminal and the page.

No prompt and no answer is shown; rules are, for they are what was written for people. Their texts
are a model's, so they are escaped like everything else, and flagged ones say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from adhere import __version__
from adhere.reporting import formats as f
from adhere.reporting.grid import Cell, Column, Grid, estimate
from adhere.reporting.line_chart import STYLE, Chart, Series, to_svg
from adhere.reporting.templating import asset, content_policy, environment

_MOST_TEXT = 4_000
_MOST_RULES = 200

Summary = Mapping[str, Any]

STATES: Mapping[str, str] = {
    "trained": "a new model",
    "clean": "no failure: nothing was trained",
    "undecided": "nobody could judge any answer",
    "no_rules": "the oracle wrote no rule, and there is none from before",
    "no_pairs": "no revision passed the gate",
    "not_trained": "the training did not come to its end",
    "rolled_back": "the new model stopped talking sense; it is left out",
}


_FOOTNOTES = (
    "A share is over answers with a verdict; those without are counted beside it. Intervals are "
    "95%, by bootstrap over prompts.",
    "Distinct-2 is the share of pairs of words that are different, over all held-out answers: it "
    "falls when a model begins to repeat itself.",
    "The rules were written by a model; constitution.md has those in use. Prompts and answers are "
    "in the rounds' folders; this page shows none.",
)


def render(summary: Summary) -> str:
    """The page as text: equal bytes for equal input. It loads nothing and runs no script."""
    css = asset("report.css") + "\n" + STYLE
    return (
        environment(_MOST_TEXT)
        .get_template("plain.html.jinja")
        .render(
            brand="rounds",
            title=f.one_line(summary["name"], 80),
            headline=headline(summary),
            facts=facts(summary),
            notes=notes(summary),
            charts=[Markup(_unstyled(to_svg(c))) for c in charts(summary)],  # noqa: S704 (ours)
            grids=[grid for grid in grids(summary) if grid.rows],
            footnotes=_FOOTNOTES,
            version=__version__,
            css=Markup(css),  # noqa: S704  (files of this package)
            csp=content_policy(css),
        )
    )


def _unstyled(svg: str) -> str:
    """A chart without its own style element, which the page has once."""
    return svg.replace(f"<style>{STYLE}</style>\n", "")


def headline(summary: Summary) -> str:
    """What came of it in one sentence."""
    rounds = summary["rounds"]
    trained = [one for one in rounds if one["state"] == "trained"]
    rules = sum(rule["status"] == "active" for rule in summary["rules"])
    count, made = len(rounds), len(trained)
    told = (
        f"{f.count(count)} round{'' if count == 1 else 's'}, {f.count(made)} trained; "
        f"{f.count(rules)} rule{'' if rules == 1 else 's'} in use"
    )
    first = (summary["first_look"] or {}).get("bad_rate", {}).get("value")
    last = next(
        (one["look"]["bad_rate"]["value"] for one in reversed(trained) if one.get("look")), None
    )
    if first is not None and last is not None:
        told += f". Bad answers to held-out prompts: {f.share(first)}% before, {f.share(last)}% now"
    return told + "."


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Small facts beside the headline."""
    spent = summary["spent"].values()
    tokens = sum(used["prompt_tokens"] + used["completion_tokens"] for used in spent)
    pool = summary["pool"]
    return [
        ("mode", summary["mode"]),
        ("it ended", summary["ended"] or "not yet"),
        ("pool", f"{f.count(pool['prompts'])} prompts"),
        ("held out", f"{f.count(summary['held_out'])} prompts" if summary["held_out"] else "none"),
        ("edits of a person", f.count(summary["edits"])),
        ("tokens of all calls", f.count(tokens)),
        *(
            [("cost", f"{summary['spent_cost']:.2f} {summary['currency'] or ''}".strip())]
            if summary["spent_cost"]
            else []
        ),
    ]


def notes(summary: Summary) -> list[str]:
    """What the reader must not overlook."""
    out = []
    if summary["stopped"]:
        out.append(f"Not at its end: {f.one_line(summary['stopped'], 400)}")
    if summary["held"]:
        rules = "rule is" if summary["held"] == 1 else "rules are"
        out.append(
            f"{f.count(summary['held'])} {rules} held back, for a text that was red-teamed may "
            "have planted them. Read held.md; a line that is moved into constitution.md is in use."
        )
    sources = [s["id"] for one in summary["rounds"] for s in _flagged(one)]
    if sources:
        shown = ", ".join(f.one_line(name, 40) for name in sources[:8])
        more = f" and {len(sources) - 8} more" if len(sources) > 8 else ""
        out.append(f"These failures speak to the oracle of rules: {shown}{more}.")
    for one in summary["rounds"]:
        if one.get("collapse"):
            why = "; ".join(one["collapse"])
            out.append(f"Round {one['round']} was rolled back: {f.one_line(why, 300)}")
        if one.get("why"):
            out.append(f"Round {one['round']}: {f.one_line(one['why'], 300)}")
    out += [f"{words[0].upper()}{words[1:]}." for words in summary["not_apart"]]
    out += [f"The pool: {f.one_line(note, 200)}." for note in summary["pool"]["notes"]]
    if summary["mode"] == "published":
        out.append(
            "Published mode: revisions are trained on unseen, also those that are still bad, and "
            "nothing watches whether the model still talks sense."
        )
    if not summary["held_out"]:
        out.append("No prompts are held out: failures that go down may be learned by heart.")
    return out


def _flagged(one: Summary) -> list[Any]:
    return list((one.get("rules") or {}).get("flagged_sources", ()))


def grids(summary: Summary) -> list[Grid]:
    """The tables: rounds, rules, and what was spent."""
    return [_rounds(summary), _rules(summary), _spent(summary)]


def _rounds(summary: Summary) -> Grid:
    attacks = any(one.get("attacks") for one in summary["rounds"])
    columns = (
        Column("round", "round", numeric=False),
        Column("state", "state", numeric=False),
        Column("bad", "bad answers"),
        *([Column("attacks", "bad, to the oracle's prompts")] if attacks else []),
        Column("rules", "rules written"),
        Column("novel", "new among them"),
        Column("rows", "revisions kept"),
        Column("look", "bad, held out"),
        Column("distinct", "distinct-2"),
        Column("words", "words"),
    )
    lines: list[tuple[Cell, ...]] = []
    if (first := summary["first_look"]) is not None:
        blank = Cell(f.DASH)
        lines.append(
            (
                Cell("0"),
                Cell("the model as it came"),
                *[blank] * (5 if attacks else 4),
                *_look(first),
            )
        )
    for one in summary["rounds"]:
        found, rules, rows = one["found"], one["rules"], one["rows"]
        of = found["bad"] + found["good"]
        open_ = found["unscored"] + found["failed"]
        note = (f"{f.count(open_)} without a verdict",) if open_ else ()
        share = (rules or {}).get("novel_share")
        lines.append((
            Cell(str(one["round"])),
            Cell(one["state"].replace("_", " "), notes=(STATES[one["state"]],)),
            Cell(f"{f.count(found['bad'])} of {f.count(of)}", notes=note),
            *([_attacked(one.get("attacks"))] if attacks else []),
            Cell(f.count(rules["proposed"]) if rules else f.DASH),
            Cell(f"{f.share(share)}%" if share is not None else f.DASH),
            Cell(f.count(rows["rows"]) if rows else f.DASH),
            *_look(one.get("look")),
        ))  # fmt: skip
    return Grid("Round by round", columns, tuple(lines))


def _attacked(attacks: Summary | None) -> Cell:
    if attacks is None:
        return Cell(f.DASH)
    told = [f"{f.count(attacks['asked_for'])} asked for, {f.count(attacks['new'])} new"]
    lost = {**attacks["none_by_reason"], "failed": attacks["failed"]}
    told += [f"calls {why}: {f.count(count)}" for why, count in lost.items() if count]
    if (found := attacks["found"]) is None:
        return Cell(f.DASH, notes=tuple(told))
    if open_ := found["unscored"] + found["failed"]:
        told.append(f"{f.count(open_)} without a verdict")
    of = found["bad"] + found["good"]
    return Cell(f"{f.count(found['bad'])} of {f.count(of)}", notes=tuple(told))


def _look(look: Summary | None) -> tuple[Cell, ...]:
    if look is None:
        return Cell(f.DASH), Cell(f.DASH), Cell(f.DASH)
    rate, answers = estimate(look["bad_rate"]), look["answers"]
    return rate, Cell(f.score(answers["distinct_2"])), Cell(f.mean_count(answers["words_mean"]))


def _rules(summary: Summary) -> Grid:
    columns = (
        Column("rule", "rule", numeric=False),
        Column("kind", "kind", numeric=False),
        Column("status", "status", numeric=False),
        Column("round", "round"),
        Column("covers", "failures that called for it"),
    )
    rules = summary["rules"]
    lines = tuple(
        (
            Cell(
                f.one_line(rule["rule"], 500),
                notes=tuple(f.one_line(flag, 160) for flag in rule["flags"]),
            ),
            Cell(rule["kind"]),
            Cell(rule["status"] if rule["by"] == "oracle" else f"{rule['status']}, by a person"),
            Cell(str(rule["round"])),
            Cell(f.count(len(rule["covers"]))),
        )
        for rule in rules[:_MOST_RULES]
    )  # fmt: skip
    return Grid("The rules", columns, lines, max(0, len(rules) - _MOST_RULES))


def _spent(summary: Summary) -> Grid:
    phases = list(summary["calls"])
    columns = (
        Column("model", "model", numeric=False),
        *(Column(phase, f"calls: {phase}") for phase in phases),
        Column("prompt_tokens", "prompt tokens"),
        Column("completion_tokens", "completion tokens"),
    )
    lines = tuple(
        (
            Cell(f.one_line(label)),
            *(Cell(f.count(summary["calls"][phase].get(label, 0))) for phase in phases),
            Cell(f.count(used["prompt_tokens"])),
            Cell(f.count(used["completion_tokens"])),
        )
        for label, used in summary["spent"].items()
    )
    return Grid("Spent", columns, lines)


# ---------------------------------------------------------------- pictures


def charts(summary: Summary) -> list[Chart]:
    """Bad answers, and whether the model still talks, round by round."""
    looks = [(0, summary["first_look"])] if summary["first_look"] else []
    looks += [(one["round"], one["look"]) for one in summary["rounds"] if one.get("look")]
    asked = [(one["round"], one["found"]) for one in summary["rounds"]]
    out = []
    lines = [
        Series(name, tuple(rates), tuple(band), dots=True)
        for name, source in (("held-out prompts", looks), ("prompts of the round", asked))
        if (rates := _rates(source)) is not None
        for band in [_bands(source)]
        if rates
    ]
    if lines and len(looks) + len(asked) > 1:
        out.append(
            _chart("bad", "Share of bad answers", "share of bad answers", lines, looks, asked)
        )
    if len(looks) > 1:
        first = looks[0][1]["answers"]
        talk = [
            Series(name, tuple(points), dots=True)
            for key, name in (
                ("distinct_2", "distinct-2"), ("words_mean", "mean length in words"),
                ("compression", "compression ratio"),
            )
            if (points := _relative(looks, key, first[key]))
        ]  # fmt: skip
        if talk:
            title = "Does it still talk? Held-out answers, as a share of round 0"
            out.append(_chart("talk", title, "share of round 0", talk, looks, ()))
    return out


def _chart(
    ident: str,
    title: str,
    y_title: str,
    lines: Sequence[Series],
    looks: Sequence[tuple[int, Any]],
    asked: Sequence[tuple[int, Any]],
) -> Chart:
    numbers = sorted({n for n, _ in looks} | {n for n, _ in asked})
    step = max(1, len(numbers) // 12)
    return Chart(
        title=title,
        desc=f"{title}, from round {numbers[0]} to round {numbers[-1]}.",
        x_title="round",
        y_title=y_title,
        series=lines,
        x_ticks=[(n, str(n)) for n in numbers[::step]],
        ident=ident,
    )


def _rates(source: Sequence[tuple[int, Summary]]) -> list[tuple[float, float]]:
    return [
        (number, one["bad_rate"]["value"])
        for number, one in source
        if one["bad_rate"]["value"] is not None
    ]


def _bands(source: Sequence[tuple[int, Summary]]) -> list[tuple[float, float, float]]:
    return [
        (number, one["bad_rate"]["low"], one["bad_rate"]["high"])
        for number, one in source
        if one["bad_rate"]["low"] is not None
    ]


def _relative(
    looks: Sequence[tuple[int, Summary]], key: str, first: float | None
) -> list[tuple[float, float]]:
    if not first:
        return []
    return [
        (number, one["answers"][key] / first)
        for number, one in looks
        if one["answers"][key] is not None
    ]
