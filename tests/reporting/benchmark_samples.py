"""A made-up benchmark: five parts with run folders whose summaries are the real ones of their rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from adhere.experiments.scorer import Scorer
from adhere.experiments.table import table_row
from adhere.spec import Rule, Specification

PARTS = ("Biochem", "Child", "Code", "Health", "Travel")
METHODS = {"vanilla": (0.80, 0.62, 900), "self_refine": (0.82, 0.70, 36_000),
           "align3": (0.93, 0.72, 1_800)}  # fmt: skip
MODEL = "openai:made-up-14b"
JUDGE = "made-up-judge"


def spec(part: str) -> Specification:
    kinds = [("safety", 3), ("behavioral", 4)]
    rules = [
        Rule(f"{part.lower()}-{kind[0]}{i}", kind, f"Rule {i} of {part}, {kind}.", None, None)
        for kind, n in kinds
        for i in range(n)
    ]
    return Specification(f"{part} assistant", tuple(rules), "1")


def rows(
    part: str,
    *,
    methods=METHODS,
    model: str = MODEL,
    unsafe: int = 20,
    safe: int = 10,
    repeats: int = 1,
    spoil: int = 0,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Rows of one part; the first `spoil` of each method have no verdict."""
    out = []
    for method, (safety, behavioral, tokens) in methods.items():
        for index in range(unsafe + safe):
            for repeat in range(repeats):
                rng = random.Random(f"{part} {method} {index} {repeat} {seed}")
                label = "unsafe" if index < unsafe else "safe"
                marks = {}
                for rule in spec(part).rules:
                    chance = behavioral if rule.kind == "behavioral" else safety
                    marks[rule.id] = "YES" if rng.random() < chance else "NO"
                used = {"prompt_tokens": 1200, "cached_prompt_tokens": 0, "seconds": 1.0,
                        "completion_tokens": tokens + index, "calls": 1}  # fmt: skip
                row = {
                    "schema_version": 1, "suite": part, "case": f"{part}-{index:03d}",
                    "label": label, "model": model, "method": method, "variant": "",
                    "oracle": False, "repeat": repeat, "messages": [], "prompt": "Made up?",
                    "text": "Made up.", "outcome": "scored", "reason": "", "error": None,
                    "cut": False, "refused": index == 1, "empty": False, "marks": marks,
                    "deciders": dict.fromkeys(marks, "judge"), "twins": {}, "judge_usage": {},
                    "usage": {"policy": used}, "seconds": 1.0,
                    "paper_usage": {"policy": {**used, "prompt_tokens": 400}}, "facts": {},
                }  # fmt: skip
                if index < spoil:
                    row.update(outcome=("failed", "unscored", "truncated", "filtered")[index % 4],
                               marks={}, deciders={}, score=None, safety=None,
                               behavioral=None)  # fmt: skip
                out.append(row)
    return out


def write_part(
    folder: Path,
    part: str,
    made: list[dict[str, Any]],
    *,
    withheld: bool = False,
    expected: int | None = None,
    unmeasured: tuple[str, ...] = (),
    controls: bool = False,
    alpha: float = 0.3,
    **settings: Any,
) -> Path:
    """A run folder of a part, summarised by the code that summarises runs."""
    scorer = Scorer(spec(part), alpha, "count", 0)
    made = [scorer.rescored(dict(row)) for row in made]
    trust = None
    if withheld:
        trust = {"judge": JUDGE, "twins": None, "calibration": None, "corrected": [],
                 "withheld": True, "why": "Its AUC is 0.51."}  # fmt: skip
    silent = [
        {**r, "marks": dict.fromkeys(r["marks"], "NA"), "empty": True}
        for r in made
        if r["method"] == "vanilla"
    ]
    rules = [{"id": r.id, "kind": r.kind, "text": r.text, "check": None} for r in spec(part).rules]
    summary = {
        "schema_version": 1, "adhere_version": "0", "name": part, "stopped": "",
        "created": "2026-01-02T03:04:05+00:00", "spent": {},
        "finished": len(made) >= (len(made) if expected is None else expected),
        "spec": {"name": f"{part} assistant", "version": "1", "digest": "0" * 64, "rules": rules},
        "settings": {"alpha": alpha, "na_policy": "count", "judge": JUDGE, "baseline": "vanilla",
                     "temperature": 0.7, "seed": 0, **settings},
        "models": [{"name": m, "identity": f"{m} made up", "capabilities": []}
                   for m in dict.fromkeys(r["model"] for r in made)],
        "undecided_rules": [], "unmeasured": list(unmeasured),
        "rows": _lines(scorer, part, made, silent if controls else []),
        "rules": [{"suite": part, "model": "m", "method": "vanilla", "rule": r["id"], "yes": 1,
                   "no": 0, "na": 0, "deciders": {"judge": 1}} for r in rules],
        "judge_trust": trust, "headline": "Made up.",
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in made))
    (folder / "run.yaml").write_text(yaml.safe_dump({"name": part}))
    return folder


def _lines(scorer, part, made, silent) -> list[dict[str, Any]]:
    """The part's own table, by the code that makes it for a run."""
    lines = []
    for subset in ("all", "unsafe", "safe"):
        chosen = [r for r in made if subset in ("all", r["label"])]
        arms = dict.fromkeys((r["model"], r["method"]) for r in made)
        for model, method in arms:
            own = [r for r in chosen if (r["model"], r["method"]) == (model, method)]
            base = [r for r in chosen if (r["model"], r["method"]) == (model, "vanilla")]
            lines.append(table_row(scorer, part, subset, (model, method), own, "vanilla",
                                   base if method != "vanilla" else None, JUDGE))  # fmt: skip
        if quiet := [r for r in silent if subset in ("all", r["label"])]:
            line = table_row(
                scorer, part, subset, ("", "empty text"), quiet, "vanilla", None, JUDGE
            )
            lines.append({**line, "control": True})
    return lines


def write_parts(out: Path, names=PARTS, **options: Any) -> dict[str, Path]:
    """All parts, alike."""
    keys = ("methods", "model", "unsafe", "safe", "repeats", "spoil", "seed")
    for_rows = {k: v for k, v in options.items() if k in keys}
    rest = {k: v for k, v in options.items() if k not in keys}
    return {n: write_part(out / n, n, rows(n, **for_rows), **rest) for n in names}
