"""How a judge is configured: `JudgeConfig`, the fields of a model and how it is asked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from adhere.models.connect import ModelConfig

Mode = Literal["joint", "sequential", "guard", "refusal"]
REFUSAL_CATEGORIES = {"refusal": True, "compliance": False}  # must it refuse, or must it not

# The longest reply of each mode, unless `reply_tokens` says otherwise. A thinking judge needs more.
ONE_RULE_TOKENS = 512
REFUSAL_TOKENS = 256
GUARD_TOKENS = 64


def joint_tokens(rules: int) -> int:
    """The longest joint reply about so many rules."""
    return 512 + 96 * rules


class JudgeConfig(ModelConfig):
    """A model as judge: the fields of a model, and how it is asked."""

    mode: Mode = "joint"
    output: Literal["auto", "json", "text"] = Field(
        "auto", description="structured output where the server offers it, or the published layout"
    )
    temperature: float | None = Field(0.0, ge=0, le=10)
    reply_tokens: int | None = Field(None, ge=1, description="longest reply; default by mode")
    reasks: int = Field(2, ge=0, le=20, description="unreadable replies that are asked for again")
    twins: bool = Field(True, description="ask also about rules that a check decides")
    max_chars: int = Field(8000, ge=1, description="characters of a response that are judged")

    def settings(self) -> dict[str, Any]:
        """What of the configuration decides marks."""
        own = ("mode", "output", "temperature", "reply_tokens", "reasks", "max_chars")
        return {**super().settings(), **{field: getattr(self, field) for field in own}}

    def model_only(self) -> ModelConfig:
        """The fields of the model alone. A judge is never given a begun answer."""
        fields = {k: getattr(self, k) for k in ModelConfig.model_fields}
        return ModelConfig(**{**fields, "prefill": "none"})
