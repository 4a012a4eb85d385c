"""`adhere train --recipe grpo`: its own options, and what it shows. docs/grpo.md is the guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adhere.cli import options
from adhere.cli.console import wide_console
from adhere.errors import EXIT_DONE, EXIT_INCOMPLETE, BadInput
from adhere.reporting import formats as f

if TYPE_CHECKING:
    from adhere.training.grpo.plan import GrpoPlan
    from adhere.training.grpo.steps import GrpoLog

_GRPO = Group("Rewards (--recipe grpo)", sort_key=7)
_LINES = 20  # about so many in all


@Parameter(name="*")
@dataclass(frozen=True)
class GrpoOptions:
    """What only the recipe grpo takes; other fields of its plan stand in a YAML file."""

    prompts: Annotated[
        Path | None, Parameter(group=_GRPO, help="prompts to answer, or to teach on (--teacher)")
    ] = None
    reward: Annotated[
        str | None,
        Parameter(
            group=_GRPO,
            help="checks: share of the checked rules that are followed (default); judge: of all "
            "rules, by --judge; guard: 1 where --judge, a guard, says safe",
        ),
    ] = None
    generations: Annotated[
        int | None, Parameter(group=_GRPO, help="answers to each prompt that are compared (8)")
    ] = None
    max_tokens: Annotated[
        int | None, Parameter(group=_GRPO, help="longest answer, thought included (2048)")
    ] = None
    temperature: Annotated[float | None, Parameter(group=_GRPO, help="of sampling (1)")] = None
    reward_sees_thought: Annotated[
        bool | None,
        Parameter(group=_GRPO, negative=(), help="judge answers with their thoughts"),
    ] = None
    must_think: Annotated[
        bool | None,
        Parameter(group=_GRPO, negative=(), help="an answer without a closed thought gets 0"),
    ] = None
    judge: Annotated[str | None, Parameter(group=_GRPO, help="openai:NAME")] = None
    judge_mode: Annotated[
        str | None, Parameter(group=_GRPO, help="joint (default), sequential or refusal")
    ] = None
    judge_base_url: Annotated[
        str | None, Parameter(group=_GRPO, help="root of the judge's API")
    ] = None
    judge_api_key_env: Annotated[
        str | None, Parameter(group=_GRPO, help="the variable that holds the judge's key")
    ] = None
    guard_prompt: Annotated[options.GuardPrompt, Parameter(group=_GRPO)] = None

    def fields(self) -> dict[str, Any]:
        """The plan's fields that were given."""
        own = {
            k: v
            for k, v in asdict(self).items()
            if not k.startswith("judge") and k != "guard_prompt"
        }
        judge = options.judge_fields(
            self.judge, self.judge_mode, self.judge_base_url, self.judge_api_key_env,
            guard_prompt=self.guard_prompt,
        )  # fmt: skip
        return {k: v for k, v in {**own, "judge": judge}.items() if v is not None}


def refuse_without_grpo(given: GrpoOptions | None) -> None:
    """Raises BadInput for options of this recipe where another one was asked for."""
    if given is not None and (fields := given.fields()):
        name = "--" + next(iter(fields)).replace("_", "-")
        raise BadInput(
            f"{name}: found with another recipe; expected --recipe grpo beside it",
            hint="docs/grpo.md says what it is for.",
        )


def start(
    config: Path | None,
    given: Mapping[str, Any],
    *,
    accelerate_config: Path | None = None,
    license_name: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Read the plan, train, and say what came of it. Returns the exit code."""
    from adhere.training.grpo.plan_file import read_grpo_plan

    if accelerate_config is not None:
        raise BadInput(
            "--accelerate-config: found with --recipe grpo; expected none",
            hint="GRPO trains in one process.",
        )
    plan, preset = read_grpo_plan(config, {k: v for k, v in given.items() if v is not None})
    from adhere.training.grpo.trainer import check_grpo, train_grpo

    if dry_run:
        cases, _ = check_grpo(plan)
        _show_outlook(plan, len(cases))
        return EXIT_DONE
    trained = train_grpo(plan, progress=Lines(Console(stderr=True, quiet=quiet)))
    from adhere.records.run_folder import write_atomic
    from adhere.training.finishing import CARD_FILE
    from adhere.training.grpo.card import grpo_card, headline

    card = grpo_card(trained, preset=preset, license_name=license_name)
    write_atomic(trained.model / CARD_FILE, card)
    if not quiet:
        out = wide_console()
        for text in (
            headline(trained),
            f"Model: {trained.model}",
            f"Measure it: adhere eval --spec {plan.spec} --prompts PROMPTS --method raw "
            f"--model {plan.model} --model weights:{trained.model} --out RUN",
        ):
            out.print(text, highlight=False, markup=False, soft_wrap=True)
    if trained.short_of_verdicts:
        Console(stderr=True).print(
            f"adhere: {f.count(trained.no_verdict)} of {f.count(trained.judged)} judged answers "
            f"got no verdict, more than {plan.max_unscored:.0%} (max_unscored): the adapter "
            "learned from the others alone.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        return EXIT_INCOMPLETE
    return EXIT_DONE


class Lines:
    """A `GrpoProgress`: about twenty lines over a whole training, and no text of an answer."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps = 0

    def note(self, text: str) -> None:
        """See `GrpoProgress`."""
        self.console.print(f.one_line(text, 2_000), highlight=False, markup=False, soft_wrap=True)

    def plan(self, steps: int, prompts: int) -> None:
        """See `GrpoProgress`."""
        self.steps = steps
        self.note(f"{f.count(steps)} steps on {f.count(prompts)} prompts")

    def step(self, log: GrpoLog) -> None:
        """See `GrpoProgress`."""
        every = max(1, self.steps // _LINES)
        if log.step != 1 and log.step % every and log.step < self.steps:
            return
        reward = f.DASH if log.reward is None else f"{log.reward:.3f}"
        left = (self.steps - log.step) * log.seconds
        aside = [
            f"{f.count(number)} {what}"
            for number, what in (
                (log.unscored, "without a reward"), (log.unclosed, "thoughts left open"),
                (log.empty, "empty"), (log.cut, "cut"),
            )
            if number
        ]  # fmt: skip
        self.note(
            f"step {f.count(log.step)} of {f.count(self.steps)}: reward {reward}, "
            f"{log.flat_groups:.0%} of the prompts without a difference, {log.length:.0f} tokens "
            f"an answer{''.join(f', {text}' for text in aside)}"
            + (f", about {f.duration(left)} left" if left else "")
        )


def _show_outlook(plan: GrpoPlan, prompts: int) -> None:
    from adhere.training.grpo.card import how
    from adhere.training.grpo.prompts import steps_of

    steps = steps_of(plan, prompts)
    answers = steps * plan.batch_size
    rows = [
        ("prompts", f.count(prompts)),
        ("steps", f"{f.count(steps)}, each of {f.count(plan.prompts_a_step)} prompts with "
                  f"{plan.generations} answers"),
        ("answers", f"{f.count(answers)} are sampled, of at most {f.count(plan.max_tokens)} "
                    f"tokens: at most {f.count(answers * plan.max_tokens)}"),
        ("reward", how(plan)),
        ("calls to the judge", "none" if plan.judge is None else
         f"{f.count(answers)} or more" if plan.judge.mode != "sequential" else
         f"{f.count(answers)} for each rule"),
        ("objective", f"GRPO ({plan.loss}), beta {plan.beta:g}, rate {plan.learning_rate:g}"),
    ]  # fmt: skip
    table = Table(title="What it would take", title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    wide_console().print(table)
