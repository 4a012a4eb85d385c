"""The card of a trained model: the README.md beside it, with the front matter that hubs read.

It goes wherever the model goes, so it names no path of the machine that trained it. Names from
outside are cut to one line and cannot end the code they stand in.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from adhere.chat import canonical_json
from adhere.models.catalog import BY_NAME
from adhere.reporting import formats as f
from adhere.training.account import Account, before_after, signed

_RECIPES = {
    "clair": "CLAIR: the rejected answers are a policy's own, the chosen ones minimal revisions",
    "deliberative": "Deliberative alignment: a teacher's thoughts over a spec and its answers, "
    "filtered, learned without the spec",
    "iteralign": "IterAlign: the model's own revisions under rules that an oracle wrote from its "
    "failures, learned without the rules",
    "pairs": "Preference pairs from a file",
}


def card(account: Account) -> str:
    """The text of README.md; equal text for equal input."""
    parts = [
        _front_matter(account),
        f"# {_title(account)}",
        _what(account),
        _data(account),
        _how(account),
        _result(account),
        _loading(account),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _front_matter(account: Account) -> str:
    told = {
        "base_model": f.one_line(account.base, 100),
        "library_name": "peft" if account.is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "license": f.one_line(account.license, 60),
        "tags": list(_tags(account)),
    }
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True)}---"


def _tags(account: Account) -> Iterable[str]:
    yield "adhere"
    yield "preference-optimization" if account.of_pairs else "supervised-fine-tuning"
    yield account.plan.objective.replace("_", "-")
    if account.plan.recipe != "pairs":
        yield account.plan.recipe
    if account.is_adapter:
        yield "lora"


def _title(account: Account) -> str:
    about = f" for {_plain(account.spec.name)}" if account.spec else ""
    kind = "adapter" if account.is_adapter else "model"
    return f"{_plain(account.base)}, {kind} trained with {account.plan.objective}{about}"


def _what(account: Account) -> str:
    if account.is_adapter:
        lora = account.plan.lora
        made = f"A LoRA adapter (rank {lora.r}, alpha {lora.alpha}) for {_code(account.base)}"
    else:
        made = f"All weights of {_code(account.base)}, trained further"
    spec = account.spec
    if spec is None:
        told = f"No spec was given with the {account.what}."
    else:
        told = (
            f"The {account.what} are for the spec {_code(spec.name)}, version "
            f"{_code(spec.version)}, SHA-256\n{_code(spec.digest)}."
        )
    told = "\n".join([told, *map(_plain, account.spec_doubts)])
    return (
        f"{made}.\nBase weights: SHA-256 {_code(account.base_digest)}. It is of use with these "
        f"weights only.\n\n{told}"
    )


def _data(account: Account) -> str:
    aside = (
        f", {f.count(account.set_aside)} rows that could not be used" if account.set_aside else ""
    )
    return (
        "## Trained on\n\n"
        f"{_recipe(account)}. {_code(account.plan.pairs.name)}: "
        f"{f.count(account.pairs)} {account.what}, {f.count(account.held_out)} more held out by "
        f"clusters of like prompts{aside}.\nRows: SHA-256 {_code(account.rows_digest)}."
    )


def _recipe(account: Account) -> str:
    if account.plan.recipe == "pairs" and not account.of_pairs:
        return "Prompts with one answer each, from a file"
    return _RECIPES[account.plan.recipe]


def _how(account: Account) -> str:
    plan = account.plan
    rows = [
        ("objective", plan.objective + (f", beta {plan.beta:g}" if account.of_pairs else "")),
        ("preset", account.preset or "none"),
        ("learning rate", f"{plan.learning_rate:g}, {plan.schedule}, warm-up {plan.warmup:g}"),
        ("batch", f"{plan.batch_size} {account.what}"),
        ("steps", f.count(account.steps)),
        ("seed", str(plan.seed)),
        ("tokens read", f.count(account.tokens)),
        ("time in steps", f.duration(account.seconds)),
        ("numbers", account.dtype or f.DASH),
    ]
    if plan.template_kwargs:
        rows.append(("chat template gets", canonical_json(plan.template_kwargs)))
    if account.trained_parameters is not None:
        of = "" if account.all_parameters is None else f" of {f.count(account.all_parameters)}"
        rows.append(("trained parameters", f"{f.count(account.trained_parameters)}{of}"))
    why = f"\n\nWhy this objective: {_plain(account.why)}" if account.why else ""
    return f"## How\n\n{_table(('', ''), rows)}{why}"


def _result(account: Account) -> str:
    lines = before_after(account)
    train = account.train
    loss = (
        f"Loss of the first step {signed(train[0].loss)}, of the last {signed(train[-1].loss)}.\n\n"
        if train
        else ""
    )
    if not lines:
        return f"## What came of it\n\n{loss}No held-out {account.what} were looked at."
    rows = [(line.name, line.before, line.after, line.change) for line in lines]
    table = _table(
        (f"{account.held_out} held-out {account.what}", "before", "after", "change"), rows
    )
    return (
        f"## What came of it\n\n{loss}{table}\n\n"
        f"These numbers say that the {account.what} were learned. Whether the model follows the "
        "spec is measured on its own answers: `adhere eval`, before and after."
    )


def _loading(account: Account) -> str:
    known = account.base in BY_NAME
    base = f"weights:{account.base}" if known else "weights:BASE"
    measure = (
        "    adhere eval --spec spec.md --prompts prompts.jsonl --method raw \\\n"
        f"        --model {base} --model weights:FOLDER --out runs/after"
    )
    if account.is_adapter:
        code, libraries = _PEFT, "transformers and PEFT"
        serve = (
            f"    vllm serve BASE --enable-lora --max-lora-rank {account.plan.lora.r} \\\n"
            "        --lora-modules trained=FOLDER"
        )
        first = f"FOLDER is this folder, BASE that of the base model, {_code(account.base)}."
        if known:
            first += (
                "\nadhere keeps the safetensors of its catalog's models in $ADHERE_HOME/models."
            )
    else:
        code, libraries = _WHOLE, "transformers"
        serve = "    vllm serve FOLDER"
        first = "FOLDER is this folder."
    made = f"Made by adhere {_plain(account.adhere_version)}".rstrip()
    when = f", begun {_plain(account.created)}" if account.created else ""
    return "\n\n".join(
        [
            f"## Use\n\n{first}",
            f"Before and after, with adhere:\n\n{measure}",
            f"With vLLM:\n\n{serve}",
            f"With {libraries}:\n\n{code}",
            f"{made}{when}.",
        ]
    )


_PEFT = """\
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained("BASE")
    model = PeftModel.from_pretrained(base, "FOLDER")
    tokenizer = AutoTokenizer.from_pretrained("FOLDER")  # with the chat template"""

_WHOLE = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained("FOLDER")
    tokenizer = AutoTokenizer.from_pretrained("FOLDER")  # with the chat template"""


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) + ("---:",) * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """One line in which no markdown and no HTML of a name from outside is acted on."""
    line = f.one_line(text, 300)
    for sign in "\\`<>|[]*_#":
        line = line.replace(sign, f"\\{sign}")
    return line


def _code(text: str) -> str:
    """One line in backticks, which it cannot end."""
    return f"`{f.one_line(text, 300).replace('`', chr(39)).replace('|', '/')}`"
