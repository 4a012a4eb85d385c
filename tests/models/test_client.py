"""The client, the limiter and the error classes, against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from adhere.chat import Capability, Sampling, user
from adhere.errors import (
    AdhereError,
    Auth,
    BadInput,
    ContextTooLong,
    Filtered,
    Garbage,
    NotFound,
    Overloaded,
    RateLimited,
    Timeout,
)
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter, RetryPolicy
from adhere.models.openai_compatible import draw_seed, join_prefill
from support.fake_server import FakeServer, Fault, Reply, in_turn
from support.methods import QUICK

KEY = "sk-planted-0123456789"


def sample(server: FakeServer, *, timeout: float = 2, n: int = 1, limiter=None, **config):
    async def go():
        plan = ModelConfig(model="openai:m", base_url=server.url, **{"prefill": "none", **config})
        async with connect(plan, limiter or Limiter(8, retry=QUICK), timeout=timeout) as model:
            return await model.sample([user("hi")], Sampling(seed=1), n=n)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        (Fault(401), Auth, 1),
        (Fault(403), Auth, 1),
        (Fault(404), NotFound, 1),
        (Fault(429), RateLimited, 3),
        (Fault(429, headers={"Retry-After": "0"}), RateLimited, 3),
        (Fault(500), Overloaded, 3),
        (Fault(503, headers={"Retry-After": "0.01"}), Overloaded, 3),
        (Fault(504), Timeout, 3),
        (Fault(200, "<html>Welcome</html>", "text/html"), Garbage, 3),
        (Fault(200, '{"choices": [{"mess'), Garbage, 3),
        (Fault(200, '{"choices": []}'), Garbage, 3),
        (Fault(200, "[]"), Garbage, 3),
        (Fault(200, '{"choices": [{"message": {"content": 7}}]}'), Garbage, 3),
        (Fault(reset=True), Overloaded, 3),
        (Fault(400), BadInput, 1),
        (Fault(302, headers={"Location": "http://127.0.0.1:9/"}), NotFound, 1),
        (
            Fault(400, '{"error": {"message": "This exceeds the maximum context length"}}'),
            ContextTooLong,
            1,
        ),
        (Fault(400, '{"error": {"message": "x", "code": "content_filter"}}'), Filtered, 1),
        (
            Fault(
                200, '{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}'
            ),
            Filtered,
            1,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(getattr(value, "status", value)),
)
def test_each_fault_ends_in_its_class_after_its_tries(fault, error, requests):
    with FakeServer(lambda p, b: fault) as server, pytest.raises(error):
        sample(server)
    assert len(server.calls) == requests


def test_a_hanging_server_times_out():
    with FakeServer(lambda p, b: Fault(hang=5)) as server, pytest.raises(Timeout):
        sample(server, timeout=0.1)


def test_a_fault_that_passes_is_not_seen():
    with FakeServer(in_turn(Fault(500), Fault(429), Reply("ok"))) as server:
        [got] = sample(server)
    assert got.text == "ok"
    assert len(server.calls) == 3


def test_null_content_is_an_empty_text_not_a_crash():
    with FakeServer(in_turn(Reply(None))) as server:
        assert sample(server)[0].text == ""


def test_length_is_kept():
    with FakeServer(in_turn(Reply("x", finish="length"))) as server:
        assert sample(server)[0].cut


def test_no_server_at_all_says_what_to_check():
    with FakeServer() as server:
        url = server.url

    async def go():
        plan = ModelConfig(model="openai:m", base_url=url)
        async with connect(plan, Limiter(retry=QUICK)):
            pass

    with pytest.raises(Overloaded) as caught:
        asyncio.run(go())
    assert "no connection" in caught.value.message
    assert "--base-url" in caught.value.hint


def test_draws_have_seeds_of_their_own():
    with FakeServer() as server:
        sample(server, n=3)
    seeds = sorted(body["seed"] for body in server.bodies())
    assert seeds == [draw_seed(1, i) for i in range(3)]
    assert all("n" not in body for body in server.bodies())
    overlap = {draw_seed(0, i) for i in range(1000)} & {draw_seed(1, i) for i in range(1000)}
    assert not overlap


def test_the_key_is_sent_and_stands_in_no_error(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    echo = Fault(400, json.dumps({"error": {"message": f"bad request with key {KEY}"}}))
    with FakeServer(lambda p, b: echo, key=KEY) as server, pytest.raises(BadInput) as caught:
        sample(server, api_key_env="MY_KEY")
    assert server.calls[0][2]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value)


def test_a_key_variable_that_is_not_set_is_named_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FakeServer() as server, pytest.raises(BadInput, match="NO_SUCH_KEY"):
        sample(server, api_key_env="NO_SUCH_KEY")
    assert not server.calls
    with pytest.raises(BadInput, match="OPENAI_API_KEY"):
        connect(ModelConfig(model="openai:gpt"), Limiter())


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x/v1", "http://", "http://me:pw@x/v1"])
def test_a_base_url_that_is_none_is_refused(url):
    with pytest.raises(BadInput, match="--base-url"):
        connect(ModelConfig(model="openai:m", base_url=url), Limiter())


@pytest.mark.parametrize("name", ["gpt-4", "openai:", ":x", "azure:gpt"])
def test_a_model_name_without_a_known_provider_is_refused(name):
    with pytest.raises(BadInput, match="unknown model"):
        connect(ModelConfig(model=name), Limiter())


def test_a_model_that_the_server_does_not_list_is_tried_and_then_refused_with_the_list():
    with (
        FakeServer(lambda p, b: Fault(404), models=["alpha", "beta"]) as server,
        pytest.raises(NotFound) as caught,
    ):
        sample(server)
    assert "alpha, beta" in caught.value.hint
    assert len(server.calls) == 1
    with FakeServer(models=["alpha"]) as server:  # an alias that works
        assert sample(server)[0].text == "fine"


@pytest.mark.parametrize(
    ("server", "route"),
    [
        ({"template": True}, "completions"),
        ({"continues": True}, "chat"),
        ({}, "none"),
    ],
)
def test_prefill_is_probed_and_not_believed(server, route):
    async def go(url):
        async with connect(ModelConfig(model="openai:m", base_url=url), Limiter()) as model:
            return model.route, model.capabilities

    with FakeServer(**server) as running:
        found, capabilities = asyncio.run(go(running.url))
    assert found == route
    assert (Capability.PREFILL in capabilities) == (route != "none")


def test_a_given_chat_template_is_rendered_here(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<think>\n")

    async def go(url):
        plan = ModelConfig(model="openai:m", base_url=url, chat_template=template)
        async with connect(plan, Limiter()) as model:
            await model.sample([user("hi")], Sampling(), prefill="<think>\nSo")

    with FakeServer() as server:
        asyncio.run(go(server.url))
    [(path, body, _)] = server.calls
    assert path == "/completions"
    assert body["prompt"] == "<user>hi<think>\nSo"  # a thought is not opened twice


def test_templates_run_in_a_sandbox(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")

    async def go(url):
        plan = ModelConfig(model="openai:m", base_url=url, chat_template=template)
        async with connect(plan, Limiter()) as model:
            await model.sample([user("hi")], Sampling(), prefill="x")

    with FakeServer() as server, pytest.raises(BadInput, match="template failed"):
        asyncio.run(go(server.url))
    assert not server.calls


def test_join_prefill():
    assert join_prefill("<a><think>\n", "<think>\nx") == "<a><think>\nx"
    assert join_prefill("<a>", "<think>\nx") == "<a><think>\nx"
    assert join_prefill("<a>", "x") == "<ax>".replace("x>", ">x")


# ---------------------------------------------------------------- the limiter


def test_no_more_calls_are_in_flight_than_the_limit():
    with FakeServer(lambda p, b: Reply(delay=0.02)) as server:
        sample(server, n=40, limiter=Limiter(10, retry=QUICK))
    assert server.most_in_flight <= 10
    assert server.most_in_flight >= 8


def test_a_burst_of_429_cuts_the_limit_once_and_it_grows_back():
    turned_away = iter([True] * 8)

    def reply(path, body):
        return Fault(429) if next(turned_away, False) else Reply(delay=0.01)

    limiter = Limiter(8, retry=QUICK)
    with FakeServer(reply) as server:
        sample(server, n=100, limiter=limiter)
    assert limiter.rate_limited == 8
    assert len(server.calls) == 108
    assert limiter.limit == 8.0  # cut to 5.6 by the episode, grown back by good answers


def test_retry_after_is_honored():
    began = time.monotonic()
    replies = in_turn(Fault(429, headers={"Retry-After": "0.4"}), Reply("ok"))
    with FakeServer(replies) as server:
        sample(server)
    assert time.monotonic() - began >= 0.4


def test_a_dead_key_costs_a_handful_of_requests_not_one_a_row():
    async def go(url):
        limiter = Limiter(64, retry=QUICK)
        plan = ModelConfig(model="openai:m", base_url=url, prefill="none")
        async with connect(plan, limiter) as model:
            return await asyncio.gather(
                *(model.sample([user(str(i))], Sampling()) for i in range(200)),
                return_exceptions=True,
            )

    with FakeServer(lambda p, b: Fault(401)) as server:
        results = asyncio.run(go(server.url))
    assert all(isinstance(r, Auth) for r in results)
    assert len(server.calls) <= 20


def test_waits_double_and_keep_to_their_cap():
    policy = RetryPolicy(base=1, cap=5)
    for attempt, full in enumerate([1, 2, 4, 5, 5]):
        wait = policy.wait(attempt, Overloaded("x"))
        assert full / 2 <= wait <= full
    assert policy.wait(0, RateLimited("x", retry_after=7)) == 7
    assert policy.wait(0, RateLimited("x", retry_after=9999)) == policy.longest_retry_after


def test_all_errors_are_the_projects():
    assert all(issubclass(e, AdhereError) for e in (Auth, NotFound, Timeout, Garbage, BadInput))


@pytest.mark.parametrize(
    ("url", "named", "expected"),
    [
        (None, None, KEY),
        ("http://127.0.0.1:1/v1", None, KEY),
        ("https://elsewhere.example/v1", None, None),
        ("https://elsewhere.example/v1", "OPENAI_API_KEY", KEY),
    ],
)
def test_the_default_key_goes_to_no_other_host_unasked(monkeypatch, url, named, expected):
    from adhere.models.connect import _key

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert _key(ModelConfig(model="openai:m", base_url=url, api_key_env=named)) == expected
