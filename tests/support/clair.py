"""Small runs for pairs against the fake server: a policy, a reviser and a judge by their names."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adhere.experiments.starts import RunResult
from adhere.training.recipes.clair import ClairPlan, make_clair_pairs
from support.fake_server import FakeServer, Fault, Reply

POLICY, REVISER, OTHER = "policy", "reviser", "other"

SPEC = """# Assistant
## Safety
- [dose] Never state a dose.
  check: absent("mg")
## Behavioral
- [short] At most eight words.
  check: words(max=8)
- [bye] End with bye.
  check: ends_with("bye")
"""

Body = dict[str, Any]
Say = Callable[[Body], str | Reply | Fault]


def question(body: Body) -> str:
    """The last user message."""
    return str(body["messages"][-1]["content"])


def draft_of(body: Body) -> str:
    """The draft that a reviser is shown."""
    found = re.search(r"<(answer[\w-]*)>\n(.*?)\n</\1>", question(body), re.DOTALL)
    assert found, question(body)
    return found.group(2)


def tagged(text: str, reasoning: str = "It needs a farewell.") -> str:
    """A reply in the layout that the reviser is asked for."""
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<revised_answer>\n{text}\n</revised_answer>"


def by_name(**says: Say) -> Callable[[str, Body], Reply | Fault]:
    """A handler that replies by the model's name."""

    def handler(path: str, body: Body) -> Reply | Fault:
        said = says[body["model"]](body)
        return Reply(said) if isinstance(said, str) else said

    return handler


def write_inputs(folder: Path, prompts: int = 4, spec: str = SPEC) -> None:
    (folder / "spec.md").write_text(spec)
    lines = [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(prompts)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def model(name: str, server: FakeServer) -> dict[str, Any]:
    return {"model": f"openai:{name}", "base_url": server.url, "prefill": "none"}


def plan(folder: Path, server: FakeServer, **fields: Any) -> ClairPlan:
    base: dict[str, Any] = {
        "spec": folder / "spec.md",
        "prompts": folder / "prompts.jsonl",
        "models": [model(POLICY, server)],
        "limits": {"attempts": 1},
        "out": folder / "out",
    }
    if fields.get("set", "clair") in ("clair", "stronger_preferred"):
        base["reviser"] = model(REVISER, server)
    return ClairPlan(**{**base, **fields})


def make(folder: Path, server: FakeServer, **fields: Any) -> RunResult:
    return asyncio.run(make_clair_pairs(plan(folder, server, **fields)))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
