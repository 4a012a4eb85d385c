"""The scores of attribution against a plain two-model reference, and how one is chosen."""

from __future__ import annotations

import asyncio
import gc
import math
import random
from importlib.util import find_spec

import pytest

from adhere.errors import BadInput
from adhere.methods.attribution.distributions import (
    Distributions,
    DistributionScore,
    Likelihoods,
    check_tokens,
)
from adhere.methods.attribution.latent import (
    LatentSimilarity,
    content_length,
    cosines,
    layer_index,
)
from adhere.methods.attribution.scores import SCORES, FirstScore, RandomScore, select
from adhere.scorers import TokenLogprobs
from support.tiny_lm import make
from support.tuned_lm import TALK, opened, plain_pass, tune, two_models

needs_peft = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("torch", "transformers", "peft")),
    reason="needs torch, transformers and peft (pip install 'adhere[train]')",
)

# Ragged on purpose: the longest is last, so that a state read at the end of a padded row is wrong.
TEXTS = ["yes", "No, it is not.", "no no", " the long way round, with many words in it, ab ab ab."]
LAYERS = 4
CLOSE = 1e-6


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
    return tune(base, tmp_path_factory.mktemp("lora") / "student")


def answers_of(model):
    return model.prompt_ids(TALK), [model.answer_ids(text) for text in TEXTS]


def plain_cosine(one, other):
    import torch

    return torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=-1)


# ---------------------------------------------------------------- latent similarity


@needs_peft
def test_every_layer_is_that_of_two_plain_models_one_answer_at_a_time(base, adapter):
    async def work(student):
        prompt, answers = answers_of(student)
        scorer = LatentSimilarity(student, student.without_adapter(), layer=2)
        return (
            prompt,
            answers,
            await scorer.by_layer(prompt, answers),
            await scorer.score(prompt, answers),
        )

    prompt, answers, by_layer, scores = opened(work, adapter)
    tuned, plain = two_models(base, adapter)
    assert len({len(answer) for answer in answers}) == len(answers)
    assert [len(row) for row in by_layer] == [len(TEXTS)] * (LAYERS + 1)
    for place, answer in enumerate(answers):
        expected = plain_cosine(
            plain_pass(tuned, prompt, answer)[0], plain_pass(plain, prompt, answer)[0]
        )
        found = [row[place] for row in by_layer]
        assert found == pytest.approx(expected.tolist(), abs=CLOSE)
    assert scores == by_layer[2]
    assert by_layer[0] == [1.0] * len(TEXTS)  # embeddings are the same, and tie
    assert max(by_layer[2]) < 1 - 1e-3  # and behind them nothing is, or this test says nothing


@needs_peft
def test_adapter_off_is_a_separate_base(base, adapter):
    async def own(student):
        prompt, answers = answers_of(student)
        return await LatentSimilarity(student, student.without_adapter(), 0.5).by_layer(
            prompt, answers
        )

    async def two(student, other):
        prompt, answers = answers_of(student)
        return await LatentSimilarity(student, other, 0.5).by_layer(prompt, answers)

    one, other = opened(own, adapter), opened(two, adapter, base)
    for left, right in zip(one, other, strict=True):
        assert left == pytest.approx(right, abs=1e-7)


@needs_peft
def test_last_content_goes_back_over_blanks_and_the_end_of_the_turn(adapter):
    async def work(student):
        prompt = student.prompt_ids(TALK)
        bare = list(student.answer_ids("yes, no"))
        end = student.tokens._tokenizer.convert_tokens_to_ids("<|end|>")
        padded = [*bare, *student.answer_ids("  \n"), end]
        assert student.token_texts(padded)[-1] == ""
        out = {}
        for pool in ("last_content", "last", "mean"):
            scorer = LatentSimilarity(student, student.without_adapter(), 2, pool)
            [out[pool, "bare"]] = await scorer.score(prompt, [bare])
            [out[pool, "padded"]] = await scorer.score(prompt, [padded])
        return out

    found = opened(work, adapter)
    assert found["last_content", "padded"] == pytest.approx(found["last_content", "bare"])
    assert found["last", "padded"] != pytest.approx(found["last", "bare"], abs=1e-4)
    assert found["mean", "padded"] == pytest.approx(found["mean", "bare"])
    assert found["mean", "bare"] != pytest.approx(found["last", "bare"], abs=1e-4)


@needs_peft
def test_the_mean_pool_is_the_cosine_of_mean_states(adapter):
    async def work(student):
        prompt, answers = answers_of(student)
        off = student.without_adapter()
        found = await LatentSimilarity(student, off, 3, "mean").score(prompt, answers)
        states = [
            [(await model.states(prompt, ids, [3]))[0].mean(0) for ids in answers]
            for model in (student, off)
        ]
        return found, [float(cosines(one, other)) for one, other in zip(*states, strict=True)]

    found, expected = opened(work, adapter)
    assert found == pytest.approx(expected, abs=CLOSE)


@needs_peft
def test_equal_answers_are_looked_at_once_and_tie(adapter):
    asked = []

    async def work(student):
        off = student.without_adapter()
        last_states, compared = student.last_states, student.compared

        async def states(prompt, answers, layers):
            asked.append([*answers])
            return await last_states(prompt, answers, layers)

        async def beside(prompt, answers, base, at=None):
            asked.append([*answers])
            return await compared(prompt, answers, base, at)

        student.last_states, student.compared = states, beside
        prompt, (a, b, c, d) = answers_of(student)
        blank = (*a, *student.answer_ids(" "))  # the same up to its last content
        answers = [a, d, b, list(a), c, d, blank]
        latent = await LatentSimilarity(student, off, 2).score(prompt, answers)
        kl = await DistributionScore("kl", Distributions(student, off)).score(prompt, answers[:6])
        passes = Distributions(student, off)
        [once] = await LatentSimilarity(student, off, 2).by_layer(prompt, answers, [2], passes)
        of_once = await DistributionScore("kl", passes).score(prompt, answers)
        return latent, kl, once, of_once

    latent, kl, once, of_once = opened(work, adapter)
    # One pass serves both; it reads the blank too, of which kl is another number.
    assert [len(answers) for answers in asked] == [4, 4, 5]
    assert once == pytest.approx(latent, abs=1e-6)
    assert of_once[:6] == pytest.approx(kl, abs=1e-6)
    assert of_once[6] != of_once[0]
    assert once[0] == once[3] == once[6]
    assert latent[0] == latent[3] == latent[6]
    for found in (latent, kl):
        assert (found[0], found[1]) == (found[3], found[5])
        assert len(set(found)) == 4


@needs_peft
def test_no_answers_have_no_scores_and_an_empty_one_is_refused(adapter):
    async def work(student):
        scorer = LatentSimilarity(student, student.without_adapter(), 2)
        prompt = student.prompt_ids(TALK)
        assert await scorer.score(prompt, []) == []
        for pool in ("last_content", "mean"):
            with pytest.raises(BadInput):
                await LatentSimilarity(student, student.without_adapter(), 2, pool).score(
                    prompt, [[]]
                )

    opened(work, adapter)


@pytest.mark.parametrize(
    ("layer", "depth", "expected"),
    [
        (None, 30, 12), (None, 12, 12), (None, 11, 6), (None, 1, 1), (7, 30, 7), (30, 30, 30),
        (0.5, 30, 15), (0.4, 30, 12), (1.0, 30, 30), (0.001, 30, 1), (1, 30, 1),
    ],
)  # fmt: skip
def test_layers_by_number_by_share_and_by_default(layer, depth, expected):
    assert layer_index(layer, depth) == expected


@pytest.mark.parametrize("layer", [0, 31, -1, 0.0, 1.5, -0.5])
def test_a_layer_out_of_range_says_what_there_is(layer):
    with pytest.raises(BadInput, match="1 to 30"):
        layer_index(layer, 30)


def test_content_ends_before_special_tokens_and_blanks():
    texts = ["Yes", " it", " is", "\n", "", " ", ""]
    assert content_length(texts, blanks=True) == 3
    assert content_length(texts, blanks=False) == 6
    assert content_length(["Yes", "", ""], blanks=False) == 1
    assert content_length(["", " "], blanks=True) == 0


def test_a_state_without_length_is_like_nothing():
    pytest.importorskip("numpy")
    found = cosines([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    assert found.tolist() == pytest.approx([0, 1, -1])


def test_equal_states_are_alike_to_the_last_bit():
    numpy = pytest.importorskip("numpy")
    states = numpy.random.default_rng(0).normal(size=(2000, 57)).astype("float32")
    for one in (states, states * 1e-30, states * 1e30):
        assert (cosines(one, one) == 1.0).all()
        assert (cosines(one, -one) == -1.0).all()
    assert (cosines(states[:-1], states[1:]) < 0.9).all()


# ---------------------------------------------------------------- distributions


def plain_distributions(tuned, plain, prompt, answer):
    """All scores by whole log-softmaxes in float64, a formula a line."""
    import torch

    p = torch.log_softmax(plain_pass(tuned, prompt, answer)[1], -1)
    q = torch.log_softmax(plain_pass(plain, prompt, answer)[1], -1)
    at = torch.arange(len(answer)), torch.tensor(answer)
    nll = -p[at].mean()
    return {
        "kl": (p.exp() * (p - q)).sum(-1).mean().item(),
        "reverse_kl": (q.exp() * (q - p)).sum(-1).mean().item(),
        "log_ratio": (p[at] - q[at]).mean().item(),
        "perplexity": nll.exp().item(),
        "self_certainty": -(math.log(p.shape[-1]) + p).mean().item(),
        "gini": (1 - p.exp().pow(2).sum(-1)).mean().item(),
    }


@needs_peft
def test_distribution_scores_are_those_of_whole_logits(base, adapter):
    names = ["kl", "reverse_kl", "log_ratio", "perplexity", "self_certainty", "gini"]

    async def work(student):
        prompt, answers = answers_of(student)
        both = Distributions(student, student.without_adapter())
        made = {name: await DistributionScore(name, both).score(prompt, answers) for name in names}
        return prompt, answers, made

    prompt, answers, made = opened(work, adapter)
    tuned, plain = two_models(base, adapter)
    for place, answer in enumerate(answers):
        expected = plain_distributions(tuned, plain, prompt, answer)
        for name in names:
            assert made[name][place] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


@needs_peft
def test_one_pass_serves_all_scores_and_a_missing_base_is_told(adapter):
    calls = []

    async def work(student):
        compared = student.compared

        async def counted(*given):
            calls.append(given)
            return await compared(*given)

        student.compared = counted
        prompt, answers = answers_of(student)
        alone = Distributions(student, None)
        for name in ("perplexity", "gini", "self_certainty"):
            assert len(await DistributionScore(name, alone).score(prompt, answers)) == len(TEXTS)
        with pytest.raises(BadInput, match="kl: compares with a base"):
            await DistributionScore("kl", alone).score(prompt, answers)
        assert await DistributionScore("gini", alone).score(prompt, []) == []

    opened(work, adapter)
    assert len(calls) == 1


def of_texts(table):
    async def ask(texts):
        return [TokenLogprobs(tuple("t" * len(table[t])), tuple(table[t])) for t in texts]

    return ask


def test_servers_give_the_log_ratio_and_the_perplexity_per_token():
    mine = of_texts({"a": [-1.0, -3.0], "b": [-0.5]})
    theirs = of_texts({"a": [-2.0, -5.0], "b": [-0.25]})
    likely = Likelihoods(mine, theirs)
    found = asyncio.run(likely.scores(["log_ratio", "perplexity"], ["a", "b"]))
    assert found["log_ratio"] == pytest.approx([1.5, -0.25])
    assert found["perplexity"] == pytest.approx([math.exp(2), math.exp(0.5)])
    alone = asyncio.run(Likelihoods(mine).scores(["perplexity"], ["b"]))
    assert alone == {"perplexity": pytest.approx([math.exp(0.5)])}


def test_servers_with_other_tokenizers_without_a_base_or_asked_for_more_are_refused():
    mine, other = of_texts({"a": [-1.0, -3.0]}), of_texts({"a": [-1.0]})
    with pytest.raises(BadInput, match="2 tokens and its base as 1"):
        asyncio.run(Likelihoods(mine, other).scores(["log_ratio"], ["a"]))
    with pytest.raises(BadInput, match="there is none"):
        asyncio.run(Likelihoods(mine).scores(["log_ratio"], ["a"]))
    with pytest.raises(BadInput, match="score kl: takes open weights"):
        asyncio.run(Likelihoods(mine, other).scores(["kl"], ["a"]))


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        (("ab", "c"), ("a", "bc"), False),
        ((" ab", "c"), ("ab", "c"), True),  # a leading blank is spelled in several ways
        (("\u2581ab", "c\u010a"), (" ab", "c\n"), True),
        (("\u0120ab", "c"), (" ab", "d"), False),
        (("\ufffd", "c"), ("<0xC3>", "c"), True),  # pieces of a character
        (("\u00e4b", "c"), ("\ufffd", "c"), True),
        (("", "c"), ("ab", "c"), False),
    ],
)
def test_servers_that_cut_a_text_elsewhere_are_refused_though_they_count_alike(mine, theirs, same):
    pair = [[TokenLogprobs(tokens, (-1.0, -1.0))] for tokens in (mine, theirs)]
    if same:
        check_tokens(*pair)
        return
    with pytest.raises(BadInput, match="two tokenizers"):
        check_tokens(*pair)


def test_a_text_beyond_belief_has_a_finite_perplexity():
    found = asyncio.run(Likelihoods(of_texts({"a": [-1e6]})).scores(["perplexity"], ["a"]))
    assert math.isfinite(found["perplexity"][0])


# ---------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("scores", "direction", "alive", "place", "margin"),
    [
        ([0.3, 0.1, 0.2], "min", None, 1, 0.1),
        ([0.3, 0.1, 0.2], "max", None, 0, 0.1),
        ([0.5, 0.5, 0.5], "min", None, 0, 0.0),
        ([0.5, 0.5, 0.5], "max", None, 0, 0.0),
        ([0.9, 0.2, 0.2], "min", None, 1, 0.0),
        ([0.1, 0.9, 0.9], "max", None, 1, 0.0),
        ([0.1, 0.2, 0.3], "min", [False, True, True], 1, 0.1),
        ([0.1, 0.2, math.nan], "max", [True, False, False], 0, None),
        ([7.0], "min", None, 0, None),
    ],
)
def test_the_earliest_of_the_best_is_chosen(scores, direction, alive, place, margin):
    found = select(scores, direction, alive)
    assert found.place == place
    assert found.margin == (None if margin is None else pytest.approx(margin))


def test_choosing_is_that_of_a_plain_loop():
    dice = random.Random(3)
    for _ in range(300):
        scores = [dice.randrange(4) / 2 for _ in range(dice.randrange(1, 7))]
        alive = [dice.random() < 0.7 for _ in scores]
        for direction, better in (("min", min), ("max", max)):
            if not any(alive):
                with pytest.raises(ValueError, match="no candidate"):
                    select(scores, direction, alive)
                continue
            best = better(s for s, on in zip(scores, alive, strict=True) if on)
            first = next(i for i, s in enumerate(scores) if alive[i] and s == best)
            assert select(scores, direction, alive).place == first


def test_a_score_that_is_no_number_is_never_chosen_silently():
    with pytest.raises(ValueError, match="candidate 1"):
        select([0.1, math.nan], "min")
    with pytest.raises(ValueError, match="candidate 0"):
        select([math.inf, 1.0], "max")


def test_chance_is_seeded_and_the_first_wins_by_place():
    async def go():
        one, same = RandomScore("q"), RandomScore("q")
        numbers = await one.score((), [(1,)] * 6)
        assert numbers == await same.score((9,), [(2, 3)] * 6)  # blind to what they are
        assert numbers != await RandomScore("other").score((), [(1,)] * 6)
        first = FirstScore()
        assert select(await first.score((), [(1,)] * 3), first.direction).place == 0
        return numbers

    assert len(set(asyncio.run(go()))) == 6
    wins = [0] * 4
    for seed in range(400):
        numbers = asyncio.run(RandomScore(str(seed)).score((), [(1,)] * 4))
        wins[select(numbers, "max").place] += 1
    assert min(wins) > 60  # 100 each on average


def test_the_table_of_scores_is_whole():
    from typing import get_args

    from adhere.methods.attribution.scores import ScoreName

    assert tuple(SCORES) == get_args(ScoreName)
    lowest = {name for name, kind in SCORES.items() if kind.direction == "min"}
    assert lowest == {"latent", "perplexity", "gini", "first"}
    with_base = {name for name, kind in SCORES.items() if kind.with_base}
    assert with_base == {"latent", "kl", "reverse_kl", "log_ratio"}
    for scorer in (RandomScore("s"), FirstScore()):
        kind = SCORES[scorer.name]
        assert (scorer.direction, scorer.needs) == (kind.direction, kind.needs)
