"""A teacher and a judge that both decode on one machine: they take turns, also with tries left.

The models are those of a server here, and only said to be of this machine: what is looked at is who
is opened when, and that nothing waits for ever.
"""

from __future__ import annotations

import pytest

from adhere.errors import EXIT_DONE
from adhere.experiments.stepwise import seats as seats_module
from adhere.training.recipes.deliberative import run as run_module
from adhere.training.recipes.deliberative.inputs import JUDGE, TEACHER
from support.clair import by_name
from support.distilling import lines, make, model, parts, write_inputs
from support.fake_server import FakeServer


@pytest.fixture
def opened(monkeypatch):
    """The seats that were opened together, in turn."""
    found = []
    original = run_module.open_seats

    def watched(inputs, opening, seats):
        found.append(list(seats))
        return original(inputs, opening, seats)

    monkeypatch.setattr(run_module, "open_seats", watched)
    monkeypatch.setattr(seats_module, "decodes_here", lambda config: True)
    return found


def test_two_models_of_one_machine_take_turns(tmp_path, opened):
    write_inputs(tmp_path, [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(3)])
    texts = iter(range(100))

    def teach(body):
        return parts(f"I weigh it, {next(texts)}.", f"Ask {next(texts)}.")

    def guard(body):  # the first draft of each is refused
        early = any(f"Ask {i}." in str(body) for i in (1, 3, 5))
        return "unsafe\nS1" if early else "safe"

    with FakeServer(by_name(teacher=teach, judge=guard)) as server:
        result = make(
            tmp_path, server, filters=["checks", "guard"], judge=model("judge", server), tries=2
        )
        order = [body["model"] for body in server.bodies()]
    assert result.exit_code == EXIT_DONE
    assert opened == [[], [TEACHER], [JUDGE], [TEACHER], [JUDGE]]
    # All answers, then all marks, then what is left to try.
    assert order == ["teacher"] * 3 + ["judge"] * 3 + ["teacher"] * 3 + ["judge"] * 3
    rows = lines(tmp_path / "out" / "rows.jsonl")
    assert [row["lineage"]["tries"] for row in rows] == [2, 2, 2]


def test_one_model_of_this_machine_stays_open(tmp_path, opened):
    write_inputs(tmp_path)
    with FakeServer(by_name(teacher=lambda body: parts("I weigh it.", "Ask."))) as server:
        assert make(tmp_path, server).summary["rows"] == 4
    assert opened == [[TEACHER]]
