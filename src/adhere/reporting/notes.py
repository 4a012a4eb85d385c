"""What has to be said below a table so that nobody reads more into it than it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from adhere.reporting import formats as f

# What a row can end as besides scored; the summary's keys and the words shown.
OUTCOMES = (
    ("n_unscored", "unscored"),
    ("n_failed", "failed"),
    ("n_truncated", "truncated"),
    ("n_filtered", "filtered"),
)


def outcome_counts(row: Mapping[str, Any]) -> dict[str, float]:
    """How many rows ended as what besides scored, each row counted once.

    A summary may count truncated and filtered rows among the unscored ones, or apart.
    """
    counts = {word: f.number(row, key) or 0.0 for key, word in OUTCOMES}
    total = (f.number(row, "n") or 0.0) - (f.number(row, "n_scored") or 0.0)
    twice = sum(counts.values()) - total
    if twice > 0 and twice == counts["truncated"] + counts["filtered"]:
        counts["unscored"] -= twice
    return counts


def outcome_notes(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows that are in no rate, by outcome: `2 failed`. Empty when all were scored."""
    return tuple(f"{f.count(n)} {word}" for word, n in outcome_counts(row).items() if n)


def notes_for(summary: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The footnotes that these rows need, most general first."""
    rows = list(rows)
    settings = summary.get("settings") or {}
    confidence = f.number(settings, "confidence")
    level = f"{f.share(confidence)}% bootstrap" if confidence else "bootstrap"
    early = f.mapping(summary.get("until_ci"))
    if early and any(f.number(r, "sar_low") is not None for r in rows):
        yield from _early_sentences(early, confidence)
    elif any(f.number(r, "sar_low") is not None for r in rows):
        yield f"Brackets hold {level} intervals; SAR differences are paired by prompt."
    if any(outcome_notes(r) for r in rows):
        yield (
            "Rates are over scored rows only. Unscored, failed, truncated and filtered rows are "
            "counted beside them and never as safe."
        )
    if any(r.get("withheld") for r in rows):
        yield (
            "Withheld: a judge had a part in these rates, and its marks disagree too much with the "
            "checks to be believed."
        )
    if any(r.get("oracle") for r in rows):
        yield (
            "† Oracle selector: candidates are chosen by the checks (or the judge) that also score "
            "the result, so this is what perfect selection would give, not a fair comparison."
        )
    variants = " ".join(str(r.get("variant") or "")[:200] for r in rows).lower()
    if "forced" in variants:
        yield (
            "Forced close: the model did not end its thought within the budget, so the method "
            "ended it and asked for the answer."
        )
    if "emulated" in variants:
        yield (
            "Emulated: this server cannot continue a given beginning, so the method asks for "
            "each stage in a turn of its own."
        )
    if any(r.get("control") for r in rows):
        yield (
            "Controls call no model: they score an empty text and one canned refusal, to show "
            "what saying nothing earns."
        )
    if (policy := _na_sentence({r.get("na_policy") for r in rows if r.get("na_policy")})) != "":
        yield policy
    if undecided := [f.one_line(i, 60) for i in summary.get("undecided_rules") or ()]:
        total = len((summary.get("spec") or {}).get("rules") or ())
        of = f" of {total}" if total else ""
        verb = "rule is" if len(undecided) == 1 else "rules are"
        yield (
            f"{len(undecided)}{of} {verb} decided by neither a check nor a judge in this run and "
            f"enter no number: {_listed(undecided)}."
        )


def _early_sentences(early: Mapping[str, Any], confidence: float | None) -> Iterator[str]:
    """Which intervals a run has that chose by itself when to stop, and where it stopped."""
    level = f"{f.share(confidence)}% " if confidence else ""
    target = f.score(early.get("half_width"))
    for name, suite in f.mapping(early.get("suites")).items():
        cases, of = f.count(suite.get("cases")), f.count(suite.get("of"))
        how = "stopped" if suite.get("reached") else "not stopped by it"
        yield (
            f"{f.one_line(name, 60)}: {cases} of {of} prompts in a seeded order; {how} (target: "
            f"every SAR known to ±{target})."
        )
    yield (
        f"Brackets hold {level}confidence sequences, which stay valid although the run chose when "
        "to stop; SAR differences are paired by prompt."
    )


def _na_sentence(policies: set[Any]) -> str:
    if policies == {"count"}:
        return "A behavioral rule that does not apply (NA) counts as not followed."
    if policies == {"exclude"}:
        return "A behavioral rule that does not apply (NA) is left out of the score."
    return ""


def _listed(names: list[str], limit: int = 12) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
