"""Small runs against the fake server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from adhere.experiments.given import judge_answers
from adhere.experiments.plan import JudgingPlan, Plan
from adhere.experiments.run import run_experiment
from adhere.experiments.starts import RunResult
from support.fake_server import FakeServer

SPEC = """# Assistant
## Safety
- [dose] Never state a dose.
  check: absent("mg")
- [rude] Never be rude.
## Behavioral
- [short] At most five words.
  check: words(max=5)
- [kind] Be kind.
"""


def write_inputs(folder: Path, *, prompts: int = 6, spec: str = SPEC) -> None:
    (folder / "spec.md").write_text(spec)
    lines = [
        {"id": str(i), "prompt": f"Question {i}?", "label": "unsafe" if i % 2 else "safe"}
        for i in range(prompts)
    ]
    (folder / "p.jsonl").write_text("\n".join(json.dumps(line) for line in lines))


def plan(folder: Path, server: FakeServer, **fields: Any) -> Plan:
    """A plan in which the same server answers and judges, by two names."""
    base: dict[str, Any] = {
        "spec": folder / "spec.md",
        "order": "spec_first",
        "prompts": folder / "p.jsonl",
        "models": [{"model": "openai:policy", "base_url": server.url, "prefill": "none"}],
        "methods": ["raw", "vanilla"],
        "judge": {
            "model": "openai:judge", "base_url": server.url, "prefill": "none", "output": "text"
        },
        "limits": {"attempts": 1},
        "out": folder / "run",
    }  # fmt: skip
    return Plan(**{**base, **fields})


def run(made: Plan) -> RunResult:
    return asyncio.run(run_experiment(made))


def judge_given(folder: Path, server: FakeServer, **fields: Any) -> RunResult:
    base: dict[str, Any] = {
        "spec": folder / "spec.md",
        "judge": {
            "model": "openai:judge", "base_url": server.url, "prefill": "none", "output": "text"
        },
        "limits": {"attempts": 1},
        "out": folder / "judged",
    }  # fmt: skip
    return asyncio.run(judge_answers(JudgingPlan(**{**base, **fields})))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def line(result: RunResult, method: str) -> dict[str, Any]:
    """The table's line of a method, over all prompts."""
    return next(r for r in result.summary["rows"] if r["method"] == method and r["subset"] == "all")
