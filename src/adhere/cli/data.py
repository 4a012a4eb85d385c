"""`adhere data`: make training data. `adhere data clair`: preference pairs by minimal revisions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from adhere.cli import options
from adhere.cli.data_attack import attack
from adhere.cli.data_distill import distill
from adhere.cli.data_iteralign import propose, redteam, reflect
from adhere.cli.row_runs import JudgeOptions, RowWatch, RunOptions, conclude, known
from adhere.errors import BadInput

app = App(name="data", help="Make training data out of prompts and a spec; attack a model.")
app.command(attack)
app.command(distill)
app.command(redteam)
app.command(propose)
app.command(reflect)


@app.command
def clair(
    config: Annotated[
        Path | None, Parameter(help="a YAML file with the fields of a plan (docs/clair.md)")
    ] = None,
    *,
    prompts: Annotated[
        Path | None, Parameter(help="JSON lines with `prompt` or `messages`")
    ] = None,
    spec: Annotated[Path | None, Parameter(help="the spec file")] = None,
    model: options.Model = None,
    out: Annotated[Path | None, Parameter(help="the run's folder")] = None,
    set: Annotated[
        str | None,
        Parameter(
            help="clair (default): the policy's answer and its revision; on_policy_judge: worst "
            "and best of its answers; off_policy_judge: of two other models' (--model twice); "
            "stronger_preferred: its answer and the reviser's own"
        ),
    ] = None,
    reviser: Annotated[
        str | None,
        Parameter(
            help="openai:NAME, local:NAME or weights:NAME revises; rules: the rules' own checks "
            "repair the answers, without a model"
        ),
    ] = None,
    reviser_base_url: Annotated[
        str | None, Parameter(help="the reviser's server, as --base-url")
    ] = None,
    reviser_api_key_env: Annotated[
        str | None, Parameter(help="the variable that holds the reviser's key, as --api-key-env")
    ] = None,
    reviser_prompt: Annotated[
        str | None,
        Parameter(
            help="rules (default): it is told which rules are violated; published: it is not"
        ),
    ] = None,
    reviser_parser: Annotated[
        str | None,
        Parameter(
            help="strict (default): only a reply that can be read in one way; official: as "
            "the published code reads it"
        ),
    ] = None,
    reviser_temperature: Annotated[
        float | None, Parameter(help="sampling temperature of the reviser (0.7, as published)")
    ] = None,
    reviser_tokens: Annotated[
        int | None,
        Parameter(help="longest reply of the reviser (4096, as published; 1024 on this machine)"),
    ] = None,
    tries: Annotated[
        int | None, Parameter(help="replies to one answer before it is dropped (3)")
    ] = None,
    with_spec: Annotated[
        bool, Parameter(negative=(), help="the policy answers with the spec in its prompt")
    ] = False,
    method: Annotated[
        str | None, Parameter(help="how the policy answers: NAME[:key=value,...] (raw)")
    ] = None,
    spec_in_rows: Annotated[
        bool, Parameter(negative=(), help="the pairs' prompts have the spec in them")
    ] = False,
    candidates: Annotated[
        int | None, Parameter(help="on_policy_judge: answers to each prompt (2, as published)")
    ] = None,
    improve: Annotated[
        str | None,
        Parameter(
            help="fewer: the chosen text violates fewer rules (default); any: whatever it violates "
            "(as published; default for stronger_preferred)"
        ),
    ] = None,
    keep_followed: Annotated[
        bool,
        Parameter(negative=(), help="the chosen text violates no rule that the rejected one keeps"),
    ] = False,
    must_follow: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="id of a rule that the chosen text must follow, for example whether it answers "
            "at all; repeatable",
        ),
    ] = None,
    most_edit: Annotated[
        float | None,
        Parameter(help="longest edit: Levenshtein distance over the longer text, 0 to 1 (no cap)"),
    ] = None,
    cut_drafts: Annotated[
        bool, Parameter(negative=(), help="use answers that the token limit ended, too")
    ] = False,
    judge: JudgeOptions | None = None,
    base_url: options.BaseUrl = None,
    api_key_env: options.ApiKeyEnv = None,
    prefill: options.Prefill = None,
    chat_template: options.ChatTemplate = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = None,
    repeats: Annotated[int | None, Parameter(help="pairs to try for each prompt (1)")] = None,
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
    """Make preference pairs: the policy answers, and its answer is revised as little as possible.

    The answer is marked by the spec's checks (and a judge, with --judge). Where it violates rules,
    the reviser mends them; the revision is chosen over the answer if it violates fewer rules and is
    a revision indeed. Writes pairs.jsonl (as TRL and `adhere train` read it), dropped.jsonl with
    the reason of every row that gave no pair, and summary.json into the folder. A killed or stopped
    run goes on when the same command is given again.

    For example:
      adhere data clair --prompts prompts.jsonl --spec spec.md --model local:smollm2-135m
          --reviser rules --out pairs
      adhere data clair --prompts prompts.jsonl --spec spec.md --model openai:small
          --base-url http://127.0.0.1:8000/v1 --reviser openai:gpt-4.1 --judge openai:other
          --judge-base-url http://127.0.0.1:8001/v1 --out pairs
      adhere data clair --set on_policy_judge --candidates 4 --prompts prompts.jsonl
          --spec spec.md --model local:smollm2-135m --out on-policy
    """
    from adhere.training.recipes.clair.plan_file import read_clair_plan

    options.need_model(base_url, model)
    asked = {
        "base_url": reviser_base_url,
        "api_key_env": reviser_api_key_env,
        "prompt": reviser_prompt,
        "parser": reviser_parser,
        "temperature": reviser_temperature,
        "reply_tokens": reviser_tokens,
        "tries": tries,
    }
    given: dict[str, Any] = {
        "prompts": prompts,
        "spec": spec,
        "models": options.model_fields(model, base_url, api_key_env, prefill, chat_template),
        "out": out,
        "set": set,
        "reviser": _reviser(reviser, asked),
        "method": _method(method, with_spec),
        "spec_in_rows": spec_in_rows or None,
        "candidates": candidates,
        "accept": known({
            "improve": improve,
            "keep_followed": keep_followed or None,
            "must_follow": must_follow,
            "most_edit": most_edit,
            "cut_drafts": cut_drafts or None,
        }),
        "judge": judge.fields() if judge else None,
        "sampling": options.sampling_fields(temperature, max_tokens, seed) or None,
        "repeats": repeats,
        "order": order,
        **(run or RunOptions()).fields(),
    }  # fmt: skip
    plan = read_clair_plan(config, {k: v for k, v in given.items() if v is not None})
    if dry_run:
        return _show_expected(plan)
    from adhere.training.recipes.clair.run import make_clair_pairs

    with RowWatch(Console(stderr=True, quiet=quiet), _ENDS) as watch:
        result = asyncio.run(make_clair_pairs(plan, watch))
    if not quiet:
        from adhere.cli.clair_table import show_pairs

        show_pairs(result)
    return conclude(result, plan.max_unscored, "dropped.jsonl")


def _reviser(name: str | None, asked: dict[str, Any]) -> dict[str, Any] | str | None:
    """The reviser's fields that were given. Raises BadInput for fields of a model without one."""
    fields = known({"model": name, **asked})
    if name != "rules":
        return fields
    if (also := known(asked)) is not None:
        raise BadInput(
            f"--reviser rules: found {next(iter(also))} for it; expected nothing else",
            hint="The rules' checks repair answers without a model; these options are a model's.",
        )
    return name


def _method(name: str | None, with_spec: bool) -> str | None:
    """How the policy answers. Raises BadInput for --with-spec beside one without it."""
    if not with_spec:
        return name
    if name is not None and name.partition(":")[0] == "raw":
        raise BadInput(
            f"--with-spec: found --method {name}, which leaves the spec out; expected one of them",
            hint="--with-spec by itself is --method vanilla.",
        )
    return name or "vanilla"


def _show_expected(plan: Any) -> int:
    from adhere.cli.clair_table import expected_table
    from adhere.cli.console import wide_console
    from adhere.training.recipes.clair.expecting import expected_calls
    from adhere.training.recipes.clair.inputs import read_clair_inputs

    inputs = read_clair_inputs(plan)
    console = wide_console()
    console.print(expected_table(expected_calls(inputs), len(inputs.row_keys())))
    return 0


_ENDS = {"pair": "pairs", "clean": "followed all", "dropped": "dropped", "failed": "failed"}
