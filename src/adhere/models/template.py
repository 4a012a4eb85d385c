"""Rendering a chat template here, for servers that take a prompt but do not render one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adhere.chat import Message
from adhere.errors import BadInput


class ChatTemplate:
    """A model's Jinja chat template. Templates come from outside: they render in a sandbox."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "", name: str = "") -> None:
        """Raises BadInput for a template that does not parse."""
        self.name = name
        self.digest = hashlib.sha256(f"{source}\0{bos}\0{eos}".encode()).hexdigest()
        # The settings under which Hugging Face renders, which the templates are written for.
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        env.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        env.globals.update(raise_exception=_refuse, bos_token=bos, eos_token=eos)
        try:
            self._template = env.from_string(source)
        except jinja2.TemplateError as error:
            raise BadInput(f"{name}: the chat template does not parse ({error})") from None

    @classmethod
    def read(cls, path: Path) -> ChatTemplate:
        """From a Jinja file, or from a `tokenizer_config.json` that holds one."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"--chat-template: {path} cannot be read ({error})") from None
        if path.suffix != ".json":
            return cls(text, name=str(path))
        try:
            data = json.loads(text)
            source = data["chat_template"]
        except (ValueError, KeyError, TypeError):
            source = None
        if not isinstance(source, str):
            raise BadInput(f"--chat-template: {path} holds no chat_template")
        return cls(
            source, bos=_token(data, "bos_token"), eos=_token(data, "eos_token"), name=str(path)
        )

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text up to where the assistant begins."""
        try:
            return self._template.render(
                messages=[m.to_dict() for m in messages], add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise BadInput(f"{self.name}: the chat template failed ({error})") from None

    @property
    def renderer(self) -> Callable[[Sequence[Message]], Awaitable[str]]:
        """As `OpenAICompatible` takes it."""

        async def render(messages: Sequence[Message]) -> str:
            return self.render(messages)

        return render


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _token(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
