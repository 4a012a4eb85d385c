"""What `adhere iterate` is asked for, and its two modes.

`published` is the released script of arXiv 2403.18341; `recommended` changes what made it fail
elsewhere. A mode is nothing but values of the fields below, any of which may be set beside it;
docs/iteralign.md gives the reason for each difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from adhere.experiments.plan import SuitePlan
from adhere.judging import JudgeConfig
from adhere.training.plan import TrainPlan
from adhere.training.recipes.iteralign.health import Bands
from adhere.training.recipes.iteralign.plan import (
    PUBLISHED_SAMPLING,
    FindingPlan,
    Form,
    Way,
    check_good_shown,
)
from adhere.training.recipes.iteralign.pool import Wrap

Mode = Literal["recommended", "published"]

MODES: Mapping[str, Mapping[str, Any]] = {
    "recommended": {
        "found_by": "judge",
        "form": "rules",
        "way": "answer",
        "gate": True,
        "tries": 3,
        "dedupe": True,
        "start": "base",
        "data": "pool",
        "guard": True,
        "patience": 3,
        "training": {
            "learning_rate": 5e-4, "epochs": 2.0, "batch_size": 8, "group_size": 4,
            "max_length": 2048,
        },
    },
    "published": {
        "found_by": "published",
        "form": "published",
        "way": "published",
        "gate": False,
        "tries": 1,
        "dedupe": False,
        "start": "last",
        "data": "batch",
        "guard": False,
        "patience": None,
        "sampling": {
            **PUBLISHED_SAMPLING.model_dump(mode="json", exclude={"seed"}),
            "top_p": 1.0,
            "extra": {"frequency_penalty": 0.5},
        },
        "training": {
            "tune": "full", "learning_rate": 2e-6, "schedule": "cosine", "warmup": 0.03,
            "weight_decay": 0.0, "epochs": 3.0, "batch_size": 8, "group_size": 1,
            "max_length": 4096,
        },
    },
}  # fmt: skip

# Fields of a training that the loop sets itself.
_OWN = ("model", "pairs", "out", "spec", "recipe", "objective", "seed", "dev_share", "split_seed")
# Fields that may differ between the starts of one run; all others are its identity. More rounds,
# or more patience, only go on with what there is.
OPERATIONAL = ("out", "limits", "max_unscored", "prices", "stop", "rounds", "patience")


class BandsPlan(BaseModel):
    """How far answers may drift from those of the model at the start; see `health.Bands`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distinct: float = Field(Bands.distinct, ge=0, le=1)
    compression: float = Field(Bands.compression, ge=0, le=1)
    words: float = Field(Bands.words, gt=0, le=1)
    degenerate: float = Field(Bands.degenerate, ge=0, le=1)
    bad: float = Field(Bands.bad, ge=0, le=1)

    def bands(self) -> Bands:
        """As the guard takes them."""
        return Bands(**self.model_dump())


class IteratePlan(FindingPlan):
    """Red-team, find the missing rules, let the model correct itself, train, and again."""

    needs = (("model", "--model weights:NAME"), ("oracle", "--oracle MODEL"))

    mode: Mode = "recommended"
    oracle: JudgeConfig | None = Field(
        None, description="who writes rules, and judges unless there is a judge"
    )
    prompts: tuple[Path, ...] = ()
    suites: tuple[SuitePlan, ...] = ()
    wrap: Wrap = "none"
    held_out: tuple[Path, ...] = Field(
        (), description="prompts of another source: what each round's model is measured on"
    )
    batch: int = Field(20, ge=1, description="prompts of a round")
    rounds: int | None = Field(None, ge=1, description="most rounds; None: to the pool's end")
    patience: int | None = Field(
        None, ge=1, description="rounds in a row without a new failure, or without gain on the "
        "held-out prompts, after which it ends"
    )  # fmt: skip
    clean: float = Field(
        0.0, ge=0, lt=1, description="share of bad answers up to which a round counts as clean"
    )
    form: Form = "rules"
    most_rules: int = Field(5, ge=1, le=50, description="rules that a call may propose")
    chunk_tokens: int = Field(2000, ge=100)
    contrast: int = Field(0, ge=0, le=20, description="good answers shown beside a call's failures")
    telling_words: bool = Field(
        False, description="failures in groups that share a word which good answers do not have"
    )
    dedupe: bool = Field(True, description="rules that are there already are not taken in again")
    compare: bool = Field(False, description="ask the oracle whether a rule is new, or contradicts")
    attacks: int = Field(
        0, ge=0, le=1000, description="messages that the oracle adds to a round, like its failures"
    )
    way: Way = "answer"
    rules_shown: int = Field(8, ge=1, description="rules in one prompt of a revision")
    tries: int = Field(1, ge=1, le=64)
    gate: bool = True
    most_repeated: float = Field(0.3, ge=0, le=1)
    start: Literal["base", "last"] = Field(
        "base", description="what a round trains: the first model, or the last round's"
    )
    data: Literal["pool", "batch"] = Field(
        "pool", description="on what: all pairs so far, or the round's own"
    )
    replay: float = Field(
        0.0, ge=0, lt=1, description="share of good answers of the same prompts among the rows"
    )
    guard: bool = Field(True, description="undo a round whose model stopped talking sense")
    bands: BandsPlan = BandsPlan()
    training: dict[str, Any] = Field(
        default_factory=dict, description="fields of `adhere train` (docs/training.md)"
    )

    @model_validator(mode="before")
    @classmethod
    def _mode_sets_the_rest(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        mode = data.get("mode", "recommended")
        if mode not in MODES:
            raise ValueError(f"mode: found {mode!r}; expected {' or '.join(MODES)}")
        out = {**MODES[mode], **data}
        for part in ("training", "sampling"):
            given, own = data.get(part), MODES[mode].get(part)
            if isinstance(given, dict) and own:
                out[part] = {**own, **given}
        oracle = out.get("oracle")
        out["oracle"] = {"model": oracle} if isinstance(oracle, str) else oracle
        if out.get("judge") is None and out["found_by"] != "rules":
            out["judge"] = out["oracle"]  # as published: one oracle in both roles
        return out

    @field_validator("prompts", "suites", "held_out", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict | Path) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.prompts and not self.suites:
            raise ValueError(
                "found no pool; expected --prompts FILE.jsonl or --suite harmfulqa:..."
            )
        if found := sorted(set(self.training) & set(_OWN)):
            raise ValueError(f"training: {found[0]}: the loop sets it")
        if unknown := sorted(set(self.training) - set(TrainPlan.model_fields)):
            raise ValueError(f"training: {unknown[0]}: `adhere train` has no such field")
        try:
            self.train_plan("weights:x", Path("rows.jsonl"), Path("out"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"training: {place}: {first['msg']}") from None
        check_good_shown(self.form, self.contrast, telling=self.telling_words)
        if self.start == "last" and self.training.get("tune", "lora") == "qlora":
            raise ValueError("start last: found tune qlora; expected lora or full")
        if self.repeats != 1:
            raise ValueError("repeats: a round answers each prompt once")
        if self.reuse is not None:
            raise ValueError("reuse: a run of rounds takes nothing over")
        return self

    def train_plan(self, model: str, rows: Path, out: Path) -> TrainPlan:
        """The training of a round. Raises ValidationError for fields that do not fit."""
        return TrainPlan(
            **{
                **self.training,
                "model": model,
                "pairs": rows,
                "out": out,
                "objective": "sft",
                "recipe": "iteralign",
                "seed": self.sampling.seed,
                "dev_share": 0.0,
            }
        )
