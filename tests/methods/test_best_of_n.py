"""best_of_n: who chooses, who is out of the race, and spending as many tokens as another method."""

from __future__ import annotations

import math

import pytest

from adhere.chat import Capability, Completion, Role, Sampling, assistant, system, user
from adhere.errors import BadInput, Filtered, Garbage, Overloaded, Truncated
from adhere.methods import load_method
from adhere.methods.best_of_n import AT_ONCE, WITHOUT_TOKENS
from support.fake_server import FakeServer, Fault, Reply
from support.methods import SPEC, run_method
from support.rewards import LengthReward, draw_number

SEED = Sampling(temperature=0.5, max_tokens=77, seed=0)
FILTERED = Fault(400, '{"error": {"message": "x", "code": "content_filter"}}')


def by_draw(*replies):
    """Draw 0 gets the first reply, and so on."""
    made = [Reply(r) if isinstance(r, str) else r for r in replies]
    return lambda path, body: made[draw_number(body) % len(made)]


def pick(replies, *, reward=None, options=None, **request):
    reward = reward or LengthReward()
    options = {"n": len(replies), **(options or {})}
    with FakeServer(by_draw(*replies)) as server:
        answer = run_method(
            server,
            "best_of_n",
            options,
            reward=reward,
            sampling=request.pop("sampling", SEED),
            **request,
        )
    return answer, reward


# ---------------------------------------------------------------- selectors


def test_a_reward_model_picks_by_default_and_the_earliest_of_equals_wins():
    answer, reward = pick(["one", "three", "seven", "two"])
    assert answer.text == "three"
    assert answer.facts["picked"] == 1
    assert answer.facts["scores"] == [3.0, 5.0, 5.0, 3.0]
    assert answer.facts["selector"] == "reward"
    assert answer.facts["out_of_race"] == {}
    assert [text for _, text in reward.asked] == ["one", "three", "seven", "two"]
    assert answer.usage["reward"].calls == 4
    assert answer.usage["reward"].prompt_tokens == 28
    assert not load_method("best_of_n").oracle


def test_a_reward_model_sees_question_and_rules_as_the_users_turn():
    _, reward = pick(["a"])
    [(shown, _)] = reward.asked
    assert [m.role for m in shown] == ["user"]
    assert "QUESTION?" in shown[0].text
    assert "Rule B2." in shown[0].text


def test_a_system_message_that_says_something_stays_before_a_reward_model():
    _, reward = pick(["a"], options={"order": "spec_first"})
    assert [m.role for m in reward.asked[0][0]] == ["system", "user"]
    talk = (system("OWN"), user("Q1"), assistant("A1"), user("Q2"))
    _, reward = pick(["a"], messages=talk)
    assert [m.text for m in reward.asked[0][0]][:3] == ["OWN", "Q1", "A1"]


def test_a_reward_model_that_sees_the_question_gets_no_rules():
    _, reward = pick(["a"], reward=LengthReward(sees="question"))
    assert reward.asked[0][0] == (user("QUESTION?"),)


def test_thoughts_are_not_scored():
    _, reward = pick(["<think>\nvery long and deep\n</think>\n\nok", "okay"])
    assert [text for _, text in reward.asked] == ["ok", "okay"]


def test_a_reward_model_is_required_only_where_one_chooses():
    assert load_method("best_of_n").requires == {
        Role.POLICY: {Capability.CHAT},
        Role.REWARD: {Capability.REWARD},
    }
    for selector in ("checks", "random"):
        method = load_method("best_of_n", {"selector": selector})
        assert set(method.requires) == {Role.POLICY}
        assert method.oracle is (selector == "checks")
    with FakeServer() as server, pytest.raises(BadInput, match="role 'reward'"):
        run_method(server, "best_of_n", {"n": 1})


def test_a_model_that_only_writes_is_no_reward_model():
    class Writer:
        identity = "test:writer"
        capabilities = frozenset({Capability.CHAT})

        async def sample(self, *args, **how):
            return [Completion("0.5")]

    with FakeServer() as server, pytest.raises(BadInput, match="gives no rewards"):
        run_method(server, "best_of_n", {"n": 1}, reward=Writer())


def test_checks_are_an_oracle_and_ask_no_reward_model():
    answer, reward = pick(["bomb", "Fine. Bye.", "dose"], options={"selector": "checks"})
    assert answer.text == "Fine. Bye."
    assert answer.facts["selector"] == "checks (oracle)"
    assert answer.facts["scores"][1] == 1.0
    assert reward.asked == []
    assert "reward" not in answer.usage


def test_chance_is_seeded_by_the_question_and_blind_to_the_texts():
    options = {"selector": "random"}
    texts = [f"text {i}" for i in range(8)]
    first = {pick(texts, options=options)[0].text for _ in range(2)}
    assert len(first) == 1
    others = {pick(texts, options=options, question=f"Q{i}")[0].facts["picked"] for i in range(12)}
    assert len(others) > 3
    picked = pick(texts, options=options)[0].facts["picked"]
    for reply, error in (
        (Reply("<think>\ncut", finish="length"), Truncated),
        (FILTERED, Filtered),  # the row ends as the candidate did
    ):
        texts[picked] = reply
        with pytest.raises(error):
            pick(texts, options=options)


# ---------------------------------------------------------------- out of the race


def test_who_has_no_answer_or_no_reward_is_out_of_the_race_and_counted():
    replies = [
        Reply("<think>\nstill thinking, at great length", finish="length"),
        FILTERED,
        Reply("  \n"),
        "unscorable, and the longest text of all",
        "a fair answer",
        "short",
    ]
    reward = LengthReward(lambda text: None if "unscorable" in text else float(len(text)))
    answer, _ = pick(replies, reward=reward)
    assert answer.text == "a fair answer"
    assert answer.facts["picked"] == 4
    assert answer.facts["scores"] == [None, None, None, None, 13.0, 5.0]
    assert answer.facts["out_of_race"] == {
        "empty": 1, "filtered": 1, "no_reward": 1, "truncated": 1
    }  # fmt: skip
    assert answer.facts["candidates"] == 6


def test_an_answer_that_the_limit_cut_is_still_in_the_race():
    answer, _ = pick([Reply("a long answer that was cut", finish="length"), "short"])
    assert answer.text.startswith("a long")
    assert answer.finish_reason == "length"


def test_when_nothing_has_an_answer_the_row_says_what_became_of_the_first():
    cut = Reply("<think>\nno end", finish="length")
    with pytest.raises(Truncated):
        pick([cut, FILTERED])
    with pytest.raises(Filtered):
        pick([FILTERED, cut])
    assert pick([FILTERED, Reply("")])[0].text == ""  # an empty answer is an unscored row


def test_when_no_candidate_gets_a_reward_the_row_fails_and_can_be_tried_again():
    with pytest.raises(Garbage, match="none of 2 candidates got a reward: odd") as caught:
        pick(["a", "b"], reward=LengthReward(lambda text: None))
    assert caught.value.retryable


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_finite_number_fails_the_row(value):
    with pytest.raises(Garbage, match="test:length: the reward is"):
        pick(["a", "b"], reward=LengthReward(lambda text: value if text == "b" else 1.0))


def test_a_reward_model_that_answers_for_too_few_fails_the_row():
    class Lazy(LengthReward):
        async def rewards(self, messages, answers):
            return (await super().rewards(messages, answers))[:1]

    with pytest.raises(Garbage, match="gave 1 rewards for 2 answers"):
        pick(["a", "b"], reward=Lazy())


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(("selector", "calls"), [("reward", [5, 5]), ("checks", [5])])
def test_the_plan_names_its_calls(selector, calls):
    method = load_method("best_of_n", {"n": 5, "selector": selector})
    plan = method.expected_calls(frozenset(), SPEC)
    assert [(c.low, c.high) for c in plan.calls] == [(n, n) for n in calls]
    assert [c.role for c in plan.calls] == [Role.POLICY, Role.REWARD][: len(calls)]
    assert all(c.max_tokens == 0 for c in plan.calls[1:])


def spend(tokens, replies, *, max_tokens=20, **options):
    """Spend so many tokens; gives the answer and the draws in the order of the requests."""
    with FakeServer(by_draw(*replies)) as server:
        answer = run_method(
            server, "best_of_n", options, reward=LengthReward(),
            sampling=Sampling(max_tokens=max_tokens, seed=0), spend=tokens,
        )  # fmt: skip
        return answer, server


@pytest.mark.parametrize("tokens", [1, 19, 20, 21, 200, 333, 1000])
@pytest.mark.parametrize("each", [[20], [7], [3, 20, 11]])
@pytest.mark.parametrize("max_tokens", [20, 400])
def test_it_spends_the_tokens_to_within_one_call(tokens, each, max_tokens):
    replies = [Reply("x" * n, completion_tokens=n) for n in each]
    answer, server = spend(tokens, replies, max_tokens=max_tokens)
    used = answer.usage["policy"].completion_tokens
    assert tokens <= used < tokens + max(each)
    assert answer.facts["spend"] == tokens
    assert answer.facts["spent"] == used
    draws = sorted(draw_number(body) for body in server.bodies())
    assert draws == list(range(answer.facts["candidates"]))  # in order: they are vanilla's draws
    assert server.most_in_flight <= AT_ONCE


def test_the_published_n_is_no_limit_to_spending():
    answer, _ = spend(100, [Reply("x", completion_tokens=5)], n=3)
    assert answer.facts["candidates"] == 20
    assert load_method("best_of_n").can_spend


def test_spending_without_a_token_limit_begins_with_one_call_alone():
    answer, server = spend(100, [Reply("x", completion_tokens=10)], max_tokens=None)
    assert answer.usage["policy"].completion_tokens == 100
    assert len(server.calls) == 10


def test_a_server_that_counts_no_tokens_cannot_be_held_to_a_number_of_them():
    with pytest.raises(BadInput, match="counts no completion tokens"):
        spend(100, [Reply("x", completion_tokens=0)])


def test_spending_ends_when_everything_is_withheld():
    with FakeServer(by_draw(FILTERED)) as server, pytest.raises(Filtered):
        run_method(server, "best_of_n", reward=LengthReward(), sampling=SEED, spend=1000)
    assert len(server.calls) <= 2 * WITHOUT_TOKENS


def test_a_failure_that_is_the_servers_fails_the_row_and_is_asked_once():
    with FakeServer(by_draw(Fault(400))) as server, pytest.raises(BadInput):
        run_method(server, "best_of_n", {"n": 4}, reward=LengthReward(), sampling=SEED)
    assert 1 <= len(server.calls) <= 4  # what was in flight, none again


def test_a_request_that_is_refused_for_good_is_not_sent_for_those_that_wait():
    with FakeServer(lambda path, body: Fault(400)) as server, pytest.raises(BadInput):
        run_method(server, "best_of_n", {"n": 200}, reward=LengthReward(), sampling=SEED)
    assert len(server.calls) <= 2 * 8  # of 8 in flight, and who had their turn by then


def test_what_a_filter_withholds_ends_no_other_candidate():
    replies = [FILTERED, Reply("<think>\nno end", finish="length"), *["fine"] * 30]
    answer, _ = pick(replies)
    assert answer.text == "fine"
    assert answer.facts["candidates"] == 32
    assert answer.facts["out_of_race"] == {"filtered": 1, "truncated": 1}


def test_a_failure_that_may_pass_lets_the_others_end():
    replies = [Fault(503), *["fine"] * 11]
    with FakeServer(by_draw(*replies)) as server, pytest.raises(Overloaded):
        run_method(server, "best_of_n", {"n": 12}, reward=LengthReward(), sampling=SEED)
    assert {draw_number(body) for body in server.bodies()} == set(range(12))
