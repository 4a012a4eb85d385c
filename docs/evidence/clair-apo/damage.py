"""What a training did besides: perplexity on plain text, and how far answers are from the base's.

    python damage.py RUN            # writes RUN/damage.json, one entry an arm; goes on where it was

* perplexity of `plain.txt` (windows of 256 tokens, 32 of them for context only), base and adapter;
* KL(adapter || base) a token and an answer, over the adapter's own sampled answers to every second
  test prompt (`raw`, from RUN/eval), exactly over the whole vocabulary at each place.

Of arms with several seeds, the first.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from adhere.chat import user
from adhere.models.catalog import catalog_model
from adhere.models.open_weights.attaching import attach
from adhere.models.open_weights.export import export_folder
from adhere.models.open_weights.loading import Loaded, load
from adhere.models.open_weights.tokens import ChatTokens

WINDOW, CONTEXT = 256, 32


def perplexity(net: Loaded, text: str) -> float:
    """Of the tokens of a text, each behind at least `CONTEXT` others but for the first."""
    ids = net.tokenizer(text, add_special_tokens=False)["input_ids"]
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, WINDOW - CONTEXT):
        part = torch.tensor([ids[start : start + WINDOW]])
        skip = CONTEXT if start else 1
        if part.shape[1] <= skip:
            break
        logits = net.model(input_ids=part).logits[0, skip - 1 : -1].float()
        found = logits.log_softmax(-1).gather(1, part[0, skip:, None])
        total, count = total - float(found.sum()), count + len(found)
    return math.exp(total / count)


def divergence(net: Loaded, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Nats a token, and nats an answer, of the adapter from the base on the adapter's answers."""
    tokens = ChatTokens("model", net.tokenizer)
    per_answer, count = [], 0
    for row in rows:
        prompt = tokens.encode_prompt(tokens.prompt([user(row["prompt"])]))
        answer = tokens.encode_text(row["text"])
        if not answer:
            continue
        ids = torch.tensor([[*prompt, *answer]])
        places = slice(len(prompt) - 1, -1)
        ours = net.model(input_ids=ids).logits[0, places].float().log_softmax(-1)
        with net.base():
            base = net.model(input_ids=ids).logits[0, places].float().log_softmax(-1)
        per_answer.append(float((ours.exp() * (ours - base)).sum()))
        count += len(answer)
    return {
        "kl_a_token": sum(per_answer) / count,
        "kl_an_answer": sum(per_answer) / len(per_answer),
    }


def main() -> None:
    run = Path(sys.argv[1])
    out = run / "damage.json"
    found: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    text = (Path(__file__).parent / "plain.txt").read_text("utf-8")
    base = export_folder(catalog_model("smollm2-135m"))
    with torch.inference_mode():
        if "base" not in found:
            found["base"] = {"perplexity": perplexity(load("base", base, "float32"), text)}
        for answers in sorted((run / "eval").glob("prompts-test-*-0/results.jsonl")):
            name = answers.parent.name.removeprefix("prompts-test-")
            if name in found:
                continue
            plan = json.loads((run / "plans" / f"prompts-test-{name}.yaml").read_text("utf-8"))
            folder = Path(plan["models"][0]["model"].removeprefix("weights:"))
            net = load(name, base, "float32")
            attach(net, folder)
            rows = [json.loads(line) for line in answers.open(encoding="utf-8")]
            rows = [row for row in rows if row["method"] == "raw"][::2]
            found[name] = {"perplexity": perplexity(net, text), **divergence(net, rows)}
            out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(name, found[name], flush=True)
            net.free()
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
