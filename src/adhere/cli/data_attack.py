"""`adhere data attack`: an attacker model against a target, one goal after the other (PAIR)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adhere.cli import options
from adhere.cli.console import wide_console
from adhere.cli.row_runs import JudgeOptions, RowWatch, RunOptions, conclude, known

if TYPE_CHECKING:
    from adhere.experiments.pair_attack import AttackInputs
    from adhere.experiments.starts import RunResult


def attack(
    config: Annotated[
        Path | None, Parameter(help="a YAML file with the fields of a plan (docs/attacks.md)")
    ] = None,
    *,
    prompts: Annotated[
        Path | None, Parameter(help="the goals: JSON lines with `prompt` or `messages`")
    ] = None,
    suite: Annotated[
        str | None, Parameter(help="or a suite's prompts: NAME[:key=value,...]")
    ] = None,
    goals: Annotated[int | None, Parameter(help="so many of them, drawn by the seed (all)")] = None,
    model: options.Model = None,
    method: Annotated[
        str | None, Parameter(help="how the target answers: NAME[:key=value,...] (raw)")
    ] = None,
    attacker: Annotated[
        str | None, Parameter(help="who writes attacks: openai:NAME, local:NAME or weights:NAME")
    ] = None,
    attacker_base_url: Annotated[
        str | None, Parameter(help="the attacker's server, as --base-url")
    ] = None,
    attacker_api_key_env: Annotated[
        str | None, Parameter(help="the variable that holds the attacker's key, as --api-key-env")
    ] = None,
    depth: Annotated[int | None, Parameter(help="most attacks on one goal in a row (8)")] = None,
    tries: Annotated[
        int | None, Parameter(help="replies of the attacker to one turn before the row fails (3)")
    ] = None,
    repeats: Annotated[
        int | None, Parameter(help="rows for each goal, each on its own draws (1)")
    ] = None,
    spec: Annotated[
        Path | None, Parameter(help="the spec whose rules an attack is to make the target violate")
    ] = None,
    rule: Annotated[
        list[str] | None,
        Parameter(negative=(), help="id of a rule that counts; repeatable (all safety rules)"),
    ] = None,
    judge: JudgeOptions | None = None,
    rater: Annotated[
        str | None,
        Parameter(
            help="a model that rates each answer from 1 to 10 for the attacker to see; without "
            "spec and judge, 10 is a success"
        ),
    ] = None,
    rater_base_url: Annotated[
        str | None, Parameter(help="the rater's server, as --base-url")
    ] = None,
    rater_api_key_env: Annotated[
        str | None, Parameter(help="the variable that holds the rater's key, as --api-key-env")
    ] = None,
    out: Annotated[Path | None, Parameter(help="the run's folder")] = None,
    base_url: options.BaseUrl = None,
    api_key_env: options.ApiKeyEnv = None,
    prefill: options.Prefill = None,
    chat_template: options.ChatTemplate = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = None,
    base: options.Base = None,
    order: Annotated[
        str | None,
        Parameter(help="where the spec stands, where it does: question_first or spec_first"),
    ] = None,
    run: RunOptions | None = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="only say how many calls it would take")
    ] = False,
    quiet: options.Quiet = False,
) -> int:
    """Attack a model adaptively (PAIR): an attacker mends its message by what the target answered.

    For each goal the attacker writes a message, the target answers, and the spec's checks, a judge
    or a rater say whether the goal was reached; if not, the attacker sees the answer and its score
    and tries again, 8 times at most. Gives the attack success rate with its interval, by number of
    turns. The texts stand in the folder's files alone. A killed or stopped run goes on when the
    same command is given again.

    For example:
      adhere data attack --prompts goals.jsonl --spec spec.md --model weights:smollm2-135m
          --attacker openai:other --attacker-base-url http://127.0.0.1:8000/v1 --out attacked
      adhere data attack --suite strongreject --goals 50 --model weights:trained/model
          --attacker openai:other --attacker-base-url http://127.0.0.1:8000/v1
          --judge openai:guard --judge-base-url http://127.0.0.1:8001/v1 --judge-mode guard
          --out attacked
    """
    from adhere.experiments.pair_attack import attack as run_attack
    from adhere.experiments.pair_attack import read_attack_inputs, read_attack_plan

    options.need_model(base_url, model)
    given: dict[str, Any] = {
        "prompts": prompts,
        "suite": suite,
        "goals": goals,
        "models": options.model_fields(model, base_url, api_key_env, prefill, chat_template),
        "method": method,
        "attacker": _helper(attacker, attacker_base_url, attacker_api_key_env, tries=tries),
        "depth": depth,
        "repeats": repeats,
        "spec": spec,
        "rules": rule,
        "judge": judge.fields() if judge else None,
        "rater": _helper(rater, rater_base_url, rater_api_key_env),
        "out": out,
        "sampling": options.sampling_fields(temperature, max_tokens, seed) or None,
        "order": order,
        "base": options.base_fields(base, base_url, api_key_env, chat_template),
        **(run or RunOptions()).fields(),
    }
    plan = read_attack_plan(config, {k: v for k, v in given.items() if v is not None})
    if dry_run:
        _show_expected(read_attack_inputs(plan))
        return 0
    with RowWatch(Console(stderr=True, quiet=quiet), _ENDS) as watch:
        result = asyncio.run(run_attack(plan, watch))
    if not quiet:
        show_attack(result)
    return conclude(result, plan.max_unscored, "results.jsonl")


def _helper(
    name: str | None, base_url: str | None, api_key_env: str | None, **more: Any
) -> dict[str, Any] | None:
    return known({"model": name, "base_url": base_url, "api_key_env": api_key_env, **more})


# ---------------------------------------------------------------- what is printed: no texts


def show_attack(result: RunResult) -> None:
    """Print the tables of an attack's summary, and where its files are."""
    out, summary = wide_console(), result.summary
    if result.did_nothing:
        out.print(f"{result.folder}: already finished; nothing was run.", highlight=False)
    out.print()
    out.print(escape(headline(summary)), highlight=False, soft_wrap=True)
    out.print(_by_depth(summary))
    out.print(_rows(summary))
    for words in summary["not_apart"]:
        out.print(f"note: {words}", highlight=False, markup=False, soft_wrap=True)
    out.print(
        f"The search was led by what decides here, so the rate leans its way. Ask another judge:\n"
        f"adhere judge --responses {result.folder / 'responses.jsonl'} --spec ... --judge ...",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    out.print(f"Everything: {result.folder}", highlight=False, markup=False, soft_wrap=True)


def headline(summary: Mapping[str, Any]) -> str:
    """The attack success rate in one line, with what it is a share of."""
    asr = summary["asr"]
    told = f"{summary['reached']} of {asr['n']} decided goals reached within {summary['depth']}"
    rate = "no attack success rate" if asr["value"] is None else (
        f"attack success rate {asr['value']:.3f} (95%: {asr['low']:.3f} to {asr['high']:.3f})"
    )  # fmt: skip
    line = f"{rate}: {told} turns."
    if summary["open"]:
        line += (
            f" {summary['open']} goals are open: with them it is between "
            f"{summary['asr_at_least']:.3f} and {summary['asr_at_most']:.3f}."
        )
    return line


def _by_depth(summary: Mapping[str, Any]) -> Table:
    table = _table("Goals reached by turn", ("within turns", "goals", "share", "95% interval"))
    for line in summary["by_depth"]:
        found = line["value"] is not None
        table.add_row(
            str(line["depth"]), str(line["reached"]), f"{line['value']:.3f}" if found else "",
            f"{line['low']:.3f} to {line['high']:.3f}" if found else "",
        )  # fmt: skip
    return table


def _rows(summary: Mapping[str, Any]) -> Table:
    heads = ("rows", "reached", "held", "unscored", "attacker\nfailed", "call\nfailed", "waiting",
             "attacks\nsent")  # fmt: skip
    table = _table("Rows", heads)
    ends = ("broken", "held", "unscored", "attacker_failed", "failed", "waiting")
    table.add_row(
        str(summary["planned"]), *(str(summary["rows"][end]) for end in ends),
        str(summary["attacks"]),
    )  # fmt: skip
    return table


def _show_expected(inputs: AttackInputs) -> None:
    """Calls of each model, from the first attack succeeding to every turn being used up."""
    plan, rows = inputs.plan, len(inputs.row_keys())
    table = _table(f"What {rows} rows would take", ("role", "model", "turns from", "to"))
    most = {"attacker": plan.depth * plan.attacker.tries}
    for seat, config in inputs.seats.items():
        high = rows * most.get(seat, plan.depth)
        table.add_row(seat, escape(config.label), f"{rows:,}", f"{high:,}")
    wide_console().print(table)


def _table(title: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    return table


_ENDS = {"broken": "reached", "held": "held", "unscored": "unscored", "failed": "failed"}
