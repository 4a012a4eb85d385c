"""Each fault of a server ends in its error class after the right number of requests."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate

import pytest

from adhere.chat import Sampling, user
from adhere.errors import (
    Auth,
    BadInput,
    CallError,
    ContextTooLong,
    Garbage,
    NotFound,
    Overloaded,
    RateLimited,
)
from adhere.models.connect import ModelConfig, connect
from adhere.models.http import LARGEST_REPLY, Endpoint
from adhere.models.http_errors import retry_after
from adhere.models.limiter import PROVEN_AFTER, UNPROVEN_LIMIT, Limiter, RetryPolicy
from support.fake_server import FakeServer, Fault, Reply, in_turn
from support.faults import (
    ECHO,
    FAULTS,
    GOOD,
    STREAM_FAULTS,
    TIMEOUT,
    choice,
    event,
    reply_of,
    stream_of,
    usage_of,
)
from support.methods import QUICK

KEY = "sk-planted/+=0123456789"


def ask(server, *, timeout=5.0, max_tokens=None, stream=None, limiter=None, **config):
    """One draw through the real client. `stream` collects the pieces of a streamed one."""

    async def go():
        plan = ModelConfig(model="openai:m", base_url=server.url, prefill="none", **config)
        async with connect(plan, limiter or Limiter(8, retry=QUICK), timeout=timeout) as model:
            [got] = await model.sample(
                [user("hi")],
                Sampling(seed=1, max_tokens=max_tokens),
                on_delta=None if stream is None else stream.append,
            )
            return got

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "x", "code": "invalid_api_key", "type": "invalid_request_error"}, Auth),
        ({"message": "x", "code": "model_not_found", "type": "invalid_request_error"}, NotFound),
        ({"message": "x", "type": "invalid_request_error"}, BadInput),
        ({"message": "x", "code": None, "type": "invalid_request_error"}, BadInput),
        ({"message": "x", "code": "unknown_field", "type": "invalid_request_error"}, BadInput),
        (
            {"message": "maximum context length is 8", "type": "invalid_request_error"},
            ContextTooLong,
        ),
        ({"message": "x", "code": "server_error", "type": "server_error"}, Overloaded),
        ({"message": "x", "code": 429, "type": "invalid_request_error"}, RateLimited),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_error_in_a_good_reply_is_classed_by_its_code_and_type(error, expected, streamed):
    body = json.dumps({"error": error})
    fault = stream_of(f"data: {body}") if streamed else Fault(200, body)
    with FakeServer(lambda p, b: fault) as server:
        with pytest.raises(expected) as caught:
            ask(server, stream=[] if streamed else None)
        assert type(caught.value) is expected
    assert len(server.calls) == (QUICK.attempts if caught.value.retryable else 1)


def test_what_a_server_has_not_implemented_is_asked_once():
    with FakeServer(lambda p, b: Fault(501)) as server, pytest.raises(BadInput) as caught:
        ask(server)
    assert len(server.calls) == 1
    assert "HTTP 501" in caught.value.message
    assert "does not have this route" in caught.value.hint


def slow(name):
    return TIMEOUT if name in ("hang", "drip") else 5.0


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_ends_in_its_class_after_its_tries(name, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    case = FAULTS[name]
    with FakeServer(lambda p, b: case.reply) as server:
        began = time.monotonic()
        if case.error is None:
            got = ask(server, api_key_env="MY_KEY")
            assert min(got.usage.to_dict().values()) >= 0
            assert bool(got.text.strip()) == (case.outcome != "unscored")
        else:
            with pytest.raises(case.error) as caught:
                ask(server, timeout=slow(name), api_key_env="MY_KEY")
            assert type(caught.value) is case.error
            assert KEY not in str(caught.value)
            assert getattr(caught.value, "retryable", False) == case.retried
        took = time.monotonic() - began
    assert len(server.calls) == (QUICK.attempts if case.retried else 1)
    assert took < 4


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_cut_stream_is_never_a_whole_answer(name):
    case = STREAM_FAULTS[name]
    pieces: list[str] = []
    with FakeServer(lambda p, b: case.reply) as server:
        if case.error is None:
            got = ask(server, stream=pieces)
            assert (got.text, got.finish_reason) == ("so bye", "stop")
            assert "".join(pieces) == "so bye"
        else:
            with pytest.raises(case.error) as caught:
                ask(server, timeout=slow(name), stream=pieces)
            assert type(caught.value) is case.error
    assert len(server.calls) == (QUICK.attempts if case.retried else 1)


def test_a_whole_stream_holds_text_thought_finish_and_usage():
    thought = 'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}'
    usage = 'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}'
    halves = (event("\ud83d"), event("\ude00"))  # two halves of one character
    whole = stream_of(thought, *halves, event(finish="length"), usage, "data: [DONE]")
    with FakeServer(lambda p, b: whole) as server:
        got = ask(server, stream=[])
    assert (got.text, got.reasoning, got.finish_reason) == ("\U0001f600", "hm", "length")
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (4, 2)


@pytest.mark.parametrize("name", ["500", "truncated JSON", "2 choices", "reset in the body", "429"])
def test_a_fault_that_passes_is_not_seen(name):
    with FakeServer(in_turn(FAULTS[name].reply, FAULTS[name].reply, Reply("ok"))) as server:
        assert ask(server).text == "ok"
    assert len(server.calls) == 3


def test_the_total_timeout_covers_a_drip_that_never_stands_still():
    began = time.monotonic()
    drip = Fault(200, GOOD, drip=0.02, pieces=200)  # 4 s in all, never more than 20 ms of silence
    limiter = Limiter(retry=RetryPolicy(attempts=1))
    with FakeServer(lambda p, b: drip) as server, pytest.raises(CallError, match=r"within 0\.3 s"):
        ask(server, timeout=0.3, limiter=limiter)
    assert 0.3 <= time.monotonic() - began < 2


def test_a_slow_reply_within_the_timeout_is_an_answer():
    with FakeServer(lambda p, b: Fault(200, GOOD, drip=0.01, pieces=10)) as server:
        assert ask(server).text == "bye"


def test_a_reply_beyond_the_bound_is_not_read_whole():
    async def go(url):
        endpoint = Endpoint(url)
        try:
            await endpoint.post("/chat/completions", {"messages": []})
        finally:
            await endpoint.close()

    with FakeServer(lambda p, b: Fault(200, GOOD, size=2**30)) as server:
        began = time.monotonic()
        with pytest.raises(Garbage, match=f"larger than {LARGEST_REPLY}"):
            asyncio.run(go(server.url))
    assert time.monotonic() - began < 5
    almost = LARGEST_REPLY - len(GOOD)
    with FakeServer(lambda p, b: Fault(200, GOOD, size=almost)) as server:
        asyncio.run(go(server.url))


def test_a_missing_finish_reason_is_length_when_the_token_limit_was_used_up():
    silent = reply_of(choice(finish_reason=None), usage={"completion_tokens": 7})
    with FakeServer(lambda p, b: silent) as server:
        assert ask(server, max_tokens=8).finish_reason == "stop"
        assert ask(server, max_tokens=7).finish_reason == "length"
        assert ask(server, extra_body={"max_completion_tokens": 7}).finish_reason == "length"
        assert ask(server).finish_reason == "stop"


@pytest.mark.parametrize(
    ("reply", "counts"),
    [
        (usage_of(12, 3, 5), (12, 5, 3)),
        (usage_of(12.0, 3.0, 5.0), (12, 5, 3)),
        (usage_of(12, 3, 50), (12, 12, 3)),  # not more cached than there was
        (usage_of(-12, 3), (0, 0, 3)),
        (usage_of("12", [3]), (0, 0, 0)),
        (usage_of(12.5, 1e300), (0, 0, 0)),
        (usage_of(True, 10**400), (0, 0, 0)),
    ],
)
def test_token_counts_are_whole_numbers_or_nothing(reply, counts):
    with FakeServer(lambda p, b: reply) as server:
        used = ask(server).usage
    assert (used.prompt_tokens, used.cached_prompt_tokens, used.completion_tokens) == counts


def test_tool_calls_without_a_text_are_kept():
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    with FakeServer(lambda p, b: reply_of(choice(message=message))) as server:
        got = ask(server)
    assert (got.text, list(got.tool_calls)) == ("", calls)


# ---------------------------------------------------------------- Retry-After


def test_retry_after_is_read_as_seconds_and_as_a_date():
    assert retry_after("7") == 7
    assert retry_after("0.5") == 0.5
    assert retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0
    for nothing in (None, "", "soon", "Tue, 99 Nov 2999", "\u0663"[:0]):
        assert retry_after(nothing) is None
    assert retry_after("-3") == 0
    assert retry_after("nan") == 0


def test_a_date_in_retry_after_is_waited_for():
    def reply(path, body):
        if len(server.calls) == 1:
            return Fault(429, headers={"Retry-After": formatdate(time.time() + 2, usegmt=True)})
        return Reply("ok")

    began = time.monotonic()
    with FakeServer(reply) as server:
        ask(server)
    assert 0.9 <= time.monotonic() - began < 3  # dates have whole seconds


def test_retry_after_zero_does_not_spend_all_tries_at_once():
    policy = RetryPolicy(base=1, cap=5)
    assert policy.wait(0, RateLimited("x", retry_after=0.0)) >= 0.5
    assert policy.wait(0, RateLimited("x", retry_after=0.2)) == 0.2


# ---------------------------------------------------------------- the key


def test_no_spelling_of_the_key_stands_in_a_message(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FakeServer(lambda p, b: Fault(400, ECHO)) as server, pytest.raises(BadInput) as caught:
        ask(server, api_key_env="MY_KEY")
    assert server.calls[0][2]["Authorization"] == f"Bearer {KEY}"
    assert caught.value.message.endswith("refused: Bearer [key] [key] [key]")


def test_half_a_character_is_replaced_as_no_file_could_hold_it():
    with FakeServer(lambda p, b: FAULTS["half a character"].reply) as server:
        assert ask(server).text == "a \ufffd bye"


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-\x00", "sk-\u00e4"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch, key):
    with pytest.raises(BadInput) as caught:
        Endpoint("http://127.0.0.1:1/v1", key=key)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@127.0.0.1:1/v1",
        "http://me:s3cret@127.0.0.1:99999999/v1",
        "http://me:s3cret@127.0.0.1:0/v1",
        "ftp://me:s3cret@127.0.0.1/v1",
        "me:s3cret@127.0.0.1/v1",
        "http://me:s3?cret#@127.0.0.1/v1",
        "http://127.0.0.1:1/v1?key=s3cret",
        "http://127.0.0.1:0/v1#s3cret",
    ],
)
def test_a_secret_in_the_base_url_is_refused_and_stands_in_no_message(url):
    with pytest.raises(BadInput, match="--base-url") as caught:
        connect(ModelConfig(model="openai:m", base_url=url), Limiter())
    for part in ("s3cret", "s3", "cret", "me:"):
        assert part not in str(caught.value).replace("name", "")


# ---------------------------------------------------------------- the limiter


def run_limited(limiter, call, n):
    async def go():
        return await asyncio.gather(*(limiter.run(call) for _ in range(n)), return_exceptions=True)

    return asyncio.run(go())


def test_slots_are_handed_over_in_order_and_never_more_than_there_are():
    limiter = Limiter(4)
    order, flying, most = [], 0, 0

    async def go():
        async def one(number):
            async def call():
                nonlocal flying, most
                order.append(number)
                flying += 1
                most = max(most, flying)
                await asyncio.sleep(0)
                flying -= 1

            await limiter.run(call)

        await asyncio.gather(*(one(i) for i in range(200)))

    asyncio.run(go())
    assert order == list(range(200))
    assert most == 4
    assert limiter._in_flight == 0
    assert not limiter._waiting


def test_the_cost_of_a_call_does_not_grow_with_the_number_that_wait():
    def cpu(n):
        limiter = Limiter(8)

        async def call():
            await asyncio.sleep(0)

        began = time.process_time()
        run_limited(limiter, call, n)
        return (time.process_time() - began) / n

    few = min(cpu(500) for _ in range(3))
    many = min(cpu(8000) for _ in range(2))
    assert many < 4 * few  # waking all at each call made it 16 times


def test_a_waiter_that_is_cancelled_loses_no_slot():
    async def go():
        limiter = Limiter(2)
        gate = asyncio.Event()
        done = []

        async def call():
            await gate.wait()
            done.append(1)

        running = [asyncio.create_task(limiter.run(call)) for _ in range(2)]
        waiting = [asyncio.create_task(limiter.run(call)) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting[0].cancel()  # in the line
        running[0].cancel()  # in its call: its slot goes to waiting[1] ...
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting[1].cancel()  # ... which is cancelled with the slot in its hand
        gate.set()
        results = await asyncio.gather(*running, *waiting, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [
            *(True, False),
            *(True, True, False, False, False, False),
        ]
        assert len(done) == 5
        assert limiter._in_flight == 0
        await asyncio.wait_for(limiter.run(call), 1)

    asyncio.run(go())


def test_a_cancel_in_the_moment_of_handing_over_passes_the_slot_on():
    async def go():
        limiter = Limiter(1)
        free = asyncio.Event()

        async def holds():
            await free.wait()

        async def quick():
            return "made"

        first = asyncio.create_task(limiter.run(holds))
        await asyncio.sleep(0)
        second = asyncio.create_task(limiter.run(quick))
        third = asyncio.create_task(limiter.run(quick))
        await asyncio.sleep(0)
        free.set()
        while len(limiter._waiting) == 2:  # until `first` has handed its slot to `second` ...
            await asyncio.sleep(0)
        # ... which has not woken yet
        second.cancel()
        assert await asyncio.wait_for(third, 1) == "made"
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        assert limiter._in_flight == 0

    asyncio.run(go())


def test_many_random_cancels_lose_no_slot():
    import random

    async def go(seed):
        chance = random.Random(seed)
        limiter = Limiter(5, retry=QUICK)

        async def call():
            await asyncio.sleep(chance.random() / 1000)
            if chance.random() < 0.2:
                raise Overloaded("x")
            if chance.random() < 0.1:
                raise RateLimited("x", retry_after=0.001)

        tasks = [asyncio.create_task(limiter.run(call)) for _ in range(200)]
        for task in chance.sample(tasks, 100):
            await asyncio.sleep(chance.random() / 2000)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter._in_flight == 0
        assert not any(not turn.done() for turn in limiter._waiting)

    for seed in range(5):
        asyncio.run(go(seed))


def test_after_a_stop_all_who_wait_raise_at_once():
    """In the line, between two tries, and while Retry-After holds them back."""

    async def go():
        limiter = Limiter(3, retry=RetryPolicy(attempts=5, base=60, cap=60))
        asked = 0

        async def turned_away():
            nonlocal asked
            asked += 1
            raise RateLimited("later", retry_after=60)

        async def fails():
            raise Overloaded("x")

        async def waits():
            await asyncio.sleep(60)

        tasks = [asyncio.create_task(limiter.run(call)) for call in (fails, turned_away)]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(limiter.run(waits)) for _ in range(500)]
        await asyncio.sleep(0.01)
        began = time.monotonic()
        limiter.stop(Auth("dead"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - began < 1
        assert all(type(r) is Auth for r in results)
        assert asked == 1
        assert limiter._in_flight == 0
        with pytest.raises(Auth):
            await limiter.run(waits)

    asyncio.run(go())


def test_a_raise_of_one_error_by_many_keeps_no_chain_of_traces():
    limiter = Limiter(2)
    limiter.stop(Auth("dead"))

    async def call():
        raise AssertionError("nothing may be called")

    results = run_limited(limiter, call, 1000)
    trace, depth = results[-1].__traceback__, 0
    while trace is not None:
        trace, depth = trace.tb_next, depth + 1
    assert depth < 20


def test_few_calls_are_in_flight_until_the_key_has_proved_itself():
    with FakeServer(lambda p, b: Reply(delay=0.02)) as server:
        seen = []

        async def go():
            plan = ModelConfig(model="openai:m", base_url=server.url, prefill="none")
            async with connect(plan, Limiter(64, retry=QUICK)) as model:

                async def one(number):
                    await model.sample([user(str(number))], Sampling())
                    seen.append(server.most_in_flight)

                await asyncio.gather(*(one(i) for i in range(300)))

        asyncio.run(go())
    assert max(seen[: PROVEN_AFTER - 1]) <= UNPROVEN_LIMIT
    assert 50 <= max(seen) <= 64


@pytest.mark.parametrize(("good", "most"), [(0, 20), (1, 20), (7, 20), (200, 64)])
def test_a_dead_key_costs_at_most_20_requests_and_a_dying_one_what_is_in_flight(good, most):
    def reply(path, body):
        return Reply(delay=0.005) if len(server.calls) <= good else Fault(401)

    async def go(url):
        plan = ModelConfig(model="openai:m", base_url=url, prefill="none")
        async with connect(plan, Limiter(64, retry=QUICK)) as model:
            return await asyncio.gather(
                *(model.sample([user(str(i))], Sampling()) for i in range(500)),
                return_exceptions=True,
            )

    with FakeServer(reply) as server:
        results = asyncio.run(go(server.url))
    assert sum(not isinstance(r, Auth) for r in results) == good
    assert len(server.calls) - good <= most


def test_a_storm_of_429_cuts_the_limit_once_an_episode():
    """Two storms of 50 ms each turn away all that comes: two cuts, then the limit grows back."""
    storms, over, refused = [200, 500], [0.0], []

    def reply(path, body):
        now = time.monotonic()
        if storms and len(server.calls) >= storms[0]:
            storms.pop(0)
            over[0] = now + 0.05
        if now < over[0]:
            refused.append(now)
            return Fault(429, headers={"Retry-After": "0.1"})
        return Reply(delay=0.005)

    limiter = Limiter(16, retry=RetryPolicy(attempts=5, base=0.01))

    async def go(url):
        plan = ModelConfig(model="openai:m", base_url=url, prefill="none")
        async with connect(plan, limiter) as model:
            return await asyncio.gather(
                *(model.sample([user(str(i))], Sampling()) for i in range(900))
            )

    with FakeServer(reply) as server:
        got = asyncio.run(go(server.url))
    assert len(got) == 900
    assert len(refused) > limiter.cuts, "several were turned away in one episode"
    assert limiter.rate_limited == limiter.retried == len(refused)
    assert len(server.calls) == 900 + len(refused)
    assert limiter.cuts == 2
    assert limiter.limit == 16
