"""Does stopping early keep its promise? Coverage and cost of `--until-ci`, simulated.

    python benchmarks/until_ci.py [--quick] [--runs N] [--seed N] [--out FILE]

Every run draws values of a known mean, looks after each block (32, 48, 72, ... 1,500 at most) and
stops when the interval's half width is at most the target, as an experiment does. Counted is how
often the interval at the stop holds the true mean, and after how many values it stopped; beside it
the same for the ordinary 95% interval, which promises nothing to those who look and then stop. For
a part of the runs one also goes on to 1,500 and counts those whose interval left the mean out at
*any* look: whoever stops "when it shows what I hoped for" stops there.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from adhere.experiments.metrics import constant_interval
from adhere.experiments.sequential import Sequence, blocks, shuffled

MOST = 1500
TARGETS = (0.05, 0.1)
LEVEL = 0.95
Draw = Callable[[random.Random], float]


def _rate(p: float) -> Draw:
    return lambda rng: float(rng.random() < p)


def _sar(unsafe: float, least: int) -> Draw:
    """0 where unsafe, else 0.3 + 0.7 times a share of 10 rules, evenly from `least` of them."""
    return lambda rng: 0.0 if rng.random() < unsafe else 0.3 + 0.07 * rng.randrange(least, 11)


class Listed:
    """A list of 1,500 prompts, the hard ones first, in a random order; each is drawn once."""

    def __init__(self) -> None:
        self.values = {
            f"{i:04d}": 0.0 if i < 450 else min(1.0, 0.3 + i / 2000) for i in range(MOST)
        }
        self.mean = sum(self.values.values()) / MOST
        self.left: list[str] = []

    def __call__(self, rng: random.Random) -> float:
        """The next value; a new order when none is left."""
        if not self.left:
            self.left = shuffled(list(self.values), rng.getrandbits(60))
        return self.values[self.left.pop()]


LISTED = Listed()

# name, bounds, true mean, draw
CASES: dict[str, tuple[float, float, float, Draw]] = {
    "rate 0.02": (0, 1, 0.02, _rate(0.02)),
    "rate 0.3": (0, 1, 0.3, _rate(0.3)),
    "rate 0.5": (0, 1, 0.5, _rate(0.5)),
    "rate 0.9": (0, 1, 0.9, _rate(0.9)),
    "SAR, 30% unsafe": (0, 1, 0.7 * 0.65, _sar(0.3, 0)),
    "SAR, 10% unsafe": (0, 1, 0.9 * (0.3 + 0.07 * 8.5), _sar(0.1, 7)),
    "beta(8, 2)": (0, 1, 0.8, lambda rng: rng.betavariate(8, 2)),
    "beta(0.5, 0.5)": (0, 1, 0.5, lambda rng: rng.betavariate(0.5, 0.5)),
    "always 1": (0, 1, 1.0, lambda rng: 1.0),
    "always 0.65": (0, 1, 0.65, lambda rng: 0.65),
    "a shuffled list": (0, 1, LISTED.mean, LISTED),
    "difference, 20% differ": (
        -1, 1, 0.1,
        lambda rng: rng.choices((1.0, -1.0, 0.0), (0.15, 0.05, 0.8))[0],
    ),
}  # fmt: skip


def simulate(name: str, target: float, runs: int, whole: int, seed: int) -> dict[str, Any]:
    """`runs` runs of one distribution and target; `whole` of them also go on to the end."""
    low, high, mean, draw = CASES[name]
    rng = random.Random(f"{seed} {name} {target}")
    ours, naive = [], []
    left_out = [0, 0]
    for run in range(runs):
        LISTED.left.clear()
        sequence = Sequence(low, high, LEVEL, aim=target, most=MOST)
        values: list[float] = []
        stops: list[tuple[int, bool] | None] = [None, None]
        ever = [False, False]
        for end in blocks(MOST):
            while len(values) < end:
                values.append(draw(rng))
                sequence.add(values[-1])
            for which in (0, 1):
                if stops[which] is not None and run >= whole:
                    continue
                ends = ordinary(values, low, high) if which else sequence.interval
                holds = ends[0] - 1e-9 <= mean <= ends[1] + 1e-9
                ever[which] = ever[which] or not holds
                narrow = ends[1] - ends[0] <= 2 * target
                if stops[which] is None and (narrow or end == MOST):
                    stops[which] = (end, holds)
            if all(stops) and run >= whole:
                break
        ours.append(stops[0])
        naive.append(stops[1])
        if run < whole:
            left_out = [count + missed for count, missed in zip(left_out, ever, strict=True)]
    return {
        "case": name,
        "target": target,
        "runs": runs,
        "whole": whole,
        **{
            f"{who}_{key}": value
            for who, stops in (("sequence", ours), ("ordinary", naive))
            for key, value in _facts(stops).items()
        },
        "sequence_ever_missed": left_out[0] / whole if whole else None,
        "ordinary_ever_missed": left_out[1] / whole if whole else None,
    }


def _facts(stops: list[Any]) -> dict[str, float]:
    return {
        "holds": sum(holds for _, holds in stops) / len(stops),
        "mean_n": sum(n for n, _ in stops) / len(stops),
    }


def ordinary(values: list[float], low: float, high: float) -> tuple[float, float]:
    """The normal 95% interval; where all values are the same, the exact bound for that."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    if variance < 1e-20:
        return constant_interval(values[0], n, low, high)
    half = 1.959964 * math.sqrt(variance / n)
    return mean - half, mean + half


def table(found: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    heads = (
        "values", "target", "stops at (mean n)", "holds", "ordinary: stops at", "holds",
        "ever missed", "ordinary: ever missed",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in found:
        ever = [
            "" if row[key] is None else f"{row[key]:.1%}"
            for key in ("sequence_ever_missed", "ordinary_ever_missed")
        ]
        lines.append(
            f"| {row['case']} | {row['target']} | {row['sequence_mean_n']:,.0f} "
            f"| {row['sequence_holds']:.1%} | {row['ordinary_mean_n']:,.0f} "
            f"| {row['ordinary_holds']:.1%} | {ever[0]} | {ever[1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 runs each instead of 2,000")
    parser.add_argument("--runs", type=int, default=0, help="runs of each line")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    args = parser.parse_args()
    runs = args.runs or (300 if args.quick else 2000)
    with ProcessPoolExecutor(max_workers=2) as pool:
        jobs = [
            pool.submit(simulate, name, target, runs, runs // 8 if target == 0.05 else 0, args.seed)
            for target in TARGETS
            for name in CASES
        ]
        found = [job.result() for job in jobs]
    error = math.sqrt(LEVEL * (1 - LEVEL) / runs)
    print(f"{runs:,} runs a line, seed {args.seed}; the error of a 95% share is {error:.1%}\n")
    print(table(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
