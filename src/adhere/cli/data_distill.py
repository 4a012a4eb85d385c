"""`adhere data distill`: rows to train a student on, by a teacher that reasons over the spec."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from adhere.cli import options
from adhere.cli.row_runs import RowWatch, RunOptions, conclude, known
from adhere.cli.teaching import ENDS
from adhere.errors import BadInput


def distill(
    config: Annotated[
        Path | None, Parameter(help="a YAML file with the fields of a plan (docs/distillation.md)")
    ] = None,
    *,
    prompts: Annotated[
        Path | None,
        Parameter(help="JSON lines with `prompt` or `messages`, and optionally `category`"),
    ] = None,
    spec: Annotated[Path | None, Parameter(help="the spec file")] = None,
    teacher: Annotated[
        str | None, Parameter(help="openai:NAME, local:NAME or weights:NAME reasons and answers")
    ] = None,
    out: Annotated[Path | None, Parameter(help="the run's folder")] = None,
    compose: Annotated[
        str | None,
        Parameter(
            help="what the teacher is shown: relevant+summaries (default: the rules of the "
            "prompt's category in full, others in brief), relevant, full"
        ),
    ] = None,
    form: Annotated[
        str | None,
        Parameter(
            help="auto (default); think: a model that thinks by itself; parts: it is asked for "
            "two parts; forced: its thought is begun, and closed for it"
        ),
    ] = None,
    think_tokens: Annotated[
        int | None, Parameter(help="forced: the longest thought, in tokens (256)")
    ] = None,
    think_words: Annotated[
        int | None, Parameter(help="ask the teacher for a thought of so many words at most")
    ] = None,
    tries: Annotated[
        int | None, Parameter(help="samples for one row before it is given up (1, as published)")
    ] = None,
    repeats: Annotated[int | None, Parameter(help="rows to try for each prompt (1)")] = None,
    filter: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="checks: by the spec's checks; guard: one call of a guard; ratings: the least of "
            "several ratings; none. Repeatable (default: ratings or guard with a --judge, else "
            "checks)",
        ),
    ] = None,
    judge: Annotated[
        str | None, Parameter(help="the guard, or the model that rates: openai:NAME or local:NAME")
    ] = None,
    judge_mode: Annotated[
        str | None, Parameter(help="guard: the judge is a guard (as --filter guard says too)")
    ] = None,
    judge_base_url: options.JudgeBaseUrl = None,
    judge_api_key_env: options.JudgeApiKeyEnv = None,
    guard_prompt: Annotated[
        str | None,
        Parameter(
            help="spec: the guard's categories are the safety rules (default); own: those of its "
            "own template, as published"
        ),
    ] = None,
    ratings: Annotated[
        int | None, Parameter(help="how often each answer is rated; the least counts (3)")
    ] = None,
    least: Annotated[
        int | None, Parameter(help="the least rating that is kept, of 1 to 5 (4)")
    ] = None,
    hide_thought: Annotated[
        bool, Parameter(negative=(), help="guard or judge do not see the thought")
    ] = False,
    mix: Annotated[
        Path | None, Parameter(help="a file of rows with one answer, put behind the distilled ones")
    ] = None,
    mix_share: Annotated[
        float | None, Parameter(help="the share of all rows that those are to be (all of the file)")
    ] = None,
    base_url: Annotated[
        str | None, Parameter(help="the teacher's server, e.g. http://127.0.0.1:8000/v1")
    ] = None,
    api_key_env: options.ApiKeyEnv = None,
    prefill: options.Prefill = None,
    chat_template: options.ChatTemplate = None,
    temperature: options.Temperature = None,
    max_tokens: Annotated[
        int | None,
        Parameter(help="longest thought and answer together, in tokens (2048, as published)"),
    ] = None,
    seed: options.Seed = None,
    run: RunOptions | None = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="only say how many calls it would take")
    ] = False,
    quiet: options.Quiet = False,
) -> int:
    """Make rows that teach a student the spec: a teacher reasons over it, a filter decides.

    The teacher is shown the rules that bear on each prompt, thinks about them, and answers. Rows
    whose thought is not closed, that give away that rules were given, or that the filter refuses
    are rejected. The spec is in no row: a student trained on them knows it without being told.
    Writes rows.jsonl (as TRL and `adhere train` read it), rejected.jsonl with every reason,
    summary.json and report.html into the folder. A killed or stopped run goes on when the same
    command is given again.

    For example:
      adhere data distill --prompts prompts.jsonl --spec spec.md --teacher openai:r1
          --base-url http://127.0.0.1:8000/v1 --judge openai:other
          --judge-base-url http://127.0.0.1:8001/v1 --out rows
      adhere data distill --prompts prompts.jsonl --spec spec.md --form parts
          --teacher weights:qwen2.5-coder-1.5b --max-tokens 300 --tries 4 --out rows
    """
    from adhere.training.recipes.deliberative.plan_file import read_distill_plan

    options.need_model(base_url, teacher)
    taught_by = options.model_fields(
        [teacher] if teacher else None, base_url, api_key_env, prefill, chat_template
    )
    given: dict[str, Any] = {
        "prompts": prompts,
        "spec": spec,
        "teacher": taught_by[0] if taught_by else None,
        "out": out,
        "compose": compose,
        "form": form,
        "think_tokens": think_tokens,
        "think_words": think_words,
        "tries": tries,
        "repeats": repeats,
        "filters": _filters(filter),
        "judge": options.judge_fields(judge, judge_mode, judge_base_url, judge_api_key_env),
        "guard_prompt": guard_prompt,
        "ratings": known({"times": ratings, "least": least}),
        "sees_thought": False if hide_thought else None,
        "mix": known({"file": mix, "share": mix_share}),
        "sampling": options.sampling_fields(temperature, max_tokens, seed) or None,
        **(run or RunOptions()).fields(),
    }
    plan = read_distill_plan(config, {k: v for k, v in given.items() if v is not None})
    if dry_run:
        return show_expected(plan)
    from adhere.training.recipes.deliberative.run import distill as run_distill

    with RowWatch(Console(stderr=True, quiet=quiet), ENDS) as watch:
        result = asyncio.run(run_distill(plan, watch))
    if not quiet:
        from adhere.cli.distill_table import show_rows

        show_rows(result)
    return conclude(result, plan.max_unscored, "rejected.jsonl")


def _filters(given: list[str] | None) -> list[str] | None:
    """The filters in the plan's words. Raises BadInput for `none` beside others."""
    if given is not None and "none" in given and len(given) > 1:
        raise BadInput("--filter none: found others beside it; expected it alone")
    return given


def show_expected(plan: Any) -> int:
    """Print how many calls it would take at most."""
    from adhere.cli.clair_table import expected_table
    from adhere.cli.console import wide_console
    from adhere.training.recipes.deliberative.expecting import expected_calls
    from adhere.training.recipes.deliberative.inputs import read_distill_inputs

    inputs = read_distill_inputs(plan)
    wide_console().print(expected_table(expected_calls(inputs), len(inputs.row_keys())))
    return 0
