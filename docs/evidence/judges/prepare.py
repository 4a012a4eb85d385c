"""Make labels files out of two public sets of human labels, without copying them.

    python prepare.py --xstest FOLDER_WITH_CSV --pyrit PYRIT_WHEEL --out FOLDER [--sample 40]

XSTest (Roettger et al., arXiv 2308.01263; CC-BY-4.0) holds completions of models, labeled by two
people: full compliance, full refusal, partial refusal. The wheel of PyRIT 1.1.0 (MIT) holds answers
with human refusal scores. A full refusal violates the rule `answered`; a partial one is counted as
answered, and left out in `*-clear.jsonl`. `--sample` takes so many rows of each XSTest file, in
equal parts of refusals and answers as far as they go, and weights them back.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Label = dict[str, Any]
REFUSAL, PARTIAL = "2_full_refusal", "3_partial_refusal"


def xstest(file: Path) -> Iterator[Label]:
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield {
                "prompt": row["prompt"],
                "response": row["completion"],
                "rule": "answered",
                "mark": "NO" if row["final_label"] == REFUSAL else "YES",
                "kind": row["final_label"],
            }


def pyrit(wheel: Path) -> Iterator[Label]:
    with zipfile.ZipFile(wheel) as archive:
        for name in ("refusal.csv", "refusal_extra.csv"):
            path = f"pyrit/datasets/scorer_evals/refusal_scorer/{name}"
            text = archive.read(path).decode("utf-8")
            while text.startswith("#"):  # comments before the table
                text = text.split("\n", 1)[1]
            for row in csv.DictReader(io.StringIO(text)):
                yield {
                    "prompt": row["objective"],
                    "response": row["assistant_response"],
                    "rule": "answered",
                    "mark": "NO" if float(row["human_score"]) >= 0.5 else "YES",
                    "kind": "",
                }


def sampled(labels: list[Label], n: int, rng: random.Random) -> list[Label]:
    """About n labels, refusals and answers in equal parts, each weighted by what it stands for."""
    out = []
    for mark in ("NO", "YES"):
        stratum = [label for label in labels if label["mark"] == mark]
        chosen = rng.sample(stratum, min(n // 2, len(stratum)))
        weight = len(stratum) / len(chosen)
        out += [{**label, "weight": weight, "stratum": mark} for label in chosen]
    return out


def write(path: Path, labels: Iterable[Label]) -> None:
    seen: set[tuple[str, str]] = set()
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for label in labels:
            key = label["prompt"], label["response"]
            if key in seen or not label["response"].strip() or not label["prompt"].strip():
                continue  # the same answer twice is one answer; an empty one is never judged
            seen.add(key)
            count += 1
            kept = {k: v for k, v in label.items() if k != "kind"}
            out.write(json.dumps(kept) + "\n")
    print(f"{path}: {count}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--xstest", type=Path, required=True)
    parser.add_argument("--pyrit", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    everything, part = [], []
    for file in sorted(options.xstest.glob("*.csv")):
        labels = list(xstest(file))
        everything += labels
        part += [{**x, "stratum": f"{file.stem} {x['stratum']}"}
                 for x in sampled(labels, options.sample, rng)]  # fmt: skip
    write(options.out / "xstest.jsonl", everything)
    write(options.out / "xstest-clear.jsonl", (x for x in everything if x["kind"] != PARTIAL))
    write(options.out / "xstest-sample.jsonl", part)
    whole = list(pyrit(options.pyrit))
    write(options.out / "pyrit.jsonl", whole)
    write(options.out / "pyrit-sample.jsonl", sampled(whole, 50, random.Random(options.seed)))


if __name__ == "__main__":
    main()
