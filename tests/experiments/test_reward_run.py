"""Runs in which a reward model chooses: asked once, on record, named, counted and paid for."""

from __future__ import annotations

import pytest
import yaml

from adhere.errors import BadInput
from support.fake_server import FakeServer, Reply
from support.judging import is_judging, joint_reply
from support.rewards import RewardServer, pooled, scored_text
from support.runs import line, plan, rows, run, write_inputs

N = 4


def candidates(path, body):
    """A candidate of its own for each draw: the later, the longer."""
    return Reply("Be kind. " * (1 + body.get("seed", 0) % N))


def by_length(path, body):
    return pooled([float(len(scored_text(body)))])


def made(folder, server, rewards, **fields):
    base = {
        "judge": None,
        "methods": ["vanilla", {"method": "best_of_n", "n": N}],
        "reward": {"model": "openai:rm", "base_url": rewards.url},
        "sampling": {"seed": 0},
    }
    return plan(folder, server, **{**base, **fields})


def test_the_best_by_reward_is_the_answer_and_everybody_is_named(tmp_path):
    write_inputs(tmp_path, prompts=3)
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump({
        "currency": "USD",
        "models": {"openai:policy": {"input": 1, "output": 1},
                   "openai:rm": {"input": 1000, "output": 0}},
    }))  # fmt: skip
    with FakeServer(candidates) as server, RewardServer(by_length) as rewards:
        result = run(made(tmp_path, server, rewards, prices=tmp_path / "prices.yaml"))
        assert len(rewards.calls) == 3 * N
        again = run(made(tmp_path, server, rewards, prices=tmp_path / "prices.yaml"))
        assert len(rewards.calls) == 3 * N
    assert again.did_nothing
    best = [r for r in rows(tmp_path / "run") if r["method"] == "best_of_n"]
    assert {r["text"].strip() for r in best} == {("Be kind. " * N).strip()}
    for row in best:
        assert row["facts"]["selector"] == "reward"
        assert row["usage"]["reward"]["prompt_tokens"] == 9 * N
        assert row["roles"] == {"reward": "openai:rm"}
        assert row["oracle"] is False
    # Dearer by what the reward model read: 9 tokens a candidate at 1000 a million.
    difference = line(result, "best_of_n")["cost"] - N * line(result, "vanilla")["cost"]
    assert difference == pytest.approx(9 * N * 1000 / 1e6)
    assert result.summary["settings"]["reward"]["model"] == "openai:rm"
    record = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert "rm" in record["identity"]["reward_model"]


def test_a_reward_that_is_no_number_fails_the_row_in_words(tmp_path):
    write_inputs(tmp_path, prompts=2)

    def odd(path, body):
        if "Question 1?" in str(body):
            return 200, '{"data": [{"data": [NaN]}]}'
        return by_length(path, body)

    with FakeServer(candidates) as server, RewardServer(odd) as rewards:
        result = run(made(tmp_path, server, rewards))
    found = {(r["method"], r["case"]): r for r in rows(tmp_path / "run")}
    bad = found["best_of_n", "1"]
    assert bad["outcome"] == "failed"
    assert bad["error"]["kind"] == "Garbage"
    assert "NaN" in bad["reason"] or "nan" in bad["reason"]
    assert found["best_of_n", "0"]["outcome"] == "unscored" or found["best_of_n", "0"]["score"]
    assert line(result, "best_of_n")["n_failed"] == 1


def test_without_a_reward_model_nothing_is_started(tmp_path):
    write_inputs(tmp_path, prompts=1)
    with FakeServer(candidates) as server:
        with pytest.raises(BadInput, match="reward") as caught:
            run(plan(tmp_path, server, judge=None, methods=["best_of_n"]))
        assert "selector=checks" in caught.value.hint
        assert not server.calls
    assert not (tmp_path / "run").exists()


def judging(path, body):
    """Policy and judge behind one server: the judge likes long answers that are kind."""
    if not is_judging(body):
        return candidates(path, body)

    def decide(rule, answer):
        return "YES" if answer.count("Be kind.") >= N - 1 or "kind" not in rule else "NO"

    return Reply(joint_reply(body, decide))


def test_a_judge_as_reward_is_an_oracle_where_it_decides_by_the_checks(tmp_path):
    write_inputs(tmp_path, prompts=2)
    reward = {"model": "openai:critic", "kind": "judge"}
    with FakeServer(judging) as server:
        reward["base_url"] = server.url
        run(plan(tmp_path, server, judge=None, reward=reward, sampling={"seed": 0},
                 methods=[{"method": "best_of_n", "n": N}]))  # fmt: skip
        asked = [b for b in server.bodies() if b["model"] == "critic" and is_judging(b)]
        calls = len(server.calls)
        run(plan(tmp_path, server, judge=None, reward=reward, sampling={"seed": 0},
                 methods=[{"method": "best_of_n", "n": N}, "vanilla"]))  # fmt: skip
        # The judge's calls were on record: only what vanilla lacks could be asked.
        again = [b for b in server.bodies() if b["model"] == "critic" and is_judging(b)]
        assert len(again) == 2 * N
    assert len(asked) == 2 * N
    assert calls >= 4 * N
    for row in rows(tmp_path / "run"):
        assert row["oracle"] == (row["method"] == "best_of_n")


def test_a_judges_reward_is_made_of_alpha_which_then_is_identity(tmp_path):
    write_inputs(tmp_path, prompts=1)
    reward = {"model": "openai:critic", "kind": "judge"}
    with FakeServer(judging) as server:
        reward["base_url"] = server.url
        fields = {"judge": None, "reward": reward, "methods": [{"method": "best_of_n", "n": 2}]}
        run(plan(tmp_path, server, **fields))
        with pytest.raises(BadInput, match="alpha"):
            run(plan(tmp_path, server, alpha=0.5, **fields))


def test_two_models_on_this_machine_that_are_needed_at_once_are_refused(tmp_path):
    write_inputs(tmp_path, prompts=1)
    with FakeServer(candidates) as server:
        for fields in (
            {"models": ["local:smollm2-135m"], "judge": None},
            {"judge": {"model": "local:smollm2-135m"}},
        ):
            with pytest.raises(BadInput, match="at once"):
                run(plan(tmp_path, server, methods=["best_of_n"],
                         reward={"model": "local:smollm2-135m", "kind": "judge"}, **fields))  # fmt: skip
    assert not (tmp_path / "run").exists()
