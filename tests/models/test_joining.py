"""Texts that take the places of others in a batch that is under way: the same texts, in less time."""

from __future__ import annotations

import asyncio

import pytest

from adhere.chat import Sampling, user
from support.tiny_lm import make
from support.tuned_lm import opened

# Prompts and texts of many lengths, so that rows end, join and are padded at every turn.
ASKED = [("Why? " * (1 + number * 7 % 5), 3 + number * 11 % 29) for number in range(24)]
SLOTS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return make(tmp_path_factory.mktemp("model"))


def watched(monkeypatch):
    """(rows, width) of every pass behind the prompts."""
    from adhere.models.open_weights import sampling

    seen = []
    inner = sampling.forward

    def forward(net, ids, cache, **more):
        logits = inner(net, ids, cache, **more)
        seen.append((len(ids), cache.get_seq_length()))
        return logits

    monkeypatch.setattr(sampling, "forward", forward)
    return seen


async def written(model, asked=ASKED):
    async def one(number, prompt, most):
        how = Sampling(temperature=1.0, max_tokens=most, seed=number)
        [got] = await model.sample([user(prompt)], how)
        return got.token_ids, got.finish_reason

    return await asyncio.gather(*(one(i, *each) for i, each in enumerate(asked)))


def test_texts_are_those_that_are_written_alone(folder, monkeypatch):
    alone = opened(written, folder, slots=1)
    seen = watched(monkeypatch)
    together = opened(written, folder, slots=SLOTS)
    assert together == alone
    tokens = sum(len(ids) for ids, _ in alone)
    # The first token of a text comes of its prompt. Places are hardly ever empty, but at the end.
    assert sum(rows for rows, _ in seen) == tokens - len(ASKED)
    assert max(rows for rows, _ in seen) == SLOTS
    longest = max(len(ids) for ids, _ in alone)
    assert len(seen) <= (tokens - len(ASKED)) / SLOTS + longest


def test_a_batch_is_as_wide_as_its_longest_row(folder, monkeypatch):
    async def lengths(model):
        found = await written(model)
        prompts = [len(model.prompt_ids([user(prompt)])) for prompt, _ in ASKED]
        return [a + len(ids) for a, (ids, _) in zip(prompts, found, strict=True)]

    seen = watched(monkeypatch)
    whole = opened(lengths, folder, slots=SLOTS)
    assert max(width for _, width in seen) <= max(whole)
    # What joined and left has passed by three times over.
    assert len(seen) > 2 * max(most for _, most in ASKED)


def test_work_of_another_kind_waits_for_so_many_texts_and_no_more(folder):
    done = []

    async def work(model):
        async def draw(number):
            await model.sample(
                [user("Why?")], Sampling(temperature=1.0, max_tokens=20, seed=number)
            )
            done.append("draw")

        async def score():
            await model.logprobs([user("Why?")], ["yes"])
            done.append("score")

        many = [asyncio.create_task(draw(number)) for number in range(4)]
        await asyncio.sleep(0)
        many.append(asyncio.create_task(score()))
        many += [asyncio.create_task(draw(number)) for number in range(4, 60)]
        await asyncio.gather(*many)

    opened(work, folder, slots=4)
    # Those that were there, those that may join all the same, and the last of them.
    assert 0 < done.index("score") <= 4 + 4 + 4


def test_texts_behind_sliding_windows_do_not_join(tmp_path, monkeypatch):
    folder = make(tmp_path, sliding=True)
    alone = opened(written, folder, slots=1)
    assert opened(written, folder, slots=SLOTS) == alone


def test_what_is_given_up_leaves_its_place_to_others(folder, monkeypatch):
    seen = watched(monkeypatch)

    async def work(model):
        async def draw(number, most):
            how = Sampling(temperature=1.0, max_tokens=most, seed=number)
            [got] = await model.sample([user("Why?")], how)
            return got.token_ids

        long = [asyncio.create_task(draw(i, 300)) for i in range(2)]
        short = [asyncio.create_task(draw(i, 9)) for i in range(10, 22)]
        while not any(one.done() for one in short):
            await asyncio.sleep(0.001)
        for one in long:
            one.cancel()
        return await asyncio.gather(*short), await asyncio.gather(*long, return_exceptions=True)

    short, long = opened(work, folder, slots=4)
    assert all(isinstance(one, asyncio.CancelledError | tuple) for one in long)
    assert len(short) == 12
    assert max(rows for rows, _ in seen) <= 4
