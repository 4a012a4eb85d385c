"""A run on a suite whose parts each bring their own spec, such as SpecBench's five scenarios.

Each part is an ordinary run in a folder of its own, `out/PART/`, and can be opened, compared and
judged again like any other. On top stand `out/benchmark.json` and `out/report.html`: all parts in
one table, as the papers print it. A killed benchmark goes on where it was, like a run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adhere.errors import EXIT_DONE, BadInput, Stopped
from adhere.experiments.benchmark_table import benchmark_table
from adhere.experiments.inputs import read_inputs, read_parts
from adhere.experiments.phases import Listener
from adhere.experiments.plan import Plan, StopPlan
from adhere.experiments.run import Run, RunResult, Silent, run_experiment
from adhere.records.run_folder import RUN_FILE, SUMMARY_FILE, write_atomic
from adhere.spec import write_markdown
from adhere.suites import Suite

BENCHMARK_FILE = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkResult:
    """How a benchmark ended: its parts' results by name, and all of them in one table."""

    folder: Path
    parts: Mapping[str, RunResult]
    table: Mapping[str, Any]
    stopped: str = ""

    @property
    def exit_code(self) -> int:
        """The gravest of the parts'."""
        if self.stopped:
            return Stopped.exit_code
        return max((part.exit_code for part in self.parts.values()), default=EXIT_DONE)

    @property
    def did_nothing(self) -> bool:
        """Whether all parts were finished before."""
        return all(part.did_nothing for part in self.parts.values())


async def evaluate_plan(
    plan: Plan, listener: Listener | None = None
) -> RunResult | BenchmarkResult:
    """Run (or go on with) a plan: one run, or one a part of a suite. Raises AdhereError."""
    listener = listener or Silent()
    parts = read_parts(plan)
    if not parts:
        _no_parts_here(plan)
        return await run_experiment(plan, listener)
    if len(parts) == 1:
        _no_parts_here(plan)
        result = await Run(read_inputs(plan, parts[0]), listener).run()
        _write_spec(plan.out, parts[0])
        return result
    if (plan.out / RUN_FILE).exists():
        raise BadInput(
            f"--out: {plan.out} is a run of one part; this plan has {len(parts)}",
            hint="Choose another folder with --out.",
        )
    plans = {part.name: part_plan(plan, part.name) for part in parts}
    # All mistakes are found before anything is asked.
    runs = {part.name: Run(read_inputs(plans[part.name], part), listener) for part in parts}
    started = time.monotonic()
    results: dict[str, RunResult] = {}
    stopped = ""
    try:
        for number, part in enumerate(parts, 1):
            listener.note(f"{part.name} ({number} of {len(parts)})")
            limit = _left(plan, part.name, plans, time.monotonic() - started)
            if limit is None:
                stopped = f"stopped before {part.name}: what the whole may spend is spent"
                break
            runs[part.name].limit(limit)
            results[part.name] = await runs[part.name].run()
            _write_spec(plans[part.name].out, part)
            if results[part.name].stopped:
                stopped = f"{part.name}: {results[part.name].stopped}"
                break
    finally:
        table = write_benchmark(plan, plans)
    return BenchmarkResult(plan.out, results, table, stopped)


def part_plan(plan: Plan, name: str) -> Plan:
    """The plan of one part: in a folder of its own, also of the run that is reused."""
    changes: dict[str, Any] = {"out": plan.out / name}
    if plan.reuse is not None:
        changes["reuse"] = plan.reuse / name
    return plan.model_copy(update=changes)


def write_benchmark(plan: Plan, plans: Mapping[str, Plan]) -> Mapping[str, Any]:
    """Write benchmark.json and report.html over the parts there are; return the table."""
    folders = {name: part.out for name, part in plans.items()}
    if not any((folder / SUMMARY_FILE).is_file() for folder in folders.values()):
        return {}
    return _write_table(plan.out, folders, plan.out.name, plan.sampling.seed)


def _write_table(out: Path, folders: Mapping[str, Path], name: str, seed: int) -> Mapping[str, Any]:
    from adhere.reporting.benchmark import write_benchmark_report

    table = benchmark_table(folders, name=name, seed=seed)
    text = json.dumps(table, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_atomic(out / BENCHMARK_FILE, text)
    write_benchmark_report(out, table)
    return table


def refresh_benchmark(folder: Path) -> Mapping[str, Any]:
    """Write benchmark.json and report.html of a folder again, from its parts. Raises BadInput."""
    file = folder / BENCHMARK_FILE
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        folders = {str(p["part"]): folder / str(p["part"]) for p in known["parts"]}
        name, seed = str(known["name"]), int(known["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(
            f"{file}: cannot be read; expected what `adhere eval` wrote",
            hint="Run the same `adhere eval` again: it writes the file anew.",
        ) from None
    return _write_table(folder, folders, name, seed)


def _no_parts_here(plan: Plan) -> None:
    """Refuse a folder that holds the parts of a benchmark. Raises BadInput."""
    if (plan.out / BENCHMARK_FILE).exists():
        raise BadInput(
            f"--out: {plan.out} holds a benchmark of several parts",
            hint="Choose another folder with --out.",
        )


def _left(plan: Plan, name: str, plans: Mapping[str, Plan], seconds: float) -> StopPlan | None:
    """What this part may spend of the limits of the whole; None when nothing is left."""
    stop = plan.stop
    others = [_spent(part.out) for other, part in plans.items() if other != name]
    changes: dict[str, float] = {}
    if stop.tokens is not None:
        changes["tokens"] = stop.tokens - sum(tokens for tokens, _ in others)
    if stop.cost is not None:
        changes["cost"] = stop.cost - sum(cost for _, cost in others)
    if stop.seconds is not None:
        changes["seconds"] = stop.seconds - seconds
    return None if _any_spent(changes.values()) else stop.model_copy(update=changes)


def _any_spent(left: Iterable[float]) -> bool:
    return any(value <= 0 for value in left)


def _spent(folder: Path) -> tuple[int, float]:
    """Tokens and money that a part has spent so far."""
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0, 0.0
    used = summary["spent"]
    return used["prompt_tokens"] + used["completion_tokens"], summary.get("spent_cost") or 0.0


def _write_spec(folder: Path, part: Suite) -> None:
    """Leave the spec that the suite brought beside the results: for `adhere judge --spec`."""
    file = folder / "spec.md"
    if part.spec is not None and folder.is_dir() and not file.exists():
        write_atomic(file, write_markdown(part.spec))
