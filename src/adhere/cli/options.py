"""Options that several commands share, and how they become a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from adhere.errors import BadInput

Model = Annotated[
    list[str] | None,
    Parameter(
        name=["--model", "-m"],
        negative=(),
        help="local:NAME or openai:NAME; may be given several times",
    ),
]
BaseUrl = Annotated[
    str | None, Parameter(help="root of an OpenAI-compatible API, e.g. http://127.0.0.1:8000/v1")
]
ApiKeyEnv = Annotated[
    str | None,
    Parameter(
        help="the environment variable that holds the key (default: OPENAI_API_KEY, which is sent "
        "only to api.openai.com and servers on this machine)"
    ),
]
Prefill = Annotated[
    str | None,
    Parameter(help="how the server takes a begun answer: auto, completions, chat, none"),
]
ChatTemplate = Annotated[
    Path | None,
    Parameter(help="the model's chat template (Jinja file or tokenizer_config.json)"),
]
Temperature = Annotated[float | None, Parameter(help="sampling temperature (default 0.7)")]
MaxTokens = Annotated[int | None, Parameter(help="longest answer in tokens (default 512)")]
Seed = Annotated[int | None, Parameter(help="seed of the run (default 0)")]


def need_model(base_url: str | None, model: object) -> None:
    """A server without a model's name is a mistake. Raises BadInput."""
    if base_url and not model:
        raise BadInput(
            "--base-url: found no --model openai:NAME beside it",
            hint="Name the model that the server serves, e.g. --model openai:qwen3-14b",
        )


def model_fields(
    models: list[str] | None,
    base_url: str | None,
    api_key_env: str | None,
    prefill: str | None,
    chat_template: Path | None,
) -> list[dict[str, Any]] | None:
    """The models of the command line; server options belong to its openai: models."""
    if not models:
        return None
    server: dict[str, Any] = {
        "base_url": base_url,
        "api_key_env": api_key_env,
        "chat_template": chat_template,
    }
    server = {k: v for k, v in server.items() if v is not None}
    out = []
    for model in models:
        fields: dict[str, Any] = {"model": model}
        if model.startswith("openai:"):
            fields.update(server)
        if prefill is not None:
            fields["prefill"] = prefill
        out.append(fields)
    return out


def sampling_fields(
    temperature: float | None, max_tokens: int | None, seed: int | None
) -> dict[str, Any]:
    """The sampling fields that were given."""
    given = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    return {k: v for k, v in given.items() if v is not None}
