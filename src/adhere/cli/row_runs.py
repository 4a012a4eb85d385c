"""What the commands under `adhere data` share: limits of a run, its progress and its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from rich.console import Console

from adhere.cli import options
from adhere.cli.watch import Watch
from adhere.errors import EXIT_INCOMPLETE

if TYPE_CHECKING:
    from adhere.experiments.starts import RunResult

_RUN = Group("The run", sort_key=8)
_JUDGE = Group("The judge", sort_key=7)


def _of_run(help: str) -> Parameter:
    return Parameter(group=_RUN, help=help)


@Parameter(name="*")
@dataclass(frozen=True)
class JudgeOptions:
    """Who decides the rules that no check does."""

    judge: Annotated[options.Judge, Parameter(group=_JUDGE)] = None
    judge_mode: Annotated[options.JudgeMode, Parameter(group=_JUDGE)] = None
    judge_base_url: Annotated[options.JudgeBaseUrl, Parameter(group=_JUDGE)] = None
    judge_api_key_env: Annotated[options.JudgeApiKeyEnv, Parameter(group=_JUDGE)] = None
    guard_prompt: Annotated[options.GuardPrompt, Parameter(group=_JUDGE)] = None

    def fields(self) -> dict[str, Any] | None:
        """The plan's `judge`, as far as it was given."""
        return options.judge_fields(
            self.judge, self.judge_mode, self.judge_base_url, self.judge_api_key_env,
            guard_prompt=self.guard_prompt,
        )  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """How a run is made and when it stops; of what comes out it decides nothing."""

    prompts_dir: Annotated[Path | None, _of_run("your own prompt templates")] = None
    concurrency: Annotated[int | None, _of_run("calls in flight (default 8)")] = None
    timeout: Annotated[float | None, _of_run("seconds for one answer (default 300)")] = None
    max_unscored: Annotated[
        float | None,
        _of_run("share of failed or unscored rows beyond which the exit code is 3 (0.1)"),
    ] = None
    reuse: Annotated[
        Path | None, _of_run("an earlier run, whose draws and marks are taken over")
    ] = None
    prices: Annotated[options.Prices, Parameter(group=_RUN)] = None
    max_tokens_total: Annotated[options.MaxTokensTotal, Parameter(group=_RUN)] = None
    max_cost: Annotated[options.MaxCost, Parameter(group=_RUN)] = None
    deadline: Annotated[options.Deadline, Parameter(group=_RUN)] = None

    def fields(self) -> dict[str, Any]:
        """The plan's fields, as far as they were given."""
        return {
            "prompts_dir": self.prompts_dir,
            "limits": known({"concurrency": self.concurrency, "timeout": self.timeout}),
            "max_unscored": self.max_unscored,
            "reuse": self.reuse,
            "prices": self.prices,
            "stop": options.stop_fields(self.max_tokens_total, self.max_cost, self.deadline),
        }


def known(fields: dict[str, Any]) -> dict[str, Any] | None:
    """The fields that were given; None where none was."""
    return {k: v for k, v in fields.items() if v is not None} or None


class RowWatch(Watch):
    """Progress on a terminal: how many rows are at their end, and as what.

    `ends`: what each outcome is called, in the order in which they are told.
    """

    def __init__(self, console: Console, ends: Mapping[str, str]) -> None:
        super().__init__(console)
        self.names, self.ends = ends, dict.fromkeys(ends, 0)

    def row(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        self.done += 1
        self.ends[row["outcome"]] += 1
        told = ", ".join(f"{self.ends[e]} {name}" for e, name in self.names.items() if self.ends[e])
        self.progress.update(self.task, completed=self.done, description=told)
        step = max(1, self.total // 10)
        if not self.console.is_terminal and (self.done % step == 0 or self.done == self.total):
            self.console.print(f"{self.done} of {self.total} rows: {told}", highlight=False)


def conclude(result: RunResult, max_unscored: float, reasons_in: str) -> int:
    """Say why a run stopped, or left too much undecided. Returns the exit code."""
    if result.stopped:
        sys.stderr.write(f"adhere: {result.stopped}\n")
    elif result.exit_code == EXIT_INCOMPLETE:
        sys.stderr.write(
            f"adhere: more than {max_unscored:.0%} of the rows failed or are unscored; their "
            f"reasons stand in {result.folder / reasons_in}\n"
        )
    return result.exit_code
