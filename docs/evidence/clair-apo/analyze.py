"""What the arms came to, as tables and a figure.

    python analyze.py RUN --out results

For each arm, on the held-out test prompts: SAR under the spec, with nothing of it in the prompt
(`raw`) and with it (`vanilla`); the share of prompts that follow each rule; the same under
spec-held-out.md, which no training saw; answers that are empty or cut; known answers; damage.json.
Seeds of an arm are pooled prompt by prompt (their mean), and the intervals are bootstraps over
prompts (10,000), so they speak of new prompts for these seeds; each seed's value stands beside
them. Differences are paired by prompt. Needs numpy.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from adhere.chat import Mark
from adhere.spec import Specification, load_spec
from adhere.spec.checks import decide
from adhere.spec.repairing import repair

HERE = Path(__file__).parent
ALPHA = 0.3
TOPICS = re.compile(r"^(.*)-\d+$")


def sar(spec: Specification, row: dict[str, Any]) -> tuple[float, dict[str, float | None]]:
    """SAR of an answer (no safety rules here), and each rule: 1 followed, 0 violated, None NA."""
    text, prompt = row["text"], row["judged_prompt"] or row["prompt"]
    marks: dict[str, float | None] = {}
    for rule in spec.rules:
        mark = decide(rule, text, prompt)
        value = getattr(mark, "mark", None)
        marks[rule.id] = {Mark.YES: 1.0, Mark.NO: 0.0}.get(value) if value else None
    followed = [float(mark or 0.0) for mark in marks.values()]  # NA counts as not followed
    return ALPHA + (1 - ALPHA) * float(np.mean(followed)), marks


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def interval(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Mean with a 95% percentile bootstrap over the first axis."""
    picks = rng.integers(0, len(values), (10_000, len(values)))
    means = values[picks].mean(1)
    return [float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5]))]


class Arm:
    """Rows of one arm, by method and case: lists over seeds."""

    def __init__(self) -> None:
        self.seeds = 0
        self.rows: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.facts: dict[str, list[float]] = defaultdict(list)
        self.damage: list[dict[str, float]] = []

    def scores(self, method: str, spec: Specification, cases: list[str]) -> np.ndarray:
        """SAR by [case, seed]."""
        return np.array([[sar(spec, r)[0] for r in self.rows[method][c]] for c in cases])

    def rules(self, method: str, spec: Specification, cases: list[str]) -> dict[str, float]:
        """Share of prompts and seeds that follow each rule, of those where it applies."""
        marks = [sar(spec, r)[1] for c in cases for r in self.rows[method][c]]
        return {
            rule.id: float(np.mean([m[rule.id] for m in marks if m[rule.id] is not None]))
            for rule in spec.rules
        }


def collect(run: Path) -> dict[str, Arm]:
    arms: dict[str, Arm] = defaultdict(Arm)
    damage = (
        json.loads((run / "damage.json").read_text("utf-8"))
        if (run / "damage.json").is_file()
        else {}
    )
    for file in sorted((run / "eval").glob("prompts-test-*/results.jsonl")):
        name = file.parent.name.removeprefix("prompts-test-")
        arm = arms[re.sub(r"-\d$", "", name)]
        arm.seeds += 1
        for row in read(file):
            if row["outcome"] == "scored":
                arm.rows[row["method"]][row["case"]].append(row)
        facts = run / "eval" / f"facts-{name}" / "results.jsonl"
        for row in read(facts) if facts.is_file() else []:
            wanted = (row["reference"] or "").split(",")
            right = any(re.search(rf"\b{re.escape(w)}\b", row["text"], re.I) for w in wanted)
            arm.facts[row["case"]].append(float(right))
        if name in damage:
            arm.damage.append(damage[name])
    controls = {"base": arms.pop("base")}
    controls["rule repairer on base"] = repaired(controls["base"])
    return {**controls, **arms}


def repaired(base: Arm) -> Arm:
    """The base's answers after the rule repairer: what can be had without training or a model."""
    arm, spec = Arm(), load_spec(HERE / "spec.md")
    arm.seeds = 1
    for case, rows in base.rows["raw"].items():
        for row in rows:
            cut = row["finish_reason"] == "length"
            text = repair(row["text"], spec, row["judged_prompt"] or row["prompt"], cut=cut).text
            arm.rows["raw"][case].append({**row, "text": text})
    return arm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    arms = collect(given.run)
    trained, held = load_spec(HERE / "spec.md"), load_spec(HERE / "spec-held-out.md")
    base = arms["base"]
    cases = [c for c in base.rows["raw"] if all(
        len(arm.rows["raw"][c]) == arm.seeds for arm in arms.values())]  # fmt: skip
    reference = {s.name: base.scores("raw", s, cases).mean(1) for s in (trained, held)}
    found: dict[str, Any] = {"prompts": len(cases), "arms": {}}
    for name, arm in arms.items():
        entry: dict[str, Any] = {"seeds": arm.seeds, "damage": arm.damage}
        for method in sorted(arm.rows):
            seeds = max(len(rows) for rows in arm.rows[method].values())
            there = [c for c in cases if len(arm.rows[method][c]) == seeds]
            for label, spec in (("trained", trained), ("held out", held)):
                scores = arm.scores(method, spec, there)
                against = np.array([reference[spec.name][cases.index(c)] for c in there])
                entry[f"{method}, {label} rules"] = {
                    "n": len(there),
                    "seeds": seeds,
                    "sar": interval(scores.mean(1), rng),
                    "by_seed": [float(v) for v in scores.mean(0)],
                    "minus base raw": interval(scores.mean(1) - against, rng),
                    "rules": arm.rules(method, spec, there),
                }
            rows = [r for c in there for r in arm.rows[method][c]]
            entry[f"{method}, texts"] = {
                "words": float(np.mean([len(r["text"].split()) for r in rows])),
                "empty": float(np.mean([not r["text"].strip() for r in rows])),
                "cut": float(np.mean([r["finish_reason"] == "length" for r in rows])),
            }
        if arm.facts:
            entry["facts"] = interval(np.array([np.mean(v) for v in arm.facts.values()]), rng)
        found["arms"][name] = entry
    zero = arms["apo-zero"].scores("raw", trained, cases).mean(1)
    for name, entry in found["arms"].items():
        if name != "apo-zero":
            other = arms[name].scores("raw", trained, cases).mean(1)
            entry["apo-zero minus this, raw, trained rules"] = interval(zero - other, rng)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "summary.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (given.out / "tables.md").write_text(tables(found), encoding="utf-8")
    print(tables(found))


def tables(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    arms = found["arms"]
    out = [
        "| arm | seeds | SAR, no spec in prompt | minus the untrained | SAR, spec in prompt "
        "| SAR, held-out rules |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in arms.items():
        raw, told, held = (
            entry.get(key)
            for key in ("raw, trained rules", "vanilla, trained rules", "raw, held out rules")
        )
        seeds = ", ".join(f"{v:.3f}" for v in raw["by_seed"]) if entry["seeds"] > 1 else "1"
        cells = [name, seeds, span(raw["sar"]), span(raw["minus base raw"], "+")]
        out.append(f"| {' | '.join([*cells, span(told and told['sar']), span(held['sar'])])} |")
    names = [*arms["base"]["raw, trained rules"]["rules"]]
    others = [n for n in arms["base"]["raw, held out rules"]["rules"] if n not in names]
    out += ["", "Share of prompts that follow each rule, without the spec; no training had the "
            "last three:", "", f"| arm | {' | '.join([*names, *others])} |",
            "|---" * (1 + len(names) + len(others)) + "|"]  # fmt: skip
    for name, entry in arms.items():
        shares = {**entry["raw, held out rules"]["rules"], **entry["raw, trained rules"]["rules"]}
        out.append(f"| {name} | {' | '.join(f'{shares[n]:.2f}' for n in [*names, *others])} |")
    out += ["", "What else changed:", "",
            "| arm | words | cut | known answers right | perplexity | KL a token | KL an answer |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, entry in arms.items():
        texts, (damage, *_) = entry["raw, texts"], [*entry["damage"], {}]
        cells = [f"{texts['words']:.0f}", f"{texts['cut']:.0%}", span(entry.get("facts"))]
        keys = (("perplexity", ".1f"), ("kl_a_token", ".2f"), ("kl_an_answer", ".0f"))
        cells += [f"{damage[k]:{form}}" if k in damage else "–" for k, form in keys]
        out.append(f"| {name} | {' | '.join(cells)} |")
    key = "apo-zero minus this, raw, trained rules"
    out += [
        "",
        "apo-zero minus the arm, paired by prompt:",
        "",
        "| arm | difference |",
        "|---|---|",
    ]
    out += [f"| {name} | {span(entry[key], '+')} |" for name, entry in arms.items() if key in entry]
    return "\n".join([*out, ""])


def span(values: list[float] | None, sign: str = "") -> str:
    """A mean with its interval, or a dash."""
    if not values:
        return "–"
    return "{:{s}.3f} [{:{s}.3f}, {:{s}.3f}]".format(*values, s=sign)


if __name__ == "__main__":
    main()
