"""`TrainPlan`: all that a training is asked to do. The file is the command line is the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adhere.models.open_weights.loading import Dtype
from adhere.training.template_names import TemplateNames

ObjectiveName = Literal["auto", "apo_zero", "apo_down", "dpo", "sft", "kto"]
Tuned = Literal["lora", "full", "qlora"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraPlan(_Strict):
    """The low-rank adapter that is trained; PEFT's words."""

    r: int = Field(16, ge=1, description="rank")
    alpha: int = Field(32, ge=1, description="the update is scaled by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="above 0, rewards at step 0 are not 0")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="modules that get an adapter"
    )


class TrainPlan(_Strict):
    """Settings of one training. `OPERATIONAL` fields change no number and may differ on a resume.

    The defaults are those that were published for CLAIR and APO where they were (beta, rate,
    batch: TACL 2025, sections 5.2 and B.1), and `PRESETS` has others. `pairs` may hold rows with
    one answer to learn in place of pairs (`completions.py`).
    """

    model: str = Field(
        description="weights:NAME of the catalog, or weights:FOLDER of safetensors or of an "
        "adapter, which is then trained on (sft)"
    )
    pairs: Path = Field(
        description="preference pairs, or rows with one answer to learn: JSON lines or Parquet, as "
        "TRL reads them"
    )
    out: Path = Field(description="folder of the training")
    spec: Path | None = Field(
        None, description="the spec that the pairs are for; named in the card"
    )
    recipe: Literal["pairs", "clair", "deliberative", "iteralign"] = Field(
        "pairs", description="where the rows come from"
    )

    objective: ObjectiveName = Field(
        "auto", description="auto: apo_zero or apo_down, by the pairs; sft where rows are no pairs"
    )
    beta: float = Field(0.1, gt=0, description="how much a log-ratio counts")
    form: Literal["trl", "paper"] = Field(
        "trl", description="apo losses with TRL's + 1, or without"
    )
    learning_rate: float = Field(2e-7, gt=0, description="peak of the schedule")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="how the rate falls after the warm-up"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are scaled to it")
    epochs: float = Field(1.0, gt=0, description="passes over the pairs")
    max_steps: int | None = Field(None, ge=1, description="end after so many steps")
    batch_size: int = Field(64, ge=1, description="pairs of one step, over all processes")
    group_size: int = Field(
        4, ge=1, description="pairs that go through the model together, and are in memory at once"
    )
    seed: int = 0
    shuffle: bool = Field(True, description="shuffle the groups of pairs anew in each epoch")
    by_length: bool = Field(True, description="group pairs of like length")

    tune: Tuned = Field("lora", description="an adapter, all weights, or one on 4-bit weights")
    lora: LoraPlan = LoraPlan()
    dtype: Dtype = Field("auto", description="of the weights; auto is what the hardware multiplies")
    share_prompt: bool = Field(True, description="read what both sides begin with once (exact)")
    logit_chunk: int = Field(256, ge=1, description="tokens whose logits exist at a time")
    checkpoint_layers: bool = Field(
        False, description="compute activations twice and keep fewer (gradient checkpointing)"
    )

    template_kwargs: TemplateNames = Field(
        default_factory=dict,
        description="names that the chat template gets, such as enable_thinking",
    )
    max_length: int = Field(1024, ge=2, description="most tokens of a prompt with an answer")
    cut_prompt: bool = Field(False, description="cut prompts that are too long from the left")
    on_bad_row: Literal["stop", "skip"] = Field(
        "stop", description="a row that cannot be used ends the training, or is set aside"
    )
    dev_share: float = Field(0.1, ge=0, lt=1, description="share of the pairs held out to look at")
    split_seed: int = Field(0, description="which are held out; `seed` leaves them as they are")
    eval_every: int = Field(0, ge=0, description="steps between looks at them; 0: start and end")
    save_every: int = Field(50, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints that are kept")
    reference_folder: Path | None = Field(
        None, description="where reference log-probabilities are kept; default: adhere's cache"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.group_size and self.batch_size > self.group_size:
            raise ValueError(
                f"found batch_size {self.batch_size} and group_size {self.group_size}; expected a "
                "batch of whole groups"
            )
        return self


# Of these `model` and `pairs` only say where something lies: what it is, its digest says. The last
# two trade memory for time, and change the last bits of a number at most.
OPERATIONAL = frozenset({
    "out", "model", "pairs", "spec", "recipe", "eval_every", "save_every", "keep",
    "reference_folder", "logit_chunk", "checkpoint_layers",
})  # fmt: skip

# The published settings of CLAIR and APO are the fields' defaults. `small` is for adapters on
# models of some hundred million parameters, which do not move at the published rate; chosen on a
# development split of preference pairs (docs/evidence/clair-apo). `deliberative` is what was
# published for distilled thoughts (arXiv 2604.09665, table 9), but for what is trained: there the
# adapter was on PEFT's default modules and the head was trained whole; see docs/training.md.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"beta": 0.1, "learning_rate": 2e-7, "batch_size": 64},
    "small": {"beta": 0.1, "learning_rate": 1e-3, "batch_size": 4, "epochs": 1.0},
    "deliberative": {
        "objective": "sft", "learning_rate": 1.41e-5, "batch_size": 16, "epochs": 3.0,
        "max_length": 2048, "lora": {"r": 32, "alpha": 64, "dropout": 0.05},
    },
}  # fmt: skip

# The preset of a recipe where nobody names another.
RECIPE_PRESETS: Mapping[str, str] = {"deliberative": "deliberative"}
