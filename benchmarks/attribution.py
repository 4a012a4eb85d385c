"""Scoring candidates against a base here and in the plain way, in one run on the same tokens.

    adhere models pull smollm2-135m && python benchmarks/attribution.py

The student is SmolLM2-135M with a LoRA adapter of random numbers that is made here, the base what
is beneath it. Eight answers of about 200 tokens to one prompt are scored in two ways:

* plain: a second model in memory, one answer at a time, prompt and answer in one pass through each
  of the two, with the states of all layers and the logits of all tokens;
* adhere: the adapter switched off in the same memory, the prompt read once by each, the answers
  together, no layer behind the one that is asked for and (for `latent`) no head.

`latent` is the cosine of the two models' states at an answer's last token behind one layer (the
middle one; `--layer`), `all` that and the divergences and means of `adhere.scorers.Compared`.
Each arm is a process of its own, in float32, one after the other in rounds, so that a machine that
slows down slows all. Printed for each: seconds (the median; nothing is taken over from one time to
the next), seconds of the processors (which other work on the machine touches less), and the peak of
resident memory above what was there once the student was loaded. It ends with exit code 1 where
adhere's `latent` is not at least 3 times as fast as the plain way or takes more than 0.6 of its
extra memory, where its `all` is slower than the plain way or takes more, or where numbers differ by
more than the tolerance.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEXTS = HERE.parent / "docs" / "evidence" / "clair-apo" / "pairs" / "rules.jsonl"
ARMS = ("plain latent", "adhere latent", "plain all", "adhere all")
NAMES = ("nll", "self_certainty", "gini", "kl", "reverse_kl", "log_ratio")
TOLERANCE = {"latent": 1e-6, **dict.fromkeys(NAMES, 1e-4)}
LIMITS = {"latent": (3.0, 0.6), "all": (1.0, 1.0)}  # times as fast at least, extra memory at most


def status(name: str) -> int:
    """A line of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def forget_peak() -> int:
    """Make the highest resident memory the present one, and tell it in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status("VmRSS")


# ---------------------------------------------------------------- what is scored


def base_folder() -> Path:
    from adhere.models.catalog import catalog_model
    from adhere.models.open_weights.export import export_folder

    return export_folder(catalog_model("smollm2-135m"))


def prepare(folder: Path, candidates: int, tokens: int, prompt_tokens: int) -> None:
    """Write an adapter, and a prompt with answers as tokens, of lengths 0.8 to 1.2 of `tokens`."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(str(base_folder()), dtype=torch.float32)
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")
    )
    with torch.no_grad():
        for weights in tuned.parameters():
            if weights.requires_grad:
                weights.copy_(torch.randn_like(weights) * 0.02)
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)
    tokenizer = AutoTokenizer.from_pretrained(str(base_folder()))
    rows = [json.loads(line) for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    text = "\n".join(row[side][-1]["content"] for row in rows for side in ("chosen", "rejected"))
    ids = tokenizer(text)["input_ids"]
    lengths = [int(tokens * (0.8 + 0.4 * i / max(1, candidates - 1))) for i in range(candidates)]
    lengths = lengths[::2] + lengths[1::2]  # in no order
    answers, at = [], prompt_tokens
    for length in lengths:
        answers.append(ids[at : at + length])
        at += length
    told = {"prompt": ids[:prompt_tokens], "answers": answers}
    (folder / "tokens.json").write_text(json.dumps(told), encoding="utf-8")


def cosines(left: Any, right: Any) -> list[float]:
    import torch

    return torch.nn.functional.cosine_similarity(left.double(), right.double(), dim=-1).tolist()


# ---------------------------------------------------------------- one arm, in its own process


def plain(folder: Path, layer: int, times: int, everything: bool) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def loaded() -> Any:
        return AutoModelForCausalLM.from_pretrained(str(base_folder()), dtype=torch.float32).eval()

    student = PeftModel.from_pretrained(loaded(), str(folder / "adapter")).eval()
    told = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    before = forget_peak()
    base = loaded()
    for weights in base.parameters():
        weights.sum()  # so that all of it is in memory before the clock starts
    prompt, seconds = told["prompt"], []  # by the clock, and of the processors
    values: dict[str, list[float]] = {}
    for _ in range(times):
        values = {name: [] for name in ("latent", *(NAMES if everything else ()))}
        began, worked = time.perf_counter(), time.process_time()
        for answer in told["answers"]:
            ids = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                one = student(ids, output_hidden_states=True)
                other = base(ids, output_hidden_states=True)
            states = [got.hidden_states[layer][0, -1] for got in (one, other)]
            values["latent"] += cosines(states[0][None], states[1][None])
            if everything:
                log_p, log_q = (
                    torch.log_softmax(got.logits[0, len(prompt) - 1 : -1], -1)
                    for got in (one, other)
                )
                p, q = log_p.exp(), log_q.exp()
                chosen = torch.tensor(answer)[:, None]
                found = {
                    "nll": -log_p.gather(1, chosen),
                    "self_certainty": -log_p.mean(-1) - float(torch.tensor(p.shape[1]).log()),
                    "gini": 1 - (p * p).sum(-1),
                    "kl": (p * (log_p - log_q)).sum(-1),
                    "reverse_kl": (q * (log_q - log_p)).sum(-1),
                    "log_ratio": (log_p - log_q).gather(1, chosen),
                }
                for name, numbers in found.items():
                    values[name].append(float(numbers.double().mean()))
        seconds.append((time.perf_counter() - began, time.process_time() - worked))
    return {"seconds": seconds, "memory": status("VmHWM") - before, "values": values}


def ours(folder: Path, layer: int, times: int, everything: bool) -> dict[str, Any]:
    import numpy
    import torch

    from adhere.models.open_weights.attaching import attach
    from adhere.models.open_weights.candidates import compare, last_states_of
    from adhere.models.open_weights.engine import Engine
    from adhere.models.open_weights.loading import load
    from adhere.scorers import StatesAt

    net = load("student", base_folder(), "float32")
    attach(net, folder / "adapter")
    told = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    prompt, answers = told["prompt"], told["answers"]
    before = forget_peak()

    async def once() -> tuple[tuple[float, float], dict[str, list[float]]]:
        engine = Engine(net)  # that has read nothing yet
        began, worked = time.perf_counter(), time.process_time()
        if not everything:
            states = [
                torch.from_numpy(await last_states_of(engine, on, prompt, answers, [layer]))[:, 0]
                for on in (True, False)
            ]
            values = {"latent": cosines(*states)}
        else:
            at = StatesAt((layer,), tuple(map(len, answers)))
            found = await compare(engine, True, prompt, answers, (engine, False), at)
            both = [[one.states[0] for one in found], [one.base_states[0] for one in found]]
            values = {"latent": cosines(*(torch.from_numpy(numpy.stack(one)) for one in both))}
            values |= {name: [getattr(one, name) for one in found] for name in NAMES}
        return (time.perf_counter() - began, time.process_time() - worked), values

    runs = [asyncio.run(once()) for _ in range(times)]
    return {
        "seconds": [seconds for seconds, _ in runs],
        "memory": status("VmHWM") - before,
        "values": runs[-1][1],
    }


# ---------------------------------------------------------------- all of them


def in_its_own_process(arm: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    call = [sys.executable, __file__, "--arm", arm, "--folder", str(folder)]
    call += ["--layer", str(given.layer), "--times", str(given.times)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200, help="of an answer, about")
    parser.add_argument("--prompt-tokens", type=int, default=100)
    parser.add_argument("--layer", type=int, default=15, help="of SmolLM2's 30")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--times", type=int, default=2, help="in each process")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        way, _, what = given.arm.partition(" ")
        arm = plain if way == "plain" else ours
        found = arm(given.folder, given.layer, given.times, what == "all")
        print("RESULT " + json.dumps(found))
        return
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    worked: dict[str, list[float]] = {arm: [] for arm in ARMS}
    memory: dict[str, list[int]] = {arm: [] for arm in ARMS}
    values: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, given.candidates, given.tokens, given.prompt_tokens)
        print(
            f"{given.candidates} answers of about {given.tokens} tokens behind "
            f"{given.prompt_tokens}, layer {given.layer}; {os.cpu_count()} processors"
        )
        for _ in range(given.rounds):
            for arm in ARMS:
                found = in_its_own_process(arm, folder, given)
                seconds[arm] += [clock for clock, _ in found["seconds"]]
                worked[arm] += [cpu for _, cpu in found["seconds"]]
                memory[arm].append(found["memory"])
                values[arm] = found["values"]
                print(f"  {arm}: {statistics.median(seconds[arm]):.2f} s", flush=True)
    print(
        f"\n{'arm':16}{'seconds':>9}{'faster':>8}{'CPU s':>8}{'less':>7}"
        f"{'extra MB':>10}{'of plain':>10}"
    )
    held = True
    for arm in ARMS:
        way, _, what = arm.partition(" ")
        against = f"plain {what}"
        faster = statistics.median(seconds[against]) / statistics.median(seconds[arm])
        less = statistics.median(worked[against]) / statistics.median(worked[arm])
        share = statistics.median(memory[arm]) / statistics.median(memory[against])
        print(
            f"{arm:16}{statistics.median(seconds[arm]):>9.2f}{faster:>8.2f}"
            f"{statistics.median(worked[arm]):>8.1f}{less:>7.2f}"
            f"{statistics.median(memory[arm]) / 1e6:>10.0f}{share:>10.2f}"
        )
        if way == "adhere":
            fastest, leanest = LIMITS[what]
            held = held and faster >= fastest and share <= leanest
    print(f"\n{'score':16}{'differs by':>12}{'tolerance':>12}{'spread':>10}")
    for name, expected in values["plain all"].items():
        got = values["adhere all"][name]
        apart = max(abs(one - other) for one, other in zip(got, expected, strict=True))
        spread = max(expected) - min(expected)
        print(f"{name:16}{apart:>12.1e}{TOLERANCE[name]:>12.0e}{spread:>10.1e}")
        held = held and apart <= TOLERANCE[name]
    print("\nheld" if held else "\nNOT held")
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()
