"""Ask student and controls, score all candidates, choose the layer; all of it resumable.

    python benchmarks/organisms/make.py --out ORGANISMS
    python docs/evidence/attribution/run.py --organisms ORGANISMS --out RUN
    python docs/evidence/attribution/analyze.py RUN --out docs/evidence/attribution/results

Every piece is a command of `adhere` in a folder of its own, so a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METHOD = "attributed_best_of_n"
TOKENS = 160
# An hour of two cores: three of four test prompts, and of those every n-th for the controls.
LEFT_OUT, WRONG_BASE, CONTROL = 4, 3, 2
STAGES = ("dev", "layer", "test", "wrong-base", "control")


def adhere(out: Path, name: str, *words: str) -> None:
    """One command; its output goes to a log. Ends the program where it fails."""
    log = out / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        call = [sys.executable, "-m", "adhere", *words]
        done = subprocess.run(call, stdout=file, stderr=file, check=False)
    print(f"{name}: {time.monotonic() - began:.0f} s, exit {done.returncode}", flush=True)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}; see {log}")


def models(organisms: Path) -> dict[str, str]:
    """The models by what they are here."""
    told = json.loads((organisms / "measured.json").read_text(encoding="utf-8"))
    setting = "-".join(told["chosen student"]["setting"])
    return {
        name: f"weights:{organisms / 'train' / f'{name}-{setting}' / 'model'}"
        for name in ("student", "control")
    }


def ask(
    out: Path,
    organisms: Path,
    name: str,
    model: str,
    split: str,
    *,
    base: str = "",
    every: int = 1,
    **options: Any,
) -> None:
    """Eight candidates to each prompt of a split, or to every n-th, scored beside the base."""
    prompts = out / f"prompts-{name}.jsonl"
    asked = (organisms / "texts" / f"prompts-{split}.jsonl").read_text(encoding="utf-8")
    prompts.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.splitlines(keepends=True)
    if split == "test":
        lines = [line for at, line in enumerate(lines) if at % LEFT_OUT]
    prompts.write_text("".join(lines[::every]), encoding="utf-8")
    # As it was trained: the question alone, without a system line of ours.
    method = {"method": METHOD, "order": "spec_first", "layers": "all", **options}
    told = {
        "spec": str(Path(__file__).parents[3] / "benchmarks" / "organisms" / "spec.md"),
        "prompts": str(prompts),
        "models": [{"model": model, "name": "model", "slots": 64, "dtype": "float32"}],
        "methods": [method],
        "sampling": {"temperature": 0.7, "max_tokens": TOKENS, "seed": 0},
        "limits": {"concurrency": 64},
        "controls": 0,
        "max_unscored": 1.0,
        "out": str(out / name),
    }
    more: list[str] = []
    if base:
        told["base"] = base
        more = ["--reuse", str(out / split)]  # the same candidates, beside another base
    plan = out / "plans" / f"{name}.yaml"
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps(told, indent=1), encoding="utf-8")
    adhere(out, name, "eval", str(plan), *more)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--organisms", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(STAGES), choices=STAGES)
    given = parser.parse_args(words)
    out, organisms = given.out.resolve(), given.organisms.resolve()
    who = models(organisms)
    for stage in [stage for stage in STAGES if stage in given.only]:
        if stage == "dev":
            ask(out, organisms, "dev", who["student"], "dev")
        elif stage == "layer":
            adhere(out, "layer", "calibrate", "layer", "--run", str(out / "dev"))
        elif stage == "test":
            chosen = {"layer_file": str(out / "dev" / "layer.json"), "also": "all"}
            ask(out, organisms, "test", who["student"], "test", **chosen)
        elif stage == "wrong-base":
            base = "weights:smollm2-135m"
            ask(
                out,
                organisms,
                stage,
                who["student"],
                "test",
                base=base,
                every=WRONG_BASE,
                also="all",
            )
        else:
            ask(out, organisms, stage, who["control"], "test", every=CONTROL, also="all")


if __name__ == "__main__":
    main()
