"""`adhere data redteam | propose | reflect`: the modules of IterAlign, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from adhere.cli import options
from adhere.cli.console import wide_console
from adhere.cli.iteralign_options import (
    BadOptions,
    OracleOptions,
    PolicyOptions,
    PoolOptions,
    given,
)
from adhere.cli.row_runs import RowWatch, RunOptions, conclude

if TYPE_CHECKING:
    from adhere.experiments.phases import Listener
    from adhere.experiments.starts import RunResult

Config = Annotated[
    Path | None, Parameter(help="a YAML file with the fields of a plan (docs/iteralign.md)")
]
Out = Annotated[Path | None, Parameter(help="the run's folder")]
Failures = Annotated[
    Path | None, Parameter(help="failures.jsonl, or the folder of `adhere data redteam`")
]


def redteam(
    config: Config = None,
    *,
    pool: PoolOptions | None = None,
    policy: PolicyOptions | None = None,
    bad: BadOptions | None = None,
    repeats: Annotated[int | None, Parameter(help="answers to each prompt (1)")] = None,
    out: Out = None,
    run: RunOptions | None = None,
    quiet: options.Quiet = False,
) -> int:
    """Red-team a model: ask it a pool of prompts, and find its bad answers.

    Writes failures.jsonl (prompt, bad answer, why), which `adhere data propose` and `reflect` read,
    good.jsonl, results.jsonl and summary.json with the rate of bad answers and its interval. A
    killed run goes on when the same command is given again.

    For example:
      adhere data redteam --prompts prompts.jsonl --model weights:smollm2-135m
          --found-by rules --spec spec.md --out red
      adhere data redteam --suite harmfulqa:path=harmfulqa.json,limit=200 --model openai:mine
          --base-url http://127.0.0.1:8000/v1 --judge openai:other
          --judge-base-url http://127.0.0.1:8001/v1 --out red
    """
    from adhere.training.recipes.iteralign.plan import RedteamPlan
    from adhere.training.recipes.iteralign.plan_file import read_plan
    from adhere.training.recipes.iteralign.redteam import redteam as run_redteam

    fields = given(
        (pool or PoolOptions()).fields(), (policy or PolicyOptions()).fields(),
        (bad or BadOptions()).fields(), {"repeats": repeats, "out": out},
        (run or RunOptions()).fields(),
    )  # fmt: skip
    plan = read_plan(RedteamPlan, config, fields)
    ends = {"bad": "bad", "good": "good", "unscored": "unscored", "failed": "failed"}
    result = _watched(lambda watch: run_redteam(plan, watch), ends, quiet=quiet)
    if not quiet:
        found = result.summary
        rate = found["bad_rate"]
        share = "no rate" if rate["value"] is None else (
            f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
        )  # fmt: skip
        _say(
            result,
            f"{found['bad']} of {rate['of']} answers are bad: {share}. {found['unscored']} "
            f"unscored, {found['failed']} failed.",
            f"Find the rules that were missing: adhere data propose --failures {result.folder} "
            "--oracle MODEL --out ..."
            if found["bad"]
            else "",
        )
    return conclude(result, plan.max_unscored, "results.jsonl")


def propose(
    config: Config = None,
    *,
    failures: Failures = None,
    oracle: OracleOptions | None = None,
    known: Annotated[
        Path | None, Parameter(help="a spec whose rules are not to be proposed again")
    ] = None,
    chunk_tokens: Annotated[
        int | None, Parameter(help="failures of one call, in tokens (2000)")
    ] = None,
    about: Annotated[
        str | None, Parameter(help="what the assistant is for, as the oracle is told")
    ] = None,
    out: Out = None,
    run: RunOptions | None = None,
    quiet: options.Quiet = False,
) -> int:
    """Let a stronger model write the rules whose absence caused the failures.

    Each rule names the failures that it would have prevented. A rule that stands in a failure's own
    words, or comes from a text that speaks to the oracle of rules, is flagged and left out of
    constitution.md. Writes rules.jsonl (all of them) and constitution.md, a spec file.

    For example:
      adhere data propose --failures red --oracle openai:strong
          --oracle-base-url http://127.0.0.1:8001/v1 --out rules
    """
    from adhere.training.recipes.iteralign.plan import ProposePlan
    from adhere.training.recipes.iteralign.plan_file import read_plan
    from adhere.training.recipes.iteralign.propose import propose as run_propose

    fields = given(
        (oracle or OracleOptions()).fields(),
        {"failures": failures, "known": known, "chunk_tokens": chunk_tokens, "about": about,
         "out": out},
        (run or RunOptions()).fields(),
    )  # fmt: skip
    plan = read_plan(ProposePlan, config, fields)
    ends = {"proposed": "with rules", "none": "without", "failed": "failed"}
    result = _watched(lambda watch: run_propose(plan, watch), ends, quiet=quiet)
    if not quiet:
        found = result.summary
        lines = [
            f"{found['rules']} rules, {found['flagged']} of them flagged; they cover "
            f"{found['covered']} of {found['failures']} failures.",
        ]
        lines += [
            f"note: the {one['where']} of {one['id']} speaks to the oracle of rules"
            for one in found["sources_speaking_of_rules"][:10]
        ]
        spec = result.folder / "constitution.md"
        lines.append(f"The rules as a spec: {spec}" if found["rules"] > found["flagged"] else "")
        _say(result, *lines)
    return conclude(result, plan.max_unscored, "results.jsonl")


def reflect(
    config: Config = None,
    *,
    failures: Failures = None,
    rules: Annotated[Path | None, Parameter(help="the rules: a spec file")] = None,
    policy: PolicyOptions | None = None,
    way: Annotated[
        str | None,
        Parameter(
            help="answer: again with the rules in view (default); critique: criticize and revise; "
            "one_by_one: by one rule after the other; published: the rules within the prompt"
        ),
    ] = None,
    most_rules: Annotated[int | None, Parameter(help="rules in one prompt (8)")] = None,
    tries: Annotated[
        int | None, Parameter(help="draws for one failure until the gate lets one by (1)")
    ] = None,
    no_gate: Annotated[
        bool, Parameter(negative=(), help="train also on what is still bad, as published")
    ] = False,
    bad: BadOptions | None = None,
    repeats: Annotated[int | None, Parameter(help="rows to try for each failure (1)")] = None,
    out: Out = None,
    run: RunOptions | None = None,
    quiet: options.Quiet = False,
) -> int:
    """Let the model answer its failures again under the rules, and keep what has become good.

    Writes rows.jsonl (prompt and revision, without the rules: `adhere train --recipe iteralign`),
    pairs.jsonl (the revision preferred to the bad answer: `adhere train`), rejected.jsonl with
    every reason, and summary.json.

    For example:
      adhere data reflect --failures red --rules rules/constitution.md
          --model weights:smollm2-135m --found-by rules --spec spec.md --tries 4 --out pairs
    """
    from adhere.training.recipes.iteralign.plan import ReflectPlan
    from adhere.training.recipes.iteralign.plan_file import read_plan
    from adhere.training.recipes.iteralign.reflect import reflect as run_reflect

    fields = given(
        (policy or PolicyOptions()).fields(), (bad or BadOptions()).fields(),
        {"failures": failures, "rules": rules, "way": way, "most_rules": most_rules,
         "tries": tries, "gate": False if no_gate else None, "repeats": repeats, "out": out},
        (run or RunOptions()).fields(),
    )  # fmt: skip
    plan = read_plan(ReflectPlan, config, fields)
    ends = {"kept": "kept", "rejected": "rejected", "failed": "failed"}
    result = _watched(lambda watch: run_reflect(plan, watch), ends, quiet=quiet)
    if not quiet:
        found = result.summary
        why = ", ".join(f"{reason} {n}" for reason, n in found["rejected_by_reason"].items())
        rows = result.folder / "rows.jsonl"
        _say(
            result,
            f"{found['rows']} of {found['planned']} failures have a revision to train on"
            + (f"; rejected: {why}." if why else "."),
            f"Train on them: adhere train --recipe iteralign --rows {rows} --model weights:NAME "
            "--out ..."
            if found["rows"]
            else "",
        )
    return conclude(result, plan.max_unscored, "rejected.jsonl")


def _watched(
    start: Callable[[Listener], Coroutine[Any, Any, RunResult]],
    ends: Mapping[str, str],
    *,
    quiet: bool,
) -> RunResult:
    with RowWatch(Console(stderr=True, quiet=quiet), ends) as watch:
        return asyncio.run(start(watch))


def _say(result: RunResult, *lines: str) -> None:
    """Print what came of a run, and where its files are. No texts but rules."""
    out = wide_console()
    if result.did_nothing:
        out.print(f"{result.folder}: already finished; nothing was run.", highlight=False)
    notes = [f"note: {words}" for words in result.summary.get("not_apart", ())]
    for line in (*lines, *notes, f"Everything: {result.folder}"):
        if line:
            out.print(line, highlight=False, markup=False, soft_wrap=True)
