"""The journal: nothing asked twice, nothing lost, draws shared."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from adhere.chat import Capability, Completion, Sampling, Usage, user
from adhere.errors import BadInput, Overloaded
from adhere.records import DrawStore, Journal, draw_key


class Counting:
    """A model that counts its calls; the text tells the draw."""

    identity = "test:model"
    capabilities = frozenset({Capability.CHAT})

    def __init__(self, delay: float = 0.0, fail: int = 0) -> None:
        self.delay = delay
        self.fail = fail
        self.draws: list[int] = []
        self.cancelled = 0

    async def sample(self, messages, sampling, *, n=1, first_draw=0, prefill="", on_delta=None):
        assert n == 1
        self.draws.append(first_draw)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fail > 0:
            self.fail -= 1
            raise Overloaded("down")
        return [
            Completion(f"{messages[-1].text} {first_draw} \ud800", usage=Usage(3, 1, 2, 1, 0.5))
        ]


@pytest.fixture
def store(tmp_path):
    store = DrawStore(tmp_path / "journal.sqlite")
    yield store
    store.close()


def ask(model, text="hi", sampling=None, **kw):
    return model.sample([user(text)], sampling or Sampling(temperature=1, seed=5), **kw)


def test_a_committed_draw_is_never_asked_again_also_by_another_process(tmp_path):
    model = Counting()
    path = tmp_path / "journal.sqlite"
    first = DrawStore(path)
    got = asyncio.run(ask(Journal(model, first), n=2))
    first.close()
    again = DrawStore(path)
    assert asyncio.run(ask(Journal(model, again), n=2)) == got
    assert sorted(model.draws) == [0, 1]
    assert sum(again.spent().values(), Usage()) == Usage(6, 2, 4, 2, 1.0)
    again.close()


def test_more_draws_sample_only_the_missing_ones(store):
    model = Counting()
    journal = Journal(model, store)
    asyncio.run(ask(journal, n=2))
    texts = [c.text for c in asyncio.run(ask(journal, n=4))]
    assert sorted(model.draws) == [0, 1, 2, 3]
    assert [t.split()[1] for t in texts] == ["0", "1", "2", "3"]
    assert [c.text for c in asyncio.run(ask(journal, n=2, first_draw=2))] == texts[2:]


def test_equal_requests_in_flight_are_one_call(store):
    model = Counting(delay=0.02)
    journal = Journal(model, store)

    async def both():
        return await asyncio.gather(ask(journal), ask(journal), ask(journal, n=2))

    asyncio.run(both())
    assert sorted(model.draws) == [0, 1]


def test_one_who_gives_up_does_not_take_the_call_from_the_others(store):
    model = Counting(delay=0.05)
    journal = Journal(model, store)

    async def scene():
        impatient = asyncio.create_task(ask(journal))
        patient = asyncio.create_task(ask(journal))
        await asyncio.sleep(0.01)
        impatient.cancel()
        assert (await patient)[0].text.startswith("hi 0")
        lonely = asyncio.create_task(ask(journal, "other"))
        await asyncio.sleep(0.01)
        lonely.cancel()
        await asyncio.gather(lonely, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert model.cancelled == 1  # nobody waited any more for the second one


def test_a_failed_call_is_not_recorded(store):
    model = Counting(fail=1)
    journal = Journal(model, store)
    with pytest.raises(Overloaded):
        asyncio.run(ask(journal))
    assert store.count() == 0
    asyncio.run(ask(journal))
    assert model.draws == [0, 0]


def test_the_key_covers_what_decides_a_draw_and_not_the_seed():
    def key(identity="m", text="hi", prefill="", draw=0, **sampling):
        return draw_key(identity, [user(text)], Sampling(**sampling), prefill, draw)

    base = key(temperature=1.0)
    assert key(temperature=1.0, seed=7) == base
    others = [
        key("n", temperature=1.0),
        key(text="ho", temperature=1.0),
        key(prefill="x", temperature=1.0),
        key(draw=1, temperature=1.0),
        key(temperature=0.9),
        key(temperature=1.0, stop=("a",)),
        key(temperature=1.0, extra={"tools": [1]}),
    ]
    assert len({base, *others}) == len(others) + 1


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_text("not a database" * 100)
    with pytest.raises(BadInput, match="no journal"):
        DrawStore(path)


def test_draws_survive_in_a_file_that_sqlite_can_read(tmp_path):
    path = tmp_path / "journal.sqlite"
    store = DrawStore(path)
    asyncio.run(ask(Journal(Counting(), store)))
    store.close()
    [(identity, draw)] = sqlite3.connect(path).execute("SELECT identity, draw FROM draws")
    assert (identity, draw) == ("test:model", 0)
