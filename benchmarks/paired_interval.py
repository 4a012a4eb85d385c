"""How often does the interval of a rule's change hold the true change? Simulated.

    python benchmarks/paired_interval.py [--runs N] [--seed N]

Cases have a rate of following for each arm, drawn from beta distributions around the arm's mean
(`alike`: how much of the variance lies between cases); some of the cases have related rates in both
arms, which is why pairing helps. With one repeat, marks of a case are drawn together in that part.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from itertools import product

from adhere.experiments.rule_changes import paired_interval

REPEATS = (1, 2, 3, 5)
SIZES = (10, 30, 100)
MEANS = ((0.5, 0.5), (0.9, 0.9), (0.98, 0.98), (0.7, 0.9), (0.3, 0.6), (0.9, 0.99))
SHAPES = ((0.1, 0.0), (0.6, 0.8), (0.6, 0.2))  # how alike repeats are, part with related rates


def draw(
    rng: random.Random, n: int, repeats: int, means: tuple[float, float], shape: tuple[float, float]
) -> tuple[Counter[tuple[float, float]], int]:
    """The rates of n cases in both arms, and how many pairs they come from."""
    alike, related = shape
    size = 1 / alike - 1
    cases: Counter[tuple[float, float]] = Counter()
    pairs = 0
    for _ in range(n):
        together = rng.random() < related
        if repeats == 1:
            marks = [rng.random()] * 2 if together else [rng.random(), rng.random()]
            rates = [float(mark < mean) for mark, mean in zip(marks, means, strict=True)]
            pairs += 1
        else:
            count = rng.randint(1, repeats)  # the rule does not apply to every repeat
            state = rng.random()
            rates = []
            for mean in means:
                source = random.Random(state) if together else rng
                p = source.betavariate(mean * size, (1 - mean) * size)
                rates.append(sum(rng.random() < p for _ in range(count)) / count)
            pairs += count
        cases[rates[0], rates[1]] += 1
    return cases, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="runs of each of 216 settings")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("| repeats | cases | settings | holds, mean | lowest |\n|---:|---:|---:|---:|---:|")
    for repeats, n in product(REPEATS, SIZES):
        shares = []
        for means, shape in product(MEANS, SHAPES):
            rng = random.Random(f"{args.seed} {repeats} {n} {means} {shape}")
            held = 0
            for _ in range(args.runs):
                found = paired_interval(*draw(rng, n, repeats, means, shape))
                assert found.low is not None
                assert found.high is not None
                held += found.low <= means[1] - means[0] <= found.high
            shares.append(held / args.runs)
        mean = sum(shares) / len(shares)
        print(f"| {repeats} | {n} | {len(shares)} | {mean:.1%} | {min(shares):.1%} |", flush=True)


if __name__ == "__main__":
    main()
