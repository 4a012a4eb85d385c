"""Stopping early: a run goes through the cases in blocks until every method's SAR is known well.

The intervals are confidence sequences (`experiments/sequential.py`): they hold at every sample
size at once, so looking after each block and stopping when they are narrow costs no coverage. The
order of the cases is seeded, and a block is looked at only when it is whole; neither depends on
what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adhere.chat import Outcome
from adhere.experiments.answering import NOT_JUDGED
from adhere.experiments.inputs import Inputs
from adhere.experiments.metrics import LEVEL
from adhere.experiments.scorer import Row, Scorer
from adhere.experiments.sequential import Sequence as ConfidenceSequence
from adhere.experiments.sequential import blocks, looked_at, shuffled
from adhere.records import RunFolder
from adhere.records.run_folder import Key

_AIM = "until_ci aim"
METHOD = "hedged betting confidence sequence (Waudby-Smith and Ramdas, 2024)"


def aim_of(inputs: Inputs, folder: RunFolder) -> float | None:
    """The half width that a run's intervals bet on: the first one that it was given.

    Another target later moves where the run stops, but never the bets: they must not be chosen
    by what was found.
    """
    half_width = inputs.plan.stop.half_width
    if half_width is None:
        return None
    if (first := folder.get_fact(_AIM)) is None:
        folder.put_fact(_AIM, half_width)
        return half_width
    return float(first)


def wanted(inputs: Inputs, known: Mapping[Key, Row], aim: float | None) -> list[Key]:
    """The rows that a run with an early stop is to have, as far as its rows tell by now.

    All up to the first block that is not whole, or at which the target was reached. Empty for a
    run without such a stop. `aim`: see `aim_of`.
    """
    if aim is None:
        return []
    chosen = {suite: set(found["cases"]) for suite, found in _progress(inputs, known, aim).items()}
    return [key for key in inputs.row_keys() if key[1] in chosen[key[0]]]


def early_stop(
    inputs: Inputs, known: Mapping[Key, Row], aim: float | None
) -> dict[str, Any] | None:
    """What the summary says of an early stop; None where none was asked for."""
    if aim is None:
        return None
    return {
        "half_width": inputs.plan.stop.half_width,
        "aim": aim,
        "level": LEVEL,
        "method": METHOD,
        "suites": _progress(inputs, known, aim),
    }


def with_sequences(
    table: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    scorer: Scorer,
    early: Mapping[str, Any],
) -> None:
    """Give the lines of a table the intervals that hold although the run chose when to stop.

    `early`: as `early_stop` gives it. Controls keep theirs: they are a sample of their own.
    """
    aim = early["aim"]
    measures = ("safety", "behavioral", "sar")
    for line in table:
        if line["control"]:
            continue
        suite = early["suites"].get(line["suite"])
        if suite is None:  # of an earlier start, which did not stop early
            continue
        order, most = suite["looked_at"], suite["of"]
        ours = scorer.columns(_of(rows, line, line["method"]))
        for measure, column in zip(measures, ours, strict=True):
            low, high = sequential_interval(column, order, aim, most)
            line.update({f"{measure}_low": low, f"{measure}_high": high})
        if line["baseline"]:
            base = scorer.columns(_of(rows, line, line["baseline"]))[2]
            apart = {
                case: [_mean(ours[2][case]) - _mean(base[case])]
                for case in ours[2].keys() & base.keys()
            }
            low, high = sequential_interval(apart, order, aim, most, lowest=-1.0)
            line.update({"sar_diff_low": low, "sar_diff_high": high})


def looked_at_rows(rows: Sequence[Row], early: Mapping[str, Any] | None) -> list[Row]:
    """The rows that the table is of: without those of a block that is not whole yet.

    Those that finish first are no random part of it. Before the first whole block: all there are.
    """
    if early is None:
        return list(rows)
    whole = {name: set(found["looked_at"]) for name, found in early["suites"].items()}
    return [
        row for row in rows if not whole.get(row["suite"]) or row["case"] in whole[row["suite"]]
    ]


def _of(rows: Sequence[Row], line: Mapping[str, Any], method: str) -> list[Row]:
    """The rows of a line's suite, subset and model, and of a method."""
    return [
        row
        for row in rows
        if row["suite"] == line["suite"]
        and row["model"] == line["model"]
        and row["method"] == method
        and line["subset"] in ("all", row["label"])
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _progress(inputs: Inputs, known: Mapping[Key, Row], aim: float) -> dict[str, dict[str, Any]]:
    """By suite: the cases to have and those looked at, in order, and whether the target is reached.

    Where more blocks are whole than the stop needed (an earlier start wanted more), all of them are
    looked at: the intervals hold there too, and the numbers are of the same rows.
    """
    half_width = inputs.plan.stop.half_width
    assert half_width is not None
    scorer = inputs.scorer()
    keys: dict[str, dict[str, list[Key]]] = {}
    for key in inputs.row_keys():
        keys.setdefault(key[0], {}).setdefault(key[1], []).append(key)
    out: dict[str, dict[str, Any]] = {}
    for suite, by_case in keys.items():
        order = shuffled(list(by_case), inputs.plan.sampling.seed)
        reached = False
        cases: list[str] = []
        whole: list[str] = []
        for end in blocks(len(order)):
            found = [known.get(key) for case in order[:end] for key in by_case[case]]
            rows = [row for row in found if row is not None and _is_tried(row)]
            if len(rows) < len(found):
                cases = cases if reached else order[:end]
                break
            cases = whole = order[:end]
            values = arm_values(rows, cases, scorer)
            reached = bool(values) and _is_narrow(values, half_width, aim, len(order))
        out[suite] = {"cases": cases, "looked_at": whole, "of": len(order), "reached": reached}
    return out


def _is_narrow(values: Mapping[str, list[float]], half_width: float, aim: float, most: int) -> bool:
    """Whether every arm's interval, the same that the summary gives, is narrow enough."""
    return all(
        found and looked_at({arm: found}, aim, LEVEL, most=most).half_widths[arm] <= half_width
        for arm, found in values.items()
    )


def _is_tried(row: Row) -> bool:
    """Whether nothing more will come of the row in this start."""
    waits = not row.get("judged", True) and row["reason"] == NOT_JUDGED
    return not waits or row["error"] is not None


def arm_values(rows: Iterable[Row], cases: Sequence[str], scorer: Scorer) -> dict[str, list[float]]:
    """The SAR of each case by arm, in the order of the cases; unscored ones have no value."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        arm = found.setdefault(f"{row['model']} {row['method']}", {})
        if row["outcome"] == Outcome.SCORED:
            arm.setdefault(row["case"], []).append(scorer.row(row["marks"])[2])
    return {
        arm: [sum(by_case[case]) / len(by_case[case]) for case in cases if case in by_case]
        for arm, by_case in found.items()
    }


def sequential_interval(
    by_case: Mapping[str, Sequence[float]],
    cases: Sequence[str],
    aim: float,
    most: int,
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
) -> tuple[float | None, float | None]:
    """The interval of a mean over the cases looked at, each the mean of its repeats.

    `aim` and `most` (how many cases there are at all) tune the bets, not what they promise.
    """
    sequence = ConfidenceSequence(lowest, highest, LEVEL, aim=aim, most=most)
    for case in cases:
        if values := by_case.get(case):
            sequence.add(sum(values) / len(values))
    return sequence.interval if sequence.n else (None, None)
