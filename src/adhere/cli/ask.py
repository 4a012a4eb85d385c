"""`adhere ask`: answer one prompt and show how the method came to it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from adhere.chat import Answer, Capability, Role, Unscored, user
from adhere.cli import options
from adhere.errors import BadInput
from adhere.experiments.inputs import make_method
from adhere.experiments.plan import SamplingPlan, parse_method
from adhere.experiments.plan_file import DEFAULT_FILE, explain, read_plan
from adhere.judging import check_verdict
from adhere.methods.base import Delta, Event, Method, Order, Request, StepDone, StepStarted
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter
from adhere.prompting import Prompts
from adhere.spec import Specification, load_spec

DEFAULT_MODEL = "local:smollm2-135m"


def ask(
    prompt: Annotated[str, Parameter(help="the question; - reads it from standard input")],
    *,
    spec: Annotated[Path | None, Parameter(help="the spec file (default: adhere.yaml's)")] = None,
    model: Annotated[
        str | None, Parameter(name=["--model", "-m"], help="local:NAME or openai:NAME")
    ] = None,
    method: Annotated[
        str, Parameter(help="NAME[:key=value,...], e.g. repair or align3:think_tokens=64")
    ] = "vanilla",
    base_url: options.BaseUrl = None,
    api_key_env: options.ApiKeyEnv = None,
    prefill: options.Prefill = None,
    chat_template: options.ChatTemplate = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = None,
    quiet: Annotated[bool, Parameter(negative=(), help="only the answer")] = False,
) -> int:
    """Answer one prompt and show how the method came to it, step by step, as it thinks.

    The answer goes to standard output; the steps, the marks of the checks and the cost go to
    standard error.

    Example:
      adhere ask "My head hurts. What can I do?" --spec spec.md --method align3
    """
    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise BadInput("found an empty prompt; expected a question")
    options.need_model(base_url, model)
    given = options.sampling_fields(temperature, max_tokens, seed)
    try:
        parsed = parse_method(method)
        config, specification, sampling, prompts, order = _setup(
            spec, model, (base_url, api_key_env, prefill, chat_template)
        )
        sampling = SamplingPlan(**{**sampling.model_dump(), **given})
    except ValidationError as error:
        raise explain(error, "the command line") from None
    except ValueError as error:
        raise BadInput(f"--method: {error}") from None
    request = Request(
        messages=(user(prompt),),
        spec=specification,
        sampling=sampling.sampling(),
        prompts=prompts,
    )
    console = Console(stderr=True, quiet=quiet, highlight=False)
    chosen = make_method(parsed, order)
    if Role.REWARD in chosen.requires:  # before any of the candidates is paid for
        raise BadInput(
            f"--method {parsed.method}: chooses by a reward model, and `adhere ask` has none",
            hint=f"Choose otherwise: --method {parsed.method}:selector=checks (or random).",
        )
    answer = asyncio.run(_answer(config, chosen, request, console))
    if not quiet:
        _show_marks(console, specification, prompt, answer)
    sys.stdout.write(answer.text.rstrip() + "\n")
    return 0


def _setup(
    spec: Path | None, model: str | None, server: tuple[Any, Any, Any, Any]
) -> tuple[ModelConfig, Specification, SamplingPlan, Prompts, Order]:
    """Model, spec, sampling, prompts, order: the options', else adhere.yaml's, else defaults."""
    sampling, prompts = SamplingPlan(), Prompts()
    order: Order = "question_first"
    config: ModelConfig | None = None
    if Path(DEFAULT_FILE).is_file():
        plan = read_plan(Path(DEFAULT_FILE), {})
        spec = spec or plan.spec
        sampling = plan.sampling
        config = plan.models[0]
        prompts = Prompts(plan.prompts_dir)
        order = plan.order
    if model is not None or config is None:
        fields = options.model_fields([model or DEFAULT_MODEL], *server) or []
        config = ModelConfig(**fields[0])
    if spec is None:
        raise BadInput(
            "found no spec; expected --spec FILE, or adhere.yaml in this folder",
            hint="`adhere init` makes a starter folder.",
        )
    return config, load_spec(spec), sampling, prompts, order


async def _answer(
    config: ModelConfig, method: Method, request: Request, console: Console
) -> Answer:
    def watch(event: Event) -> None:
        if isinstance(event, StepStarted):
            console.print(f"\n[bold cyan]{escape(event.name)}[/]")
        elif isinstance(event, Delta):
            console.print(event.text, end="", style="dim", markup=False)
        elif isinstance(event, StepDone):
            if event.step.finish_reason == "length":
                console.print(" [yellow]\\[cut at the token limit][/]", end="")
            console.print()

    async with connect(config, Limiter(), note=lambda text: console.print(text, style="dim")) as m:
        variant = getattr(method, "variant", None)
        if variant and (name := variant(m.capabilities)):
            console.print(f"[yellow]{method.name}: {escape(name)}[/]")
        if Capability.STREAM not in m.capabilities:
            console.print("(the server does not stream)", style="dim")
        return await method.answer(request, {Role.POLICY: m}, emit=watch)


def _show_marks(console: Console, spec: Specification, prompt: str, answer: Answer) -> None:
    verdict = check_verdict(spec.rules, answer.text, prompt)
    console.print()
    if isinstance(verdict, Unscored):
        console.print(f"not scored: {verdict.reason}", markup=False)
    else:
        for rule_id, given in verdict.marks.items():
            color = {"YES": "green", "NO": "red", "NA": "dim"}[given.mark.value]
            line = f"[{color}]{given.mark.value:>3}[/] {escape(rule_id)}"
            console.print(f"{line}  [dim]{escape(given.reason)}[/]")
        for rule in spec.rules:
            if rule.id not in verdict.marks:
                console.print(f"[dim]  ? {escape(rule.id)}  no check decides this rule[/]")
    for role, used in answer.usage.items():
        console.print(
            f"{role}: {used.calls} calls, {used.prompt_tokens} prompt tokens "
            f"({used.cached_prompt_tokens} cached), {used.completion_tokens} completion tokens, "
            f"{used.seconds:.1f} s\n",
            style="dim",
        )
