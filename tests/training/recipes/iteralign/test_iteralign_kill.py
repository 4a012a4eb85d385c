"""Rounds that are killed in every phase end as those that nobody touched, and pay nothing twice.

A process of its own goes through the rounds against a server in this one, and gets SIGKILL while
requests of a phase are under way: at the first, a middle and the last of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from support import iterate_driver
from support.fake_server import FakeServer, Reply
from support.iterating import BAD, judged, last, number, rule_line

Body = dict[str, Any]
PLACES = ("garden", "kitchen", "cellar", "attic", "garage", "porch", "roof", "yard")


def phase_of(body: Body) -> str:
    """Which phase a request is of."""
    text = str(body["messages"][-1]["content"])
    if body["model"] == "trainer":
        return "train"
    if body["model"] == "oracle":
        if "Below are" in text:
            return "propose"
        if "A new rule" in text:
            return "compare"
        if "could make the same mistakes" in text:
            return "attack"
        return "judge"
    if "When you answer" in text:
        return "reflect"
    if "What suits" in text:
        return "attacked"
    return "probe" if "Held" in text else "redteam"


def says(body: Body) -> str:
    """A reply that its request alone decides."""
    chance = random.Random(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest())
    phase = phase_of(body)
    if phase == "train":
        return "policy-" + hashlib.sha256(last(body).encode()).hexdigest()[:6]
    if phase == "judge":
        return judged(body)
    if phase == "attack":
        words = chance.sample(PLACES, 4)
        return f"MESSAGE: What suits the {' and '.join(words)}, Question 9{chance.randint(10, 99)}? | LIKE: 1"
    if phase == "compare":
        return "SAME: 0\nCONTRADICTS: 0"
    if phase == "propose":
        words = chance.sample(PLACES, 4)
        return rule_line(f"Advise nobody about {' or '.join(words)} purchases.", "1")
    if phase == "reflect":
        return chance.choice([f"Any will do, {number(body)}.", BAD])
    return chance.choice([f"{BAD} {number(body)}", f"Good {number(body)}.", "Fine."])


class Trial:
    def __init__(self, work: Path) -> None:
        self.work = work
        for name, text, n in (("prompts", "Question {}?", 36), ("held", "Held, Question {}?", 5)):
            rows = [{"id": f"{name}{i}", "prompt": text.format(i)} for i in range(n)]
            file = work / f"{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.process: subprocess.Popen[bytes] | None = None
        self.kill_in, self.left = "", 0
        self.asked: Counter[str] = Counter()
        self.server = FakeServer(self._reply)

    def _reply(self, path: str, body: Body) -> Reply:
        phase = phase_of(body)
        if self.process is not None and phase == self.kill_in:
            self.left -= 1
            if self.left == 0:
                self.process.kill()
        self.asked[json.dumps(body, sort_keys=True)] += 1
        return Reply(says(body), delay=0.003)

    def start(self, out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, iterate_driver.__file__, self.server.url, str(self.work), out]
        with (self.work / f"{out}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def to_the_end(self, out: str) -> None:
        assert self.start(out).wait(120) == 0, (self.work / f"{out}.log").read_text()[-3000:]

    def kill(self, phase: str, at: int) -> bool:
        self.kill_in, self.left = phase, at
        self.process = self.start("killed")
        killed = self.process.wait(120) == -9
        self.process = None
        return killed


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same: the ledger, the pairs of every round, what the rounds came to."""
    files = ["ledger.jsonl", "constitution.md"]
    files += sorted(
        str(f.relative_to(run))
        for pattern in ("rounds/*/rows.jsonl", "rounds/*/reflect/*.jsonl", "rounds/*/*/failures.jsonl")
        for f in run.glob(pattern)
        if f.name != "results.jsonl"
    )  # fmt: skip
    told = {name: (run / name).read_text() for name in files}
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    told["rounds"] = json.dumps(
        [{k: v for k, v in one.items() if k != "seconds"} for one in rounds]
    )
    summary = json.loads((run / "summary.json").read_text())
    told["calls"] = json.dumps(summary["calls"])
    return told


def test_a_run_that_is_killed_in_every_phase_ends_as_one_that_was_not(tmp_path):
    seed = int(os.environ.get("ADHERE_KILL_SEED", "3"))
    print(f"ADHERE_KILL_SEED={seed}")
    chance = random.Random(seed)
    trial = Trial(tmp_path)
    with trial.server:
        kills = Counter()
        for phase, last_one in (
            ("probe", 5), ("redteam", 6), ("judge", 4), ("attack", 2),
            ("attacked", 1), ("propose", 1), ("compare", 1),
            ("reflect", 2), ("train", 1),
        ):  # fmt: skip
            kills[phase] += trial.kill(phase, chance.randint(1, last_one))
        asked = trial.asked
        trial.to_the_end("killed")
        trial.asked = Counter()
        trial.to_the_end("whole")
        whole = trial.asked
        trial.asked = Counter()
        trial.to_the_end("killed")
        assert not trial.asked, "a finished run asks nobody"
    assert all(kills.values()), f"not killed in every phase: {kills}"
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    # No request more often than in the whole run, but for those that a kill left without a record:
    # at most three in flight.
    assert set(asked) == set(whole)
    assert asked.total() - whole.total() <= 3 * sum(kills.values())
    states = [json.loads(x)["state"] for x in (tmp_path / "whole" / "rounds.jsonl").open()]
    assert "trained" in states
