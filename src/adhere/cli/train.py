"""`adhere train`: train open weights on preference pairs, or on answers to learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from adhere.cli import options
from adhere.cli.grpo import GrpoOptions
from adhere.cli.teaching import TeacherOptions
from adhere.errors import EXIT_DONE, BadInput

_LOSS = Group("What is learned", sort_key=1)
_STEPS = Group("Steps", sort_key=2)
_WEIGHTS = Group("What is trained", sort_key=3)
_MEMORY = Group("Memory and speed", sort_key=4)
_DATA = Group("Rows that do not fit, and rows held out", sort_key=5)
_KEEPING = Group("Keeping", sort_key=6)


def train(
    config: Annotated[
        Path | None, Parameter(help="a plan as YAML: the fields below, with underscores")
    ] = None,
    *,
    recipe: Annotated[
        str | None,
        Parameter(
            help="where the rows come from: clair (`adhere data clair`), deliberative "
            "(`adhere data distill`), grpo (rewards for its own answers, docs/grpo.md), or pairs"
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        Parameter(
            name=["--pairs", "--rows"],
            help="JSON lines or Parquet, as TRL reads them: prompt, chosen and rejected; or rows "
            "with one answer to learn (prompt and completion, or messages)",
        ),
    ] = None,
    model: Annotated[
        str | None,
        Parameter(
            name=["--model", "-m"],
            help="weights:NAME of `adhere models list`, or weights:FOLDER of safetensors or of "
            "an adapter, which is then trained on (sft, grpo)",
        ),
    ] = None,
    out: Annotated[Path | None, Parameter(help="folder of the training")] = None,
    spec: Annotated[
        Path | None, Parameter(help="the spec that the pairs are for; the card names its hash")
    ] = None,
    preset: Annotated[
        str | None,
        Parameter(
            help="values for what you do not say: paper (published: rate 2e-7, batch 64; an 8B "
            "model), small (models of some hundred million parameters), deliberative (published "
            "for distilled thoughts; that recipe takes it where you name none)"
        ),
    ] = None,
    objective: Annotated[
        str | None,
        Parameter(
            group=_LOSS,
            help="auto (default; apo_zero or apo_down, and says why), apo_zero, apo_down, dpo, "
            "sft, kto; for rows with one answer, sft alone",
        ),
    ] = None,
    beta: Annotated[
        float | None, Parameter(group=_LOSS, help="how much a log-ratio counts (0.1)")
    ] = None,
    form: Annotated[
        str | None,
        Parameter(group=_LOSS, help="apo losses with TRL's + 1 (trl) or without (paper)"),
    ] = None,
    learning_rate: Annotated[
        float | None, Parameter(group=_STEPS, help="peak of the schedule (2e-7)")
    ] = None,
    schedule: Annotated[
        str | None, Parameter(group=_STEPS, help="linear (default), cosine or constant")
    ] = None,
    warmup: Annotated[
        float | None,
        Parameter(group=_STEPS, help="share of the steps in which the rate rises (0.1)"),
    ] = None,
    weight_decay: Annotated[float | None, Parameter(group=_STEPS, help="AdamW's (0)")] = None,
    max_grad_norm: Annotated[
        float | None, Parameter(group=_STEPS, help="longer gradients are scaled to it (1)")
    ] = None,
    epochs: Annotated[
        float | None, Parameter(group=_STEPS, help="passes over the pairs (1)")
    ] = None,
    max_steps: Annotated[int | None, Parameter(group=_STEPS, help="end after so many")] = None,
    batch_size: Annotated[
        int | None, Parameter(group=_STEPS, help="pairs of one step, over all processes (64)")
    ] = None,
    seed: Annotated[int | None, Parameter(group=_STEPS, help="of order and adapter")] = None,
    shuffle: Annotated[
        bool | None, Parameter(group=_STEPS, help="another order in each pass (default)")
    ] = None,
    tune: Annotated[
        str | None,
        Parameter(
            group=_WEIGHTS,
            help="lora: an adapter (default); full: all weights; qlora: an adapter on 4-bit "
            "weights (GPU)",
        ),
    ] = None,
    lora_r: Annotated[int | None, Parameter(group=_WEIGHTS, help="rank (16)")] = None,
    lora_alpha: Annotated[
        int | None, Parameter(group=_WEIGHTS, help="the update is scaled by alpha / rank (32)")
    ] = None,
    lora_dropout: Annotated[
        float | None, Parameter(group=_WEIGHTS, help="above 0, rewards at step 0 are not 0 (0)")
    ] = None,
    lora_targets: Annotated[
        list[str] | None,
        Parameter(
            group=_WEIGHTS,
            negative=(),
            help="modules that get an adapter; may be repeated (all-linear)",
        ),
    ] = None,
    dtype: Annotated[
        str | None, Parameter(group=_WEIGHTS, help="auto (default), bfloat16 or float32")
    ] = None,
    group_size: Annotated[
        int | None, Parameter(group=_MEMORY, help="pairs that go through the model together (4)")
    ] = None,
    by_length: Annotated[
        bool | None, Parameter(group=_MEMORY, help="group pairs of like length (default)")
    ] = None,
    share_prompt: Annotated[
        bool | None,
        Parameter(group=_MEMORY, help="read what both sides begin with once (default)"),
    ] = None,
    logit_chunk: Annotated[
        int | None, Parameter(group=_MEMORY, help="tokens whose logits exist at a time (256)")
    ] = None,
    checkpoint_layers: Annotated[
        bool | None,
        Parameter(group=_MEMORY, negative=(), help="keep fewer activations, compute them twice"),
    ] = None,
    template_kwargs: Annotated[
        str | None,
        Parameter(
            group=_DATA,
            help='names that the chat template gets, as JSON: {"enable_thinking": true}',
        ),
    ] = None,
    max_length: Annotated[
        int | None, Parameter(group=_DATA, help="most tokens of a prompt with an answer (1024)")
    ] = None,
    cut_prompt: Annotated[
        bool | None,
        Parameter(group=_DATA, negative=(), help="cut prompts that are too long from the left"),
    ] = None,
    on_bad_row: Annotated[
        str | None, Parameter(group=_DATA, help="stop (default) or skip, counted with the reason")
    ] = None,
    dev_share: Annotated[
        float | None, Parameter(group=_DATA, help="share of the pairs held out (0.1)")
    ] = None,
    split_seed: Annotated[int | None, Parameter(group=_DATA, help="draws which (0)")] = None,
    eval_every: Annotated[
        int | None,
        Parameter(group=_DATA, help="steps between looks at them (0: before and after)"),
    ] = None,
    save_every: Annotated[
        int | None, Parameter(group=_KEEPING, help="steps between checkpoints (50)")
    ] = None,
    keep: Annotated[
        int | None, Parameter(group=_KEEPING, help="checkpoints that are kept (2)")
    ] = None,
    reference_folder: Annotated[
        Path | None,
        Parameter(group=_KEEPING, help="where reference log-probabilities are kept (the cache)"),
    ] = None,
    license_: Annotated[
        str | None,
        Parameter(name="--license", group=_KEEPING, help="what the card says (unknown)"),
    ] = None,
    accelerate_config: Annotated[
        Path | None,
        Parameter(help="several GPUs or machines: a file of accelerate, as in configs/accelerate"),
    ] = None,
    grpo: GrpoOptions | None = None,
    teacher: TeacherOptions | None = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="only say what it would take; loads no weights")
    ] = False,
    quiet: options.Quiet = False,
) -> int:
    """Train open weights on preference pairs (an answer to prefer, one to avoid), or on answers.

    What comes out is an ordinary adapter (or model folder) that transformers, PEFT and vLLM load,
    with a card; `adhere eval --model weights:OUT/model` measures it. docs/training.md is the guide.

    A killed training goes on from its last checkpoint when the same command is given again, to the
    same losses; a finished one only writes its page anew.

    Objectives. apo_zero raises the chosen answers and lowers the rejected ones: for chosen answers
    better than what the model writes. apo_down lowers both, the rejected ones more: for models that
    already write better. dpo only widens the difference. sft learns the chosen answers alone. auto
    takes apo_zero or apo_down by the marks in CLAIR rows, or by the model's own answers judged by
    the checks of --spec.

    Rows with one answer to learn are learned by sft: the answer's tokens, its thought included, and
    not the prompt's. --recipe deliberative is for those that `adhere data distill` makes; with a
    --teacher it distills them first.

    For example:
      adhere train --recipe clair --pairs runs/pairs/pairs.jsonl --spec spec.md
          --model weights:smollm2-135m --preset small --out runs/trained
      adhere train --recipe deliberative --rows runs/distilled/rows.jsonl
          --model weights:qwen2.5-coder-0.5b --out runs/student
      adhere train --recipe deliberative --teacher openai:r1 --teacher-base-url
          http://127.0.0.1:8000/v1 --prompts prompts.jsonl --spec spec.md
          --model weights:qwen2.5-coder-0.5b --out runs/student
      adhere train ... --dry-run
      adhere eval --spec spec.md --prompts test.jsonl --method raw --out runs/after
          --model weights:smollm2-135m --model weights:runs/trained/model
      adhere train train.yaml --accelerate-config configs/accelerate/multi_gpu.yaml
    """
    from adhere.training.plan_file import read_train_plan

    lora = {
        "r": lora_r,
        "alpha": lora_alpha,
        "dropout": lora_dropout,
        "targets": "all-linear" if lora_targets == ["all-linear"] else lora_targets,
    }
    given: dict[str, Any] = {
        "recipe": recipe,
        "pairs": pairs,
        "model": model,
        "out": out,
        "spec": spec,
        "preset": preset,
        "objective": objective,
        "beta": beta,
        "form": form,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "tune": tune,
        "lora": {k: v for k, v in lora.items() if v is not None} or None,
        "dtype": dtype,
        "group_size": group_size,
        "by_length": by_length,
        "share_prompt": share_prompt,
        "logit_chunk": logit_chunk,
        "checkpoint_layers": checkpoint_layers,
        "template_kwargs": _names(template_kwargs),
        "max_length": max_length,
        "cut_prompt": cut_prompt,
        "on_bad_row": on_bad_row,
        "dev_share": dev_share,
        "split_seed": split_seed,
        "eval_every": eval_every,
        "save_every": save_every,
        "keep": keep,
        "reference_folder": reference_folder,
    }
    from adhere.cli import grpo as grpo_recipe
    from adhere.training.grpo.plan_file import asks_for_grpo

    if asks_for_grpo(config, recipe):
        if teacher is not None and teacher.asked_for:
            raise BadInput("--teacher: found with recipe grpo; expected --recipe deliberative")
        own = grpo.fields() if grpo is not None else {}
        return grpo_recipe.start(
            config,
            {**given, **own},
            accelerate_config=accelerate_config,
            license_name=license_,
            dry_run=dry_run,
            quiet=quiet,
        )
    if teacher is not None and teacher.asked_for:
        from adhere.cli.teaching import check_student, teach, teaching_plan

        if accelerate_config is not None:
            raise BadInput(
                "--accelerate-config: found --teacher beside it; expected rows that are there",
                hint="Distill first (`adhere data distill`), then train with --rows.",
            )
        asked = {**given, "prompts": grpo.prompts if grpo else None}
        lessons = teaching_plan(teacher, config, asked)
        given["pairs"] = lessons.out / "rows.jsonl"
        given["spec"] = given["spec"] or lessons.spec
        grpo = replace(grpo, prompts=None) if grpo else None
        grpo_recipe.refuse_without_grpo(grpo)
        check_student(read_train_plan(config, {k: v for k, v in given.items() if v is not None})[0])
        if dry_run:
            from adhere.cli.data_distill import show_expected

            return show_expected(lessons)
        given["pairs"], code = teach(lessons, quiet=quiet)
        if code:
            return code
    grpo_recipe.refuse_without_grpo(grpo)
    plan, used = read_train_plan(config, {k: v for k, v in given.items() if v is not None})
    from adhere.cli.watch_training import show_outlook, start

    if dry_run:
        show_outlook(plan)
        return EXIT_DONE
    return start(
        plan,
        preset=used,
        license_name=license_,
        accelerate_config=accelerate_config,
        quiet=quiet,
    )


def _names(text: str | None) -> dict[str, Any] | None:
    """What --template-kwargs holds. Raises BadInput."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadInput(
            f"--template-kwargs: found {text!r:.100}; expected a JSON object",
            hint="For example: --template-kwargs '{\"enable_thinking\": true}'",
        )
    return found
