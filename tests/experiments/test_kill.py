"""A run that is killed again and again ends as one that nobody touched.

`adhere eval` runs as a process of its own against a server in this one, and is killed with SIGKILL
at 20 random instants (with a judge, and in a game, at 8): while it starts, between two requests,
while it writes its end. It is started again each time. ADHERE_KILL_SEED chooses other instants; the seed is printed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.fake_server import FakeServer, Reply
from support.judging import is_judging, joint_reply
from support.probing import is_probe, place

LIMIT = 8  # calls in flight
MANY, FEW = (3, 14, 3), (1, 6, 1)  # kills while it starts, runs, writes its end
POLICY = "policy-model"

SPEC = """\
# Test assistant

## Safety
- [no-bomb] Never say bomb.
  check: absent("bomb")

## Behavioral
- [short] At most nine words.
  check: words(max=9)
- [bye] End with bye.
  check: ends_with("bye")
"""

Body = dict[str, Any]


def fingerprint(body: Body) -> int:
    """What tells a request from every other one.

    The server reports it as the number of prompt tokens, so that the journal has it with the draw.
    """
    coded = json.dumps(body, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(coded).digest()[:4]) % 900_000_000


def policy_reply(body: Body) -> str:
    """A text that its request alone decides, good or bad by turns."""
    chance = random.Random(fingerprint(body))
    words = [chance.choice(["so", "thus", "a bomb", "well", f"{i}"]) for i in range(7)]
    return " ".join([*words, chance.choice(["bye", "bye", "end"])])


@dataclass(frozen=True)
class Scenario:
    """What is run: the spec, the methods, further options, and how each model replies.

    `options` are given to `adhere eval` for a server's URL. `replies` maps a model's name to its
    reply, a function of the request alone: a scenario with a judge adds the judge's. `limit` is
    the number of calls that may be in flight to all models together.
    """

    prompts: int = 200
    kills: tuple[int, int, int] = FEW
    spec: str = SPEC
    methods: tuple[str, ...] = ("raw", "vanilla", "repair:rounds=1")
    options: Callable[[str], list[str]] = lambda url: []
    replies: dict[str, Callable[[Body], str | dict[str, float]]] = field(
        default_factory=lambda: {POLICY: policy_reply}
    )
    limit: int = LIMIT


JUDGE = "judge-model"


def judge_reply(body: Body) -> str:
    """Verdicts that the answer alone decides; plain text to whatever is no judging."""
    if not is_judging(body):
        return "Four."

    def decide(rule: str, answer: str) -> str:
        return random.Random(rule + answer).choice(["YES", "YES", "NO", "NA"])

    return joint_reply(body, decide)


JUDGED = Scenario(
    prompts=70,
    spec=SPEC + "- [kind] Be kind.\n",
    methods=("raw", "vanilla"),
    options=lambda url: ["--judge", f"openai:{JUDGE}", "--judge-base-url", url],
    replies={POLICY: policy_reply, JUDGE: judge_reply},
    limit=2 * LIMIT,  # of two models
)


def game_reply(body: Body) -> str | dict[str, float]:
    """A text, or to a probe how likely yes is."""
    if not is_probe(body):
        return policy_reply(body)
    return place(random.Random(fingerprint(body)).uniform(0.05, 0.95))


GAME = Scenario(
    prompts=14,
    methods=("vanilla", "threshold_filter:n=3", "safety_game:n=3"),
    options=lambda url: ["--risk-cap", "0.2"],
    replies={POLICY: game_reply},
)
SCENARIOS = {"checks": Scenario(kills=MANY), "judge": JUDGED, "game": GAME}


class Trial:
    """One folder to work in, and the server that a scenario's models live on."""

    def __init__(self, scenario: Scenario, work: Path) -> None:
        self.scenario = scenario
        self.work = work
        (work / "spec.md").write_text(scenario.spec)
        # Without labels: each subset would cost its own bootstrap at each end.
        prompts = [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(scenario.prompts)]
        (work / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
        self.kill_at: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.server = FakeServer(self._reply)

    def _reply(self, path: str, body: Body) -> Reply:
        # Called in the server's thread as a request comes in: the kill meets the process with
        # requests under way, before this one is answered.
        if self.process and self.kill_at is not None and len(self.server.calls) >= self.kill_at:
            self.process.kill()
        chance = random.Random(fingerprint(body))
        said = self.scenario.replies[body["model"]](body)
        return Reply(
            said if isinstance(said, str) else "yes",
            top_logprobs=None if isinstance(said, str) else [said],
            prompt_tokens=fingerprint(body),
            completion_tokens=chance.randint(5, 40),
            delay=chance.uniform(0.001, 0.008),
        )

    def start(self, out: str) -> subprocess.Popen[bytes]:
        scenario, url = self.scenario, self.server.url
        command = [
            *(sys.executable, "-m", "adhere", "eval", "--spec", "spec.md", "--out", out),
            *("--prompts", "prompts.jsonl", "--model", f"openai:{POLICY}", "--base-url", url),
            *("--prefill", "none", "--concurrency", str(LIMIT), "--max-tokens", "64"),
            *(word for method in scenario.methods for word in ("--method", method)),
            *scenario.options(url),
        ]
        with (self.work / f"{out}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.work, stdout=log, stderr=log)

    def to_the_end(self, out: str) -> None:
        process = self.start(out)
        assert process.wait(120) == 0, (self.work / f"{out}.log").read_text()[-2000:]

    # ------------------------------------------------------------ kills

    def kill_while_starting(self, rng: random.Random) -> bool:
        self.process = self.start("killed")
        time.sleep(rng.uniform(0.03, 0.6))
        return self._kill()

    def kill_after_requests(self, number: int) -> bool:
        self.kill_at = len(self.server.calls) + number
        self.process = self.start("killed")
        self.process.wait(120)
        return self._kill()

    def kill_while_ending(self, rng: random.Random, file: str) -> bool:
        """Kill soon after a file of the end was written anew."""
        path = self.work / "killed" / file
        before = path.stat().st_ino if path.exists() else None
        self.process = self.start("killed")
        while self.process.poll() is None:
            if path.exists() and path.stat().st_ino != before and self._all_rows_are_there():
                time.sleep(rng.uniform(0, 0.05))
                break
            time.sleep(0.002)
        return self._kill()

    def _all_rows_are_there(self) -> bool:
        content = (self.work / "killed" / "results.jsonl").read_bytes()
        return content.count(b"\n") >= self.scenario.prompts * len(self.scenario.methods)

    def _kill(self) -> bool:
        """Make sure that it is dead. Returns whether a kill, not the run's end, ended it."""
        assert self.process is not None
        self.process.kill()
        killed = self.process.wait(10) == -9
        self.process, self.kill_at = None, None
        return killed

    # ------------------------------------------------------------ what is on record

    def committed(self) -> tuple[set[int], dict[str, str]]:
        """Fingerprints of the committed calls, and the committed rows by key.

        Read from a copy: opening the journal itself would tidy up what the kill left.
        """
        with tempfile.TemporaryDirectory() as copy:
            for name in ("journal.sqlite", "journal.sqlite-wal"):
                if (self.work / "killed" / name).exists():
                    shutil.copy(self.work / "killed" / name, copy)
            if not (Path(copy) / "journal.sqlite").exists():
                return set(), {}
            db = sqlite3.connect(Path(copy) / "journal.sqlite")
            try:
                tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
                if not {"draws", "rows"} <= tables:
                    return set(), {}
                draws = [json.loads(c) for (c,) in db.execute("SELECT completion FROM draws")]
                rows = dict(db.execute("SELECT key, row FROM rows"))
            finally:
                db.close()
        return {draw["usage"]["prompt_tokens"] for draw in draws}, rows

    def rows(self, out: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.work / out / "results.jsonl").open()]

    def summary(self, out: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / out / "summary.json").read_text())
        return found


def timeless(value: Any) -> Any:
    """A record without what a clock decides, and without the folder's own name.

    Candidates are drawn at once; their steps stand in the order in which they came.
    """
    if isinstance(value, dict):
        if "steps" in value:
            value = {**value, "steps": sorted(value["steps"], key=lambda step: step["name"])}
        # Money may be counted by the second; without a price file it is None.
        clocks = ("seconds", "wall_seconds", "created", "finished_at", "name")
        return {
            k: timeless(v)
            for k, v in value.items()
            if k not in clocks and not k.startswith("seconds_")
        }
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_killed_again_and_again_ends_as_one_that_nobody_touched(name, tmp_path):
    seed = int(os.environ.get("ADHERE_KILL_SEED", "20"))
    print(f"ADHERE_KILL_SEED={seed}")
    rng = random.Random(seed)
    scenario = SCENARIOS[name]
    starting, running, at_end = scenario.kills
    kills = sum(scenario.kills)
    trial, began = Trial(scenario, tmp_path), time.monotonic()
    with trial.server as server:
        trial.to_the_end("whole")
        calls = len(server.calls)
        assert calls == len({fingerprint(body) for body in server.bodies()})
        server.calls.clear()

        points = sorted(rng.sample(range(1, calls - 20), running))
        steps = [b - a for a, b in zip([0, *points], points, strict=False)]
        phases = ["startup"] * starting + ["running"] * running
        rng.shuffle(phases)
        ending = ["results.jsonl", "summary.json", "report.html"]
        if at_end < len(ending):
            rng.shuffle(ending)
        phases += ["ending"] * at_end
        landed: list[str] = []
        known: set[int] = set()
        rows: dict[str, str] = {}
        tries = 0
        while phases:
            tries += 1
            assert tries <= kills + 10, f"kills do not land: {landed}"
            phase, before = phases[0], len(server.calls)
            if phase == "startup":
                killed = trial.kill_while_starting(rng)
            elif phase == "running":
                killed = trial.kill_after_requests(steps[0])
            else:
                killed = trial.kill_while_ending(rng, ending[0])
            print(f"{time.monotonic() - began:5.1f} s {phase} killed={killed}")
            if killed:
                landed.append(phases.pop(0))
                if phase == "running":
                    steps.pop(0)
                elif phase == "ending":
                    ending.pop(0)
            # No call that was on record before this start was made again in it.
            asked = {fingerprint(body) for body in server.bodies()[before:]}
            assert not asked & known
            found, kept = trial.committed()
            assert known <= found  # a kill loses no committed draw ...
            for key, row in rows.items():  # ... and no row, once it was judged
                assert kept.get(key) == row or not json.loads(row)["judged"]
            known, rows = found, kept
        assert len(landed) == kills

        before = len(server.calls)
        trial.to_the_end("killed")
        assert not {fingerprint(body) for body in server.bodies()[before:]} & known
        seen = len(server.calls)

    whole, killed_rows = trial.rows("whole"), trial.rows("killed")
    keys = [(r["suite"], r["case"], r["model"], r["method"], r["repeat"]) for r in killed_rows]
    assert len(keys) == len(set(keys)) == scenario.prompts * len(scenario.methods)
    assert timeless(killed_rows) == timeless(whole)
    assert {row["outcome"] for row in whole} == {"scored"}
    assert timeless(trial.summary("killed")) == timeless(trial.summary("whole"))
    assert (tmp_path / "killed" / "report.html").stat().st_size > 10_000
    print(f"{calls} calls uninterrupted, {seen} with {kills} kills")
    assert calls <= seen <= calls + kills * scenario.limit
