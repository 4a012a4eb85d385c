"""Calls at once: which errors end the others, and which let them end."""

from __future__ import annotations

import asyncio

import pytest

from adhere.errors import Auth, BadInput, Filtered, Overloaded, Stopped
from adhere.gathering import all_of


def run(*results, slots=99):
    """Calls that come to these results, so many at once; gives what came of it and who began."""
    begun, ended = [], []

    async def go():
        free = asyncio.Semaphore(slots)

        async def call(number, result):
            async with free:
                begun.append(number)
                await asyncio.sleep(0.005)
                ended.append(number)
                if isinstance(result, BaseException):
                    raise result
                return result

        return await all_of([call(*one) for one in enumerate(results)])

    try:
        return asyncio.run(go()), begun, ended
    except Exception as error:
        return error, begun, ended


def test_results_come_in_order():
    assert run(3, 1, 2)[0] == [3, 1, 2]
    assert run()[0] == []


@pytest.mark.parametrize("error", [BadInput("x"), Auth("x"), Filtered("x")])
def test_who_waits_is_not_called_after_a_permanent_error(error):
    got, begun, _ = run(1, error, *range(50), slots=2)
    assert got is error
    assert len(begun) <= 4


@pytest.mark.parametrize("error", [Overloaded("x"), Stopped("x"), ValueError("x")])
def test_the_others_end_after_an_error_that_is_this_calls_own(error):
    got, _, ended = run(1, error, *range(20), slots=2)
    assert got is error
    assert ended == list(range(22))


def test_the_first_of_several_in_order_is_raised_and_a_permanent_one_before_it():
    first, second = Overloaded("1"), Overloaded("2")
    assert run(0, first, second)[0] is first
    lasting = BadInput("3")
    assert run(first, lasting, second)[0] is lasting


def test_a_cancel_reaches_all():
    async def go():
        ended = []

        async def call():
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(1)

        calls = all_of([call() for _ in range(3)])
        task = asyncio.create_task(calls)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ended

    assert asyncio.run(go()) == [1, 1, 1]
