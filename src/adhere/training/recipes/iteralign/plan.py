"""What the modules of IterAlign are asked for, each by itself: red-team, propose, reflect.

The fields that the modules share with other runs are those of `Settings`. Published values are
those of the released script (arXiv 2403.18341); docs/iteralign.md has a table of all differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from adhere.experiments.plan import SamplingPlan, Settings, SuitePlan
from adhere.judging import JudgeConfig
from adhere.models.connect import ModelConfig
from adhere.training.recipes.iteralign.finding import FoundBy
from adhere.training.recipes.iteralign.pool import Wrap

Way = Literal["answer", "critique", "one_by_one", "published"]
Form = Literal["rules", "published"]

# Fields that may differ between the starts of one run; all others are its identity.
OPERATIONAL = ("out", "limits", "max_unscored", "reuse", "prices", "stop")

# How the released script samples answers: at temperature 0, one paragraph.
PUBLISHED_SAMPLING = SamplingPlan(temperature=0.0, max_tokens=500, stop=("\n\n",))

_FOREIGN = ("reward", "probe", "risk_cap", "methods", "baseline", "alpha", "na_policy", "controls",
            "calibration", "budget", "order", "base")  # fmt: skip


def check_good_shown(form: Form, contrast: int, *, telling: bool) -> None:
    """Raises ValueError for good answers that the published form would not show."""
    if form == "published" and (contrast or telling):
        name = "contrast" if contrast else "telling_words"
        raise ValueError(f"{name}: found form published, which shows bad answers alone")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def sole_policy(data: Any) -> Any:
    """A plan's data with its one policy, `model`, where `Settings` has its models."""
    if not isinstance(data, dict):
        return data
    if found := [k for k in _FOREIGN if data.get(k) is not None]:
        raise ValueError(f"{found[0]}: there is no such field here")
    if data.get("models") and not data.get("model"):
        models = data["models"]
        if isinstance(models, list | tuple) and len(models) > 1:
            raise ValueError(f"models: found {len(models)}; expected one (--model MODEL)")
        data = {**data, "model": models[0] if isinstance(models, list | tuple) else models}
    model = data.get("model")
    model = {"model": model} if isinstance(model, str) else model
    return {**data, "model": model, "models": [model] if model else []}


class ModulePlan(Settings):
    """What the three modules share."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = ()

    model: ModelConfig | None = Field(None, description="the policy: who answers")
    about: str = Field("", description="what the assistant is for, as judge and oracle are told")

    @model_validator(mode="before")
    @classmethod
    def _model_is_the_policy(cls, data: Any) -> Any:
        return sole_policy(data)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for field, option in self.needs:
            if not getattr(self, field):
                raise ValueError(f"found no {field!r}; expected {option}")
        if self.stop.half_width is not None:
            raise ValueError("stop.half_width: there is no such limit here")
        return self

    @property
    def policy(self) -> ModelConfig:
        """Who answers."""
        assert self.model is not None
        return self.model


class FindingPlan(ModulePlan):
    """What modules that judge answers share."""

    found_by: FoundBy = Field(
        "judge",
        description="judge: message and answer are judged; published: the answer alone; rules: by "
        "the checks (and the judge) of a spec",
    )

    @model_validator(mode="after")
    def _somebody_judges(self) -> Self:
        if not self.judges:
            return self
        if self.found_by == "rules":
            if self.spec is None:
                raise ValueError("found_by rules: found no spec; expected --spec FILE")
            return self
        if self.judge is None:
            raise ValueError(f"found_by {self.found_by}: found no judge; expected --judge MODEL")
        if self.judge.mode != "joint" or self.judge.compat != "strict":
            raise ValueError("judge: mode and compat are for found_by rules; leave them out")
        return self

    @property
    def judges(self) -> bool:
        """Whether answers are judged at all."""
        return True


class RedteamPlan(FindingPlan):
    """Prompts in, failures out: a policy answers, a judge says which answers are bad."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (("model", "--model MODEL"),)

    prompts: tuple[Path, ...] = ()
    suites: tuple[SuitePlan, ...] = ()
    wrap: Wrap = Field("none", description="utterances: each question within a made-up talk")

    @field_validator("prompts", "suites", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict | Path) else value


class ProposePlan(ModulePlan):
    """Failures in, rules out: an oracle finds the rules that were missing."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("failures", "--failures FILE.jsonl"), ("oracle", "--oracle MODEL"),
    )  # fmt: skip

    failures: Path | None = Field(None, description="failures.jsonl, or the folder that has it")
    oracle: JudgeConfig | None = None
    form: Form = Field("rules", description="rules with what they cover; or a last paragraph")
    most_rules: int = Field(5, ge=1, le=50, description="rules that a call may propose")
    chunk_tokens: int = Field(
        2000, ge=100, description="failures of one call, in tokens of about four characters"
    )
    contrast: int = Field(
        0, ge=0, le=20, description="good answers that are shown beside the failures of a call"
    )
    telling_words: bool = Field(
        False, description="failures in groups that share a word which good answers do not have"
    )
    known: Path | None = Field(None, description="a spec whose rules are not proposed again")

    @model_validator(mode="after")
    def _contrast_is_for_rules(self) -> Self:
        check_good_shown(self.form, self.contrast, telling=self.telling_words)
        return self

    @field_validator("oracle", mode="before")
    @classmethod
    def _name_is_an_oracle(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class ReflectPlan(FindingPlan):
    """Failures and rules in, pairs to train on out: the policy answers again under the rules."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model", "--model MODEL"), ("failures", "--failures FILE.jsonl"),
        ("rules", "--rules FILE"),
    )  # fmt: skip

    failures: Path | None = Field(None, description="failures.jsonl, or the folder that has it")
    rules: Path | None = Field(None, description="a spec file, such as proposing's constitution.md")
    way: Way = Field(
        "answer",
        description="answer: again, with the rules in the prompt; critique: criticise the bad "
        "answer, then revise it; one_by_one: revise by one rule after the other; published: the "
        "rules as a text at the end of the prompt's head",
    )
    most_rules: int = Field(8, ge=1, description="rules in one prompt, those that cover it first")
    tries: int = Field(
        1, ge=1, le=64, description="draws for one failure until the gate lets one by"
    )
    gate: bool = Field(True, description="train only on answers that are judged good")
    most_repeated: float = Field(
        0.3, ge=0, le=1, description="share of repeated pieces beyond which a text is degenerate"
    )

    @property
    def judges(self) -> bool:
        """Only a gate asks."""
        return self.gate
