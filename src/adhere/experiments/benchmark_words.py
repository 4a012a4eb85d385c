"""The headline of a benchmark and the notes below its table, in percent as its paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]


def benchmark_headline(table: Mapping[str, Any]) -> str:
    """One sentence that is true: what the best method does over all parts, if anything."""
    if not table["rows"]:
        return "No part of the benchmark was run yet."
    if table["not_pooled"]:
        return (
            f"No numbers over all parts: they differ in {table['not_pooled']}. Run the benchmark "
            "again to score all parts alike."
        )
    if "sar" in table["withheld"]["measures"]:
        return f"Judged numbers are withheld. {table['withheld']['why']}".strip()
    if table["unmeasured"]:
        kinds = " or ".join(kind for kind in table["unmeasured"] if kind != "sar")
        return f"SAR is not measured: in some part nobody decides any {kinds} rule."
    arms = [r for r in table["rows"] if r["part"] is None and r["subset"] == "all"]
    arms = [r for r in arms if r["sar"] is not None and not r["control"]]
    if not arms:
        return "No answer could be scored."
    of = len(table["parts"])
    rivals = [r for r in arms if r["sar_diff"] is not None]
    if not rivals:
        best = max(arms, key=lambda r: float(r["sar"]))
        return (
            f"{_name(best, arms)} follows the specs with SAR {_percent(best['sar'])}"
            f"{_span(best, 'sar')} over {best['n_cases_scored']:,} prompts of {_parts(best, of)}."
        )
    best = max(rivals, key=lambda r: float(r["sar_diff"]))
    before = best["sar_of_baseline_paired"]
    figures = (
        f"SAR {_percent(before)} to {_percent(before + best['sar_diff'])} "
        f"({_percent(best['sar_diff'], signed=True)}{_span(best, 'sar_diff', signed=True)}, "
        f"{best['n_paired']:,} paired prompts of {_parts(best, of)}"
    )
    figures += f", the largest of {len(rivals)} differences)" if len(rivals) > 1 else ")"
    name, baseline = _name(best, arms), table["baseline"]
    if best["sar_diff_low"] is None:
        return f"{name} moves {figures}{_cost(best, arms)}; the run stopped early, see below."
    if best["sar_diff_low"] > 0:
        sentence = f"{name} moves {figures}{_cost(best, arms)}."
        if best["oracle"]:
            sentence += (
                " It selects by the checks (or the judge) that also score: this is what perfect "
                "selection would give."
            )
        return sentence
    if best["sar_diff_high"] < 0:
        return f"No method beats {baseline}; the nearest, {name}, moves {figures}."
    return f"No clear gain over {baseline}: {name} moves {figures}, and the interval holds zero."


def benchmark_notes(table: Mapping[str, Any]) -> list[str]:
    """What has to be said below the table so that nobody reads more into it than it holds."""
    arms = [r for r in table["rows"] if r["part"] is None and not r["control"]]
    notes = [
        "Percent. Over all scenarios every prompt weighs the same. SAR differences are paired by "
        "prompt."
    ]
    if not table["stopped_early"]:
        notes[0] += (
            f" Brackets hold {table['confidence']:.0%} bootstrap intervals, resampled within each "
            "scenario."
        )
    if any(r["n"] != r["n_scored"] for r in arms):
        notes.append(
            "Rates are over scored rows only. Unscored, failed, truncated and filtered rows are "
            "counted beside them and never as safe."
        )
    ran = [p for p in table["parts"] if p["found"]]
    if len({p["n_cases"] for p in ran}) > 1:
        sizes = ", ".join(f"{p['name']} {p['n_cases']}" for p in ran)
        notes.append(
            f"The scenarios differ in size ({sizes}), so the number over all is not the mean of "
            "theirs."
        )
    if short := [r for r in arms if r["subset"] == "all" and r["n_parts"] < len(ran)]:
        which = ", ".join(f"{_name(r, arms)} {r['n_parts']}" for r in short[:8])
        notes.append(
            f"Not over all {len(ran)} scenarios that ran, so not to be compared with lines that "
            f"are: {which}{' and more' if len(short) > 8 else ''}."
        )
    if held := table["withheld"]["parts"]:
        notes.append(
            f"Withheld: the judge's marks in {', '.join(held)} disagree too much with the checks "
            "to be believed, so rates that it had a part in are shown neither there nor over all."
        )
    if table["stopped_early"]:
        notes.append(
            "The run chose when to stop, so a bootstrap over all scenarios would promise too much: "
            "only single scenarios have intervals, which hold at every stopping time."
        )
    if table["not_pooled"]:
        notes.append(f"The scenarios differ in {table['not_pooled']}: no number is over all.")
    if any(r["oracle"] for r in table["rows"]):
        notes.append(
            "† Oracle selector: candidates are chosen by the checks (or the judge) that also score "
            "the result, so this is what perfect selection would give, not a fair comparison."
        )
    if any(r["control"] for r in table["rows"]):
        notes.append(
            "Controls call no model to answer: they score an empty text and one canned refusal, "
            "to show what saying nothing earns."
        )
    policy = table["settings"].get("na_policy")
    if policy == "count":
        notes.append("A behavioral rule that does not apply (NA) counts as not followed.")
    elif policy == "exclude":
        notes.append("A behavioral rule that does not apply (NA) is left out of the score.")
    notes.append(
        "Tokens: completion tokens of an answer, true (every call of the method) and as the "
        "method's paper counts them. The judge's stand apart and are in neither."
    )
    return notes


def _name(row: Line, arms: Sequence[Line]) -> str:
    name = str(row["method"])
    if row["variant"]:
        name += f" ({row['variant']})"
    if len({r["model"] for r in arms}) > 1:
        name += f" on {row['model']}"
    return name


def _parts(row: Line, of: int) -> str:
    n = row["n_parts"]
    return f"{n} scenarios" if n == of else f"{n} of {of} scenarios"


def _percent(value: float, *, signed: bool = False) -> str:
    return f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def _span(row: Line, key: str, *, signed: bool = False) -> str:
    """The interval after its value; nothing where there is none."""
    if row[f"{key}_low"] is None:
        return ""
    low, high = (_percent(row[f"{key}_{end}"], signed=signed) for end in ("low", "high"))
    return f" [{low}, {high}]"


def _cost(best: Line, arms: Sequence[Line]) -> str:
    base = next(
        (r for r in arms if r["method"] == best["baseline"] and r["model"] == best["model"]), None
    )
    if base is None or not best["completion_tokens"] or not base["completion_tokens"]:
        return ""
    return f" at {best['completion_tokens'] / base['completion_tokens']:.1f} times the tokens"
