"""Rounds of IterAlign against a server, as a process that a test can kill.

    python tests/support/iterate_driver.py URL FOLDER

Training is a call to the server under the name `trainer`; what it answers is the next policy.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from adhere.training.plan import TrainPlan
from adhere.training.recipes.iteralign.loop import iterate
from adhere.training.recipes.iteralign.rounds_plan import IteratePlan


def main(url: str, work: Path, out: str) -> int:
    """Go through the rounds; the exit code."""

    def trainer(plan: TrainPlan) -> str:
        rows = plan.pairs.read_text(encoding="utf-8")
        asked = {"model": "trainer", "messages": [{"role": "user", "content": rows}]}
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            said = json.load(reply)["choices"][0]["message"]["content"]
        return f"openai:{said}"

    server = {"base_url": url, "prefill": "none", "thinks": False}
    plan = IteratePlan(
        prompts=work / "prompts.jsonl",
        held_out=work / "held.jsonl",
        model={"model": "openai:policy", **server},
        oracle={"model": "openai:oracle", "base_url": url, "output": "text"},
        compare=True,
        attacks=7,
        batch=6,
        patience=None,
        limits={"attempts": 1, "concurrency": 3},
        out=work / out,
    )
    return iterate(plan, trainer=trainer).exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
