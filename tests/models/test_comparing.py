"""Distributions of a model beside those of a base: as two plain models and whole logits give them."""

from __future__ import annotations

import asyncio
import gc
import json
import math
from importlib.util import find_spec

import pytest

from adhere.chat import Capability
from adhere.errors import BadInput, ContextTooLong, Garbage
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter, RetryPolicy
from adhere.records import DrawStore, Journal
from adhere.scorers import Comparable, Compared, check_same_states, check_same_tokens
from support.fake_server import FakeServer
from support.tiny_lm import CONTEXT, make, save_tokenizer
from support.tuned_lm import TALK, opened, plain_pass, tune, two_models

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("torch", "transformers", "peft")),
    reason="needs torch, transformers and peft (pip install 'adhere[train]')",
)

LAYERS = 3
TEXTS = [
    "yes", "No, it is not cold at all, said the man.", "a", "the ice is cold", "no",
    "Cold things are cold; warm ones warm. " * 3, "the ice is cold",
]  # fmt: skip
ALONE = ("nll", "self_certainty", "gini")
BESIDE = ("kl", "reverse_kl", "log_ratio")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A lease and a memory of hashes of the test's own."""
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("lm") / "base", layers=LAYERS)
    gc.freeze()
    yield made
    gc.unfreeze()


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return tune(base, tmp_path_factory.mktemp("lora") / "adapter", spread=0.1)


def naively(student, base, prompt, answer):
    """By whole logits in float64, one answer at a time."""
    import torch

    log_p = torch.log_softmax(plain_pass(student, prompt, answer)[1], -1)
    log_q = torch.log_softmax(plain_pass(base, prompt, answer)[1], -1)
    p, q = log_p.exp(), log_q.exp()
    rows, tokens = torch.arange(len(answer)), torch.tensor(answer)
    vocabulary = log_p.shape[1]
    return Compared(
        tokens=len(answer),
        nll=float(-log_p[rows, tokens].mean()),
        self_certainty=float(-(log_p + math.log(vocabulary)).mean()),
        gini=float((1 - (p**2).sum(-1)).mean()),
        kl=float((p * (log_p - log_q)).sum(-1).mean()),
        reverse_kl=float((q * (log_q - log_p)).sum(-1).mean()),
        log_ratio=float((log_p - log_q)[rows, tokens].mean()),
    )


def near(left, right, within=2e-5):
    numbers = [(vars(one)[name], vars(other)[name]) for one, other in zip(left, right, strict=True)
               for name in (*ALONE, *BESIDE)]  # fmt: skip
    return all(one == pytest.approx(other, abs=within) for one, other in numbers)


async def with_own_base(model, texts=TEXTS):
    prompt, answers = model.prompt_ids(TALK), [model.answer_ids(text) for text in texts]
    return prompt, answers, await model.compared(prompt, answers, model.without_adapter())


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("sliding", [False, True], ids=["llama", "sliding"])
def test_all_numbers_are_those_of_two_plain_models_and_whole_logits(tmp_path, sliding):
    base = make(tmp_path / "base", layers=LAYERS, sliding=sliding)
    adapter = tune(base, tmp_path / "adapter", spread=0.1)
    prompt, answers, found = opened(with_own_base, adapter, slots=4)
    plain = two_models(base, adapter)
    expected = [naively(*plain, prompt, answer) for answer in answers]
    assert near(found, expected)
    assert [one.tokens for one in found] == [len(answer) for answer in answers]
    # They are of some size and differ between candidates, or nothing would have been seen.
    for name in (*ALONE, *BESIDE):
        values = [vars(one)[name] for one in expected]
        assert max(values) - min(values) > 2e-3, name
        assert max(map(abs, values)) > 1e-2, name


def test_in_pieces_and_some_tokens_at_a_time(adapter, monkeypatch):
    from adhere.models.open_weights import comparing, forward, rows

    _, _, whole = opened(with_own_base, adapter)
    monkeypatch.setattr(forward, "BLOCK", 5)
    monkeypatch.setattr(rows, "MOST_TOKENS", 48)
    monkeypatch.setattr(comparing, "_MOST_LOGITS", 1)
    monkeypatch.setattr(comparing, "_FEWEST", 5)
    most = []
    inner = comparing.logits_of
    monkeypatch.setattr(
        comparing, "logits_of", lambda net, hidden: most.append(len(hidden)) or inner(net, hidden)
    )
    _, answers, pieces = opened(with_own_base, adapter)
    assert near(pieces, whole)
    assert max(most) == 5
    # Each real token but the first ones, by each side once: no padding reaches the head.
    assert sum(most) == 2 * sum(len(answer) - 1 for answer in answers)


@pytest.mark.parametrize("cut", [2048, 48], ids=["whole", "in pieces"])
def test_states_come_along_out_of_the_same_passes(adapter, monkeypatch, cut):
    from adhere.models.open_weights import rows
    from adhere.scorers import StatesAt

    async def work(model):
        off = model.without_adapter()
        prompt, answers = model.prompt_ids(TALK), [model.answer_ids(text) for text in TEXTS]
        answers.append(answers[0][:1])  # its one token is predicted, and read for its state alone
        lengths = [max(1, len(ids) - at % 3) for at, ids in enumerate(answers)]
        layers = (LAYERS, 0, 2, 2)
        short = [ids[:n] for ids, n in zip(answers, lengths, strict=True)]
        apart = [await one.last_states(prompt, short, layers) for one in (model, off)]
        alone = await model.compared(prompt, answers, off)
        monkeypatch.setattr(rows, "MOST_TOKENS", cut)
        at = StatesAt(layers, tuple(lengths))
        beside = await model.compared(prompt, answers, off, at)
        [single] = await model.compared(prompt, answers[-1:], off, StatesAt(layers, (1,)))
        return apart, alone, beside, single

    def alike(states, expected):
        return abs(states - expected).max() < 2e-6 * abs(expected).max()

    (own, beneath), alone, beside, single = opened(work, adapter)
    assert near(beside, alone)
    for at, one in enumerate(beside):
        assert alike(one.states, own[at])
        assert alike(one.base_states, beneath[at])
        assert not alike(one.states, one.base_states)
    assert alike(single.states, own[-1])
    assert near([single], alone[-1:])
    assert alone[0].states is None


@pytest.mark.parametrize("lengths", [(0,), (99,), (1, 1)])
def test_states_at_a_token_that_is_not_there_are_refused(adapter, lengths):
    from adhere.scorers import StatesAt

    async def work(model):
        at = StatesAt((1,), lengths)
        await model.compared(model.prompt_ids(TALK), [(5, 6)], model.without_adapter(), at)

    with pytest.raises(BadInput, match="1 to 2"):
        opened(work, adapter)


def test_a_base_in_memory_of_its_own_gives_the_same_numbers(base, adapter):
    async def work(student, other):
        prompt, answers = student.prompt_ids(TALK), [student.answer_ids(text) for text in TEXTS]
        assert student.engine is not other.engine
        own = student.without_adapter()
        return (
            await student.compared(prompt, answers, own),
            await student.compared(prompt, answers, other),
            await other.compared(prompt, answers, student),
        )

    own, apart, turned = opened(work, adapter, base)
    assert own == apart
    for one, back in zip(own, turned, strict=True):
        assert back.kl == pytest.approx(one.reverse_kl, abs=1e-5)
        assert back.reverse_kl == pytest.approx(one.kl, abs=1e-5)
        assert back.log_ratio == pytest.approx(-one.log_ratio, abs=1e-5)


def test_without_a_base_and_beside_itself(base):
    async def work(model):
        prompt, answers = model.prompt_ids(TALK), [model.answer_ids(text) for text in TEXTS]
        return (
            await model.compared(prompt, answers),
            await model.compared(prompt, answers, model.without_adapter()),
            await model.logprobs(TALK, TEXTS),
        )

    alone, itself, logprobs = opened(work, base)
    for one, same, scored in zip(alone, itself, logprobs, strict=True):
        assert all(vars(one)[name] is None for name in BESIDE)
        assert all(vars(same)[name] == 0 for name in BESIDE)
        assert all(vars(same)[name] == vars(one)[name] for name in ALONE)
        assert one.nll == pytest.approx(-scored.mean, abs=1e-5)
        assert one.perplexity == pytest.approx(math.exp(-scored.mean), rel=1e-4)


def test_an_adapter_that_trains_the_head_too(base, tmp_path):
    for name, settings in {
        "updated": {"target_modules": ["q_proj", "lm_head"]},
        "whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    }.items():
        adapter = tune(base, tmp_path / name, spread=0.1, **settings)
        prompt, answers, found = opened(with_own_base, adapter)
        plain = two_models(base, adapter)
        assert near(found, [naively(*plain, prompt, answer) for answer in answers])


def test_padding_is_never_read(adapter):
    async def work(model):
        import torch

        *_, before = await with_own_base(model)
        with torch.no_grad():
            model.engine.net.model.model.embed_tokens.weight[0] = 1e3
        *_, after = await with_own_base(model)
        return before, after

    before, after = opened(work, adapter)
    assert before == after


def test_perplexity_of_what_is_all_but_impossible():
    assert Compared(1, 1e4, 0.0, 0.0).perplexity == math.inf
    assert Compared(1, 0.0, 0.0, 0.0).perplexity == 1


@pytest.mark.parametrize("kind", ["Gemma2", "Cohere", "Granite", "Mixtral", "GPT2"])
def test_models_that_scale_or_cap_their_logits(tmp_path, kind):
    """The logits of given states are those of the model's own pass, whatever it does to them."""
    import torch
    import transformers

    from adhere.models.open_weights.loading import load
    from adhere.models.open_weights.logits import logits_of

    size = save_tokenizer(tmp_path)
    common = {
        "vocab_size": size, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.4,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    own = {
        "Gemma2": {"final_logit_softcapping": 2.0, "head_dim": 8},
        "Cohere": {"logit_scale": 0.25},
        "Granite": {"logits_scaling": 3.0},
        "Mixtral": {"num_local_experts": 2, "output_router_logits": False},
        "GPT2": {},
    }[kind]
    config = getattr(transformers, f"{kind}Config")(**common, **own)
    torch.manual_seed(0)
    model_class = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    getattr(transformers, model_class)(config).save_pretrained(tmp_path)
    net = load("tiny", tmp_path, "float32")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        whole = net.model(ids).logits[0]
        states = net.model.get_decoder()(input_ids=ids).last_hidden_state[0]
        assert torch.equal(logits_of(net, states), whole)
        plain = states @ net.model.get_output_embeddings().weight.T
        assert torch.allclose(plain, whole) == (kind in ("GPT2", "Mixtral"))
        assert torch.equal(net.model(ids).logits[0], whole)  # nothing was left behind


# ---------------------------------------------------------------- who can be compared


def test_other_tokens_are_refused_and_both_are_named(base, adapter, tmp_path):
    merged = make(tmp_path / "merged", layers=LAYERS)
    file = merged / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["merges"] = []
    file.write_text(json.dumps(told))
    # What turns tokens into text, or is put around them, makes no difference.
    same = make(tmp_path / "same", layers=LAYERS, template="{{ messages[0].content }}")
    file = same / "tokenizer.json"
    told = json.loads(file.read_text())
    told["decoder"] = None
    told["truncation"] = {
        "direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    file.write_text(json.dumps(told))

    async def work(student, alone, other, alike):
        check_same_tokens(student, alone)
        check_same_tokens(student, alike)
        check_same_tokens(student, student.without_adapter())
        with pytest.raises(BadInput, match="two tokenizers") as caught:
            check_same_tokens(student, other)
        return str(caught.value), student.identity, other.identity

    said, *identities = opened(work, adapter, base, merged, same)
    assert all(identity in said for identity in identities)


def test_models_of_other_shapes_are_refused(base, adapter, tmp_path):
    deeper = make(tmp_path / "deeper", layers=LAYERS + 1)

    async def work(student, other):
        check_same_states(student, student.without_adapter())
        assert student.states_shape() == (LAYERS, 16)
        with pytest.raises(BadInput, match=r"3 layers of 16 numbers and .* 4 of 16"):
            check_same_states(student, other)
        # Their distributions can be compared all the same.
        return await student.compared(student.prompt_ids(TALK), [(5, 6)], other)

    assert opened(work, adapter, deeper)[0].kl > 0


def test_logits_of_more_tokens_are_refused(adapter, tmp_path):
    from transformers import LlamaForCausalLM

    wider = make(tmp_path / "wider", layers=LAYERS)
    model = LlamaForCausalLM.from_pretrained(wider)
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 8)
    model.save_pretrained(wider)

    async def work(student, other):
        check_same_tokens(student, other)
        await student.compared(student.prompt_ids(TALK), [(5, 6)], other)

    with pytest.raises(BadInput, match=f"logits of {size} tokens, and its base .* {size + 8}"):
        opened(work, adapter, wider)


def test_what_is_refused(adapter):
    async def work(model):
        prompt = model.prompt_ids(TALK)
        with pytest.raises(BadInput, match="prompt without tokens"):
            await model.compared((), [(5,)])
        with pytest.raises(BadInput, match="no tokens in answer 1"):
            await model.compared(prompt, [(), (5,)])
        with pytest.raises(BadInput, match="found no answers"):
            await model.compared(prompt, [])
        with pytest.raises(BadInput, match="found token -1; expected 0 to"):
            await model.compared(prompt, [(-1,)])
        with pytest.raises(ContextTooLong, match=f"takes {CONTEXT}"):
            await model.compared(prompt, [(5,), (5,) * CONTEXT])
        room = CONTEXT - len(prompt)
        return await model.compared(prompt, [(5,) * room], model.without_adapter())

    assert opened(work, adapter)[0].tokens > 300


def test_numbers_that_are_not_finite_are_garbage(base):
    async def work(model):
        import torch

        with torch.no_grad():
            model.engine.net.model.lm_head.weight[7] = float("inf")
        with pytest.raises(Garbage, match="not finite"):
            await model.compared(model.prompt_ids(TALK), [(5, 6)])

    opened(work, base)


def test_who_gives_up_leaves_nothing_running(adapter):
    async def work(model):
        prompt, off = model.prompt_ids(TALK), model.without_adapter()
        before = await model.compared(prompt, [(5, 6, 7)], off)
        waiting = asyncio.create_task(model.compared(prompt, [(5,) * 99] * 9, off))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # The adapter is on again.
        assert await model.compared(prompt, [(5, 6, 7)], off) == before
        assert before[0].kl > 0

    opened(work, adapter)


@pytest.mark.parametrize(
    ("settings", "touches"),
    [
        ({}, False),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"]}, True),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, False),
    ],
    ids=["layers", "head", "embeddings", "some tokens", "norm"],
)
def test_an_adapter_that_touches_the_embeddings_is_known(base, tmp_path, settings, touches):
    adapter = tune(base, tmp_path / "adapter", **settings)

    async def work(model):
        prompt, off = model.prompt_ids(TALK), model.without_adapter()
        states = [await m.last_states(prompt, [(5, 6)], (0,)) for m in (model, off)]
        assert model.has_adapter()
        assert not off.has_adapter()
        assert not off.touches_embeddings()
        return model.touches_embeddings(), bool((states[0] != states[1]).any())

    assert opened(work, adapter) == (touches, touches)


def test_tokens_as_texts_without_special_ones(base):
    async def work(model):
        ids = [*model.answer_ids("yes no"), 1, *model.answer_ids("\n")]
        return model.token_texts(ids)

    texts = opened(work, base)
    assert "".join(texts) == "yes no\n"
    assert "" in texts


# ---------------------------------------------------------------- behind journals


def test_journals_compare_and_keep_nothing(base, adapter, tmp_path):
    async def work(student, other):
        store = DrawStore(tmp_path / "journal.sqlite")
        one, two = Journal(student, store), Journal(other, store)
        assert isinstance(one, Comparable)
        assert isinstance(student, Comparable)
        prompt, answers = one.prompt_ids(TALK), [one.answer_ids(text) for text in TEXTS]
        own = one.without_adapter()
        assert own.identity == student.without_adapter().identity == other.identity
        check_same_tokens(one, two)
        check_same_states(one, two)
        assert one.has_adapter()
        assert not two.has_adapter()
        assert not one.touches_embeddings()
        assert one.token_texts(answers[0]) == student.token_texts(answers[0])
        found = [await one.compared(prompt, answers, of) for of in (own, two, other)]
        assert found == [await student.compared(prompt, answers, other)] * 3
        states = await own.last_states(prompt, answers, (2,))
        assert (states == await other.last_states(prompt, answers, (2,))).all()
        assert store.count() == 0
        store.close()

    opened(work, adapter, base)


def test_servers_are_compared_with_nothing(base):
    async def go(server):
        plan = ModelConfig(model="openai:m", base_url=server.url)
        async with connect(plan, Limiter(retry=RetryPolicy(attempts=1))) as remote:
            store = DrawStore(":memory:")
            journal = Journal(remote, store)
            assert Capability.STATES not in journal.capabilities
            assert not journal.has_adapter()
            for ask in (journal.tokens_digest, journal.without_adapter, journal.states_shape):
                with pytest.raises(BadInput, match="does not show its hidden states"):
                    ask()
            with pytest.raises(BadInput, match="does not show its hidden states"):
                await journal.last_states((1,), [(2,)], (0,))
            plan = ModelConfig(model=f"weights:{base}", dtype="float32")
            async with connect(plan, Limiter(retry=RetryPolicy(attempts=1))) as local:
                with pytest.raises(BadInput, match="expected open weights in this process"):
                    await local.compared((5,), [(5,)], remote)
                with pytest.raises(BadInput, match="does not show its hidden states"):
                    await Journal(local, store).compared((5,), [(5,)], journal)
            store.close()

    with FakeServer() as server:
        asyncio.run(go(server))
