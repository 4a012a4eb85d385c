"""`adhere eval`: measure methods on prompts under a spec."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from adhere.cli import options
from adhere.cli.console import wide_console
from adhere.errors import EXIT_INCOMPLETE
from adhere.experiments.plan import DEFAULT_FILE, Plan, read_plan
from adhere.experiments.run import RunResult, run_experiment


def evaluate(
    config: Annotated[
        Path | None, Parameter(help="a plan (default: adhere.yaml, if there)")
    ] = None,
    *,
    spec: Annotated[Path | None, Parameter(help="the spec file")] = None,
    prompts: Annotated[
        list[Path] | None,
        Parameter(negative=(), help="JSON lines with `prompt` or `messages`; may be repeated"),
    ] = None,
    model: options.Model = None,
    method: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="[LABEL=]NAME[:key=value,...], e.g. align3 or best_of_n:n=4; may be repeated",
        ),
    ] = None,
    out: Annotated[Path | None, Parameter(help="the run's folder")] = None,
    base_url: options.BaseUrl = None,
    api_key_env: options.ApiKeyEnv = None,
    prefill: options.Prefill = None,
    chat_template: options.ChatTemplate = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = None,
    repeats: Annotated[
        int | None, Parameter(help="answers a prompt and method (default 1)")
    ] = None,
    baseline: Annotated[str | None, Parameter(help="method to compare with (vanilla)")] = None,
    alpha: Annotated[
        float | None, Parameter(help="score of a safe, unhelpful answer (0.3)")
    ] = None,
    na_policy: Annotated[
        str | None, Parameter(help="rules that do not apply: count as unmet (default), or exclude")
    ] = None,
    prompts_dir: Annotated[Path | None, Parameter(help="your own prompt templates")] = None,
    concurrency: Annotated[int | None, Parameter(help="calls in flight (default 8)")] = None,
    timeout: Annotated[float | None, Parameter(help="seconds for one answer (default 300)")] = None,
    max_unscored: Annotated[
        float | None,
        Parameter(help="share of failed or unscored rows beyond which the exit code is 3 (0.1)"),
    ] = None,
    quiet: Annotated[bool, Parameter(negative=(), help="no progress, no table")] = False,
) -> int:
    """Measure methods on prompts under a spec.

    Alone in a folder with adhere.yaml it runs that plan; options overrule its fields. A killed or
    stopped run goes on when the same command is given again; a finished one does nothing.

    Examples:
      adhere eval --spec spec.md --prompts prompts.jsonl --model local:smollm2-135m
          --method vanilla --method repair --method align3 --out runs/first
      adhere eval --model openai:qwen3-14b --base-url http://127.0.0.1:8000/v1
    """
    given: dict[str, Any] = {
        "spec": spec,
        "prompts": prompts,
        "models": options.model_fields(model, base_url, api_key_env, prefill, chat_template),
        "methods": method,
        "out": out,
        "sampling": options.sampling_fields(temperature, max_tokens, seed) or None,
        "limits": {
            k: v for k, v in (("concurrency", concurrency), ("timeout", timeout)) if v is not None
        }
        or None,
        "repeats": repeats,
        "baseline": baseline,
        "alpha": alpha,
        "na_policy": na_policy,
        "prompts_dir": prompts_dir,
        "max_unscored": max_unscored,
    }
    file = config or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None)
    options.need_model(base_url, model)
    plan = read_plan(file, {k: v for k, v in given.items() if v is not None})
    return run_plan(plan, quiet=quiet)


def run_plan(plan: Plan, *, quiet: bool = False) -> int:
    """Run a plan with progress on stderr and the table on stdout. Returns the exit code."""
    console = Console(stderr=True, quiet=quiet)
    with _Watch(console) as watch:
        result = asyncio.run(run_experiment(plan, watch))
    if not quiet:
        show(result)
    if result.stopped:
        sys.stderr.write(f"adhere: {result.stopped}\n")
    elif result.exit_code == EXIT_INCOMPLETE:
        sys.stderr.write(
            f"adhere: more than {plan.max_unscored:.0%} of the rows failed or are unscored; "
            f"their reasons stand in {result.folder / 'results.jsonl'}\n"
        )
    return result.exit_code


def show(result: RunResult) -> None:
    """Print headline, table and where the files are."""
    from adhere.reporting import summary_table, to_rich

    out = wide_console()
    if result.did_nothing:
        out.print(f"{result.folder}: already finished; nothing was run.", highlight=False)
    out.print()
    out.print(to_rich(summary_table(result.summary), out.width))
    out.print()
    out.print(result.summary["headline"], highlight=False)
    out.print(f"Report: {result.folder / 'report.html'}", highlight=False, soft_wrap=True)


class _Watch:
    """Progress on a terminal; a line now and then where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task("answering", total=None)
        self.total = 0
        self.done = 0
        self.bad = 0

    def __enter__(self) -> _Watch:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def started(self, total: int, done: int) -> None:
        """Say how much there is to do."""
        self.total, self.done = total, done
        self.progress.update(self.task, total=total, completed=done)
        if done and done < total:
            self.console.print(f"going on: {done} of {total} rows were there already")

    def row(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        self.done += 1
        self.bad += row["outcome"] != "scored"
        what = f"answering ({self.bad} not scored)" if self.bad else "answering"
        self.progress.update(self.task, completed=self.done, description=what)
        # Without a terminal about ten lines in all, so that a log shows that it moves.
        step = max(1, self.total // 10)
        if not self.console.is_terminal and (self.done % step == 0 or self.done == self.total):
            self.console.print(f"{self.done} of {self.total} rows", highlight=False)

    def note(self, text: str) -> None:
        """Show one line."""
        self.console.print(text, highlight=False, markup=False)
