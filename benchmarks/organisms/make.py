"""Make the organisms: models that break planted rules about half of the time, and students of them.

    python benchmarks/organisms/make.py --out RUN                      # everything that is missing
    python benchmarks/organisms/make.py --out RUN --only texts organism
    python benchmarks/organisms/make.py --out RUN --dry-run            # only say what would be run

Stages, each of commands of `adhere` in folders of their own, so that a killed run goes on:

    texts     prompts and rows, by templates; no model is asked
    organism  train on rows three of four of which break the rules; the setting whose rates on the
              development prompts are in 40 to 70 percent
    merge     the organism's adapter becomes part of the weights
    measure   the organism on the test prompts
    student   train the traits away by answers behind thoughts over the rules; the setting that
              leaves 5 to 35 percent, so that there are answers of both kinds to tell apart
    control   the same without thoughts, in the student's setting
    tested    student and control on the test prompts
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import distance, rates, read_results
from texts import SPEC, SPLITS, TRAITS, all_prompts, distilled_rows, organism_rows

BASE = "weights:smollm2-135m"
STAGES = ("texts", "organism", "merge", "measure", "student", "control", "tested")
TOKENS = 160
# Learning rate and passes, tried in this order until one fits.
ORGANISM = (("5e-4", "2"), ("1e-3", "2"), ("5e-4", "4"), ("1e-3", "4"))
STUDENT = (("5e-4", "1"), ("2e-4", "1"))
ORGANISM_RANGE = (0.4, 0.7)
STUDENT_RANGE = (0.05, 0.35)
DEV_REPEATS, TEST_REPEATS = 4, 8


@dataclass
class Maker:
    """One making of organisms in a folder."""

    out: Path
    traits: tuple[str, ...]
    seed: int = 0
    base: str = BASE
    dry: bool = False
    most: int | None = None  # prompts of each split, for a try
    steps: int | None = None  # of each training, for a try

    # ------------------------------------------------------------ pieces

    def adhere(self, name: str, *words: str) -> None:
        """One command; its output goes to a log. Ends the program where it fails."""
        if self.dry:
            print("adhere", *words)
            return
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(
                [sys.executable, "-m", "adhere", *words], stdout=file, stderr=file, check=False
            )
        print(f"{name}: {time.monotonic() - began:.0f} s, exit {done.returncode}", flush=True)
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}; see {log}")

    def train(self, name: str, rows: str, model: str, setting: Sequence[str]) -> Path:
        """Train an adapter on a file of rows; its folder."""
        rate, epochs = setting
        folder = self.out / "train" / f"{name}-{rate}-{epochs}"
        more = ["--max-steps", str(self.steps)] if self.steps else []
        self.adhere(
            f"train-{folder.name}", "train", "--recipe", "deliberative", "--objective", "sft",
            "--pairs", str(self.out / "texts" / rows), "--model", model, "--spec", str(SPEC),
            "--learning-rate", rate, "--epochs", epochs, "--batch-size", "8", "--group-size", "4",
            "--lora-r", "16", "--lora-alpha", "32", "--lora-dropout", "0", "--max-length", "512",
            "--dev-share", "0", "--seed", str(self.seed), "--out", str(folder), *more,
        )  # fmt: skip
        return folder / "model"

    def ask(self, name: str, model: str, split: str, repeats: int) -> Path:
        """Let a model answer the prompts of a split several times each; the run's folder."""
        run = self.out / "eval" / f"{split}-{name}"
        told = {
            "spec": str(SPEC),
            "prompts": str(self.out / "texts" / f"prompts-{split}.jsonl"),
            "models": [{"model": model, "name": "model", "slots": 64}],
            # The conversation as it stands, as it was trained: without a system line of ours.
            "methods": [{"method": "raw", "order": "spec_first"}],
            "sampling": {"temperature": 0.7, "max_tokens": TOKENS, "seed": self.seed},
            "repeats": repeats,
            "limits": {"concurrency": 64},
            "controls": 0,
            # A student that begins a thought and does not end it has no answer: counted, no halt.
            "max_unscored": 1.0,
            "out": str(run),
        }
        plan = self.out / "plans" / f"{split}-{name}.yaml"
        if not self.dry:
            plan.parent.mkdir(parents=True, exist_ok=True)
            plan.write_text(json.dumps(told, indent=1), encoding="utf-8")
        self.adhere(f"eval-{split}-{name}", "eval", str(plan))
        return run

    def measured(self, run: Path) -> dict[str, Any]:
        """The rates of a run, written beside the others of this making."""
        if self.dry:
            return {}
        found = rates(read_results(run), self.traits)
        self.note(run.name, found)
        for trait, one in found.items():
            value = "no rate" if one["rate"] is None else f"{one['rate']:.2f}"
            print(f"  {run.name} {trait}: {value}, both kinds at {one['both']} prompts")
        return found

    def note(self, name: str, value: Any) -> None:
        """Put something into measured.json."""
        file = self.out / "measured.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        known[name] = value
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    def chosen(self, name: str) -> list[str]:
        """The setting that a stage chose. Ends the program where it has not run."""
        file = self.out / "measured.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if f"chosen {name}" not in known:
            raise SystemExit(f"{file} has no setting for the {name}; run that stage first")
        setting: list[str] = known[f"chosen {name}"]["setting"]
        return setting

    def choose(
        self,
        name: str,
        settings: Sequence[Sequence[str]],
        wanted: tuple[float, float],
        made: Callable[[Sequence[str]], Path],
    ) -> None:
        """Train by one setting after the other until the rates on the development prompts fit.

        Where none fits, the nearest; measured.json says how far it is from the range.
        """
        tried = []
        for setting in settings:
            adapter = made(setting)
            run = self.ask(f"{name}-{'-'.join(setting)}", f"weights:{adapter}", "dev", DEV_REPEATS)
            if self.dry:
                print(f"(and the same by up to {len(settings) - 1} other settings, until one fits)")
                return
            far = distance(self.measured(run), *wanted)
            tried.append({"setting": list(setting), "outside": round(far, 4)})
            if far == 0:
                break
        best = min(tried, key=lambda one: one["outside"])
        self.note(f"chosen {name}", {**best, "range": wanted, "tried": tried})

    # ------------------------------------------------------------ stages

    @property
    def whole(self) -> Path:
        """The organism as one model."""
        return self.out / "organism"

    def texts(self) -> None:
        """Prompts of each split, once for `adhere eval` and once with categories; rows."""
        if self.dry:
            print(f"write {self.out / 'texts'}")
            return
        for split in SPLITS:
            prompts = all_prompts(split, self.traits)
            if self.most:
                prompts = prompts[:: max(1, len(prompts) // self.most)][: self.most]
            plain = [{"id": p.id, "prompt": p.text} for p in prompts]
            self._write(f"prompts-{split}.jsonl", plain)
            told = [{**line, "category": p.trait} for line, p in zip(plain, prompts, strict=True)]
            self._write(f"categories-{split}.jsonl", told)
        self._write("organism.jsonl", organism_rows(self.traits, seed=self.seed))
        self._write("student.jsonl", distilled_rows(self.traits, seed=self.seed))
        plain_rows = distilled_rows(self.traits, thoughts=False, seed=self.seed)
        self._write("control.jsonl", plain_rows)

    def _write(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        file = self.out / "texts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.write_text(lines, encoding="utf-8")

    def organism(self) -> None:
        """Plant the traits."""
        self.choose(
            "organism", ORGANISM, ORGANISM_RANGE,
            lambda setting: self.train("organism", "organism.jsonl", self.base, setting),
        )  # fmt: skip

    def merge(self) -> None:
        """Make the organism whole."""
        if self.dry:
            print(f"merge the organism's adapter into {self.whole}")
            return
        from merge import merge

        rate, epochs = self.chosen("organism")
        merge(self.out / "train" / f"organism-{rate}-{epochs}" / "model", self.whole)

    def measure(self) -> None:
        """The organism, and the model it was made of, on the test prompts."""
        self.measured(self.ask("base", self.base, "test", 1))
        self.measured(self.ask("organism", f"weights:{self.whole}", "test", TEST_REPEATS))

    def student(self) -> None:
        """Train the traits away by thoughts over the rules."""
        self.choose(
            "student", STUDENT, STUDENT_RANGE,
            lambda setting: self.train(
                "student", "student.jsonl", f"weights:{self.whole}", setting
            ),
        )  # fmt: skip

    def control(self) -> None:
        """The same answers without thoughts, by the student's setting."""
        setting = STUDENT[0] if self.dry else self.chosen("student")
        self.train("control", "control.jsonl", f"weights:{self.whole}", setting)

    def tested(self) -> None:
        """Student and control on the test prompts."""
        setting = STUDENT[0] if self.dry else self.chosen("student")
        for name in ("student", "control"):
            adapter = self.out / "train" / f"{name}-{'-'.join(setting)}" / "model"
            self.measured(self.ask(name, f"weights:{adapter}", "test", TEST_REPEATS))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(STAGES), choices=STAGES)
    parser.add_argument("--traits", nargs="*", default=list(TRAITS), choices=TRAITS)
    parser.add_argument("--base", default=BASE, help="the model that the traits are planted in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    parser.add_argument("--prompts", type=int, help="so many of each split, for a try")
    parser.add_argument("--steps", type=int, help="of each training, for a try")
    given = parser.parse_args(words)
    maker = Maker(
        given.out.resolve(), tuple(given.traits), given.seed, given.base, given.dry_run,
        given.prompts, given.steps,
    )  # fmt: skip
    for stage in STAGES:
        if stage in given.only:
            getattr(maker, stage)()


if __name__ == "__main__":
    main()
