"""The tables of this evidence from a run's rows.

    python analyze.py RUN [--out FOLDER]

Writes `rows.jsonl`: one line an answer with its numbers and marks, without any text, since the
prompts are attacks and not ours to copy. Prints, over the prompts that *every* method answered:
SAR, safety and behavioral rate, the same over the rules that no selector saw, paired differences to
vanilla with 95% bootstrap intervals, tokens, refused, empty and cut answers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from adhere.experiments.metrics import means, paired_difference
from adhere.judging.scoring import score_marks
from adhere.spec import Specification, load_spec

HERE = Path(__file__).parent
# The rules that best_of_n and repair select by; the others are the honest measure of both.
SEEN = ("no-dose", "no-brands", "sections", "second-person", "short", "answers")
KEPT = (
    "case", "label", "method", "variant", "outcome", "reason", "finish_reason", "cut", "refused",
    "empty", "marks", "score", "safety", "behavioral", "seconds",
)  # fmt: skip
FACTS = ("rounds", "stages", "close", "cut_stages", "picked", "scores", "spend", "spent")
COUNTS = ("prompt_tokens", "completion_tokens", "calls")
HEAD = (
    "method", "safety", "behavioral", "SAR", "vs vanilla", "SAR over the rules no selector saw",
    "vs vanilla", "completion tokens", "refused", "empty", "cut",
)  # fmt: skip


def part(spec: Specification, *, seen: bool) -> Specification:
    rules = tuple(rule for rule in spec.rules if (rule.id in SEEN) == seen)
    return Specification(spec.name, rules, spec.version)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    spec = load_spec(HERE / "spec.md")
    rows = [json.loads(line) for line in (args.run / "results.jsonl").open()]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    answered: dict[str, set[str]] = {m: set() for m in methods}
    for row in rows:
        if row["outcome"] == "scored":
            answered[row["method"]].add(row["case"])
    shared = sorted(set.intersection(*answered.values()))
    print(f"{len(shared)} prompts that all {len(methods)} methods answered\n")
    hidden = part(spec, seen=False)
    columns: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        if row["case"] not in shared:
            continue
        of = columns.setdefault(
            row["method"], {"sar": {}, "safety": {}, "behavioral": {}, "hidden": {}}
        )
        got = score_marks(row["marks"], spec, alpha=0.3, na_policy="count")
        of["safety"][row["case"]] = [got.safety]
        of["behavioral"][row["case"]] = [got.behavioral]
        of["sar"][row["case"]] = [got.total]
        rest = score_marks(row["marks"], hidden, alpha=0.3, na_policy="count")
        of["hidden"][row["case"]] = [rest.total]
    print("| " + " | ".join(HEAD) + " |")
    print("|---" * len(HEAD) + "|")
    for method in methods:
        mine = [r for r in rows if r["method"] == method and r["case"] in shared]
        of = columns[method]
        estimates = means([of["safety"], of["behavioral"], of["sar"], of["hidden"]])
        cells = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in estimates]
        apart = ["baseline", "baseline"]
        if method != "vanilla":
            apart = []
            for measure in ("sar", "hidden"):
                found, _ = paired_difference(of[measure], columns["vanilla"][measure])
                apart.append(f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
        tokens = sum(sum(u["completion_tokens"] for u in r["usage"].values()) for r in mine) / len(
            mine
        )
        shares = [
            f"{sum(bool(r[k]) for r in mine)}/{len(mine)}" for k in ("refused", "empty", "cut")
        ]
        line = [method, *cells[:3], apart[0], cells[3], apart[1], f"{tokens:.0f}", *shares]
        print("| " + " | ".join(line) + " |")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        with (args.out / "rows.jsonl").open("w") as file:
            for row in rows:
                kept = {key: row[key] for key in KEPT}
                kept["usage"] = {
                    role: {key: used[key] for key in COUNTS} for role, used in row["usage"].items()
                }
                kept["facts"] = {k: row["facts"][k] for k in FACTS if k in row["facts"]}
                file.write(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
