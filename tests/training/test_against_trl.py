"""Losses step for step beside TRL's DPOTrainer: same pairs, weights and optimizer, both really run."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from itertools import pairwise

import pytest

from support.tiny_lm import make
from support.tiny_pairs import settings, write_pairs

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "peft", "trl", "datasets")),
    reason="needs torch, peft, trl and datasets (pip install 'adhere[dev]')",
)

STEPS, BATCH, RATE, BETA = 5, 4, 5e-3, 0.5
NAMES = {"apo_zero": "apo_zero", "apo_down": "apo_down", "dpo": "sigmoid"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    from adhere.models.open_weights import loading

    # Products are too small here to be shared out.
    monkeypatch.setattr(loading, "default_threads", lambda: 1)
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))  # the data sets library keeps files there


def ours(tmp_path, model, pairs, **changes):
    from adhere.training.plan import TrainPlan
    from adhere.training.trainer import train

    plan = TrainPlan(**settings(
        model, pairs, tmp_path / "out", epochs=2.0, max_steps=STEPS, batch_size=BATCH,
        learning_rate=RATE, beta=BETA, shuffle=False, by_length=False, dev_share=0.0, warmup=0.3,
        schedule="cosine", weight_decay=0.1, max_grad_norm=2.0, **changes,
    ))  # fmt: skip
    trained = train(plan)
    return [log for log in trained.logs if log.split == "train"]


def theirs(tmp_path, model, pairs, objective, tune):
    """TRL's losses over the steps, on tokens that it makes itself, and its trained weights."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    net = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    config = DPOConfig(
        output_dir=str(tmp_path / "trl"), loss_type=NAMES[objective], beta=BETA, learning_rate=RATE,
        per_device_train_batch_size=BATCH, max_steps=STEPS, lr_scheduler_type="cosine",
        warmup_steps=0.3, weight_decay=0.1, max_grad_norm=2.0, logging_steps=1, seed=3,
        report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, bf16=False,
        gradient_checkpointing=False, train_sampling_strategy="sequential", max_length=None,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=net,
        args=config,
        train_dataset=load_dataset("json", data_files=str(pairs), split="train"),
        processing_class=AutoTokenizer.from_pretrained(str(model)),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        if tune == "lora"
        else None,
    )
    if tune == "lora":
        # Adapters begin at random: take over where ours began.
        begun = load_file(tmp_path / "begun.safetensors")
        own = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert own.keys() == begun.keys()
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(begun[name])
    seen = []

    class Heard(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                seen.append(logs)

    trainer.add_callback(Heard())
    trainer.train()
    return seen


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("objective", ["apo_zero", "apo_down", "dpo"])
def test_losses_equal_those_of_trl_step_by_step(tmp_path, objective, tune, monkeypatch):
    from safetensors.torch import save_file

    from adhere.training import trainer as module

    model, pairs = make(tmp_path / "model"), write_pairs(tmp_path / "pairs.jsonl", 4 * BATCH)
    opened = module.open_start

    def watched(*arguments):
        net = opened(*arguments)
        save_file(
            {n: p.detach() for n, p in net.parameters().items()}, tmp_path / "begun.safetensors"
        )
        return net

    monkeypatch.setattr(module, "open_start", watched)
    mine = ours(tmp_path, model, pairs, objective=objective, tune=tune)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = theirs(tmp_path, model, pairs, objective, tune)

    assert len(mine) == len(other) == STEPS
    for log, their in zip(mine, other, strict=True):
        assert log.loss == pytest.approx(their["loss"], abs=1e-4)
        assert log.margin == pytest.approx(their["rewards/margins"], abs=1e-3)
        assert log.learning_rate == pytest.approx(their["learning_rate"], abs=1e-12)
        assert log.gradient_norm == pytest.approx(their["grad_norm"], rel=1e-3)
    moved = max(abs(a.loss - b.loss) for a, b in pairwise(mine))
    assert moved > 0.05, "losses that stand still agree by themselves"
