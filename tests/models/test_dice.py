"""Tokens are chosen by the chances that the settings leave, each row by its own dice."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from adhere.chat import Sampling  # noqa: E402
from adhere.models.open_weights.dice import choose, new_dice  # noqa: E402

CHANCES = [0.05, 0.4, 0.0, 0.3, 0.1, 0.15]
LOGPROBS = torch.tensor(CHANCES).log()


def drawn(how, times=4000, logprobs=LOGPROBS):
    """How often each token came in many rows, each with dice of its own."""
    rows = logprobs.expand(times, -1)
    tokens = choose(rows, [how] * times, [new_dice(seed) for seed in range(times)])
    return [tokens.count(token) / times for token in range(len(logprobs))]


def expected(kept, power=1.0):
    left = [c**power if token in kept else 0.0 for token, c in enumerate(CHANCES)]
    return [c / sum(left) for c in left]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (Sampling(), expected({0, 1, 3, 4, 5})),
        (Sampling(temperature=0.5), expected({0, 1, 3, 4, 5}, power=2)),
        (Sampling(temperature=1.0, extra={"top_k": 2}), expected({1, 3})),
        (Sampling(temperature=1.0, extra={"top_k": 99}), expected({0, 1, 3, 4, 5})),
        (Sampling(temperature=1.0, extra={"top_k": -1}), expected({0, 1, 3, 4, 5})),
        (Sampling(temperature=1.0, top_p=0.6), expected({1, 3})),
        (Sampling(temperature=1.0, top_p=0.75), expected({1, 3, 5})),
        (Sampling(temperature=1.0, top_p=1.0), expected({0, 1, 3, 4, 5})),
        (Sampling(temperature=1.0, top_p=1e-9), expected({1})),
        (Sampling(temperature=1.0, extra={"min_p": 0.3}), expected({1, 3, 5})),
        # top_k first, top_p of what it left: 0.4 of 0.7 is less than 0.6, so both stay
        (Sampling(temperature=1.0, top_p=0.6, extra={"top_k": 2}), expected({1, 3})),
        (Sampling(temperature=1.0, top_p=0.5, extra={"top_k": 2}), expected({1})),
        (Sampling(temperature=1.0, top_p=0.9, extra={"min_p": 0.5}), expected({1, 3})),
        (Sampling(temperature=1e-30), expected({1})),
        (Sampling(temperature=1e-300), expected({1})),
        (Sampling(temperature=0), expected({1})),
    ],
)
def test_tokens_come_as_often_as_they_should(how, wanted):
    for share, chance in zip(drawn(how), wanted, strict=True):
        assert abs(share - chance) <= 4 * math.sqrt(chance * (1 - chance) / 4000) + 1e-9
        assert chance > 0 or share == 0


def test_top_p_reaches_beyond_the_first_guess():
    flat = torch.full((5000,), 1 / 5000).log()
    tokens = {
        token
        for seed in range(300)
        for token in choose(flat[None], [Sampling(top_p=0.5)], [new_dice(seed)])
    }
    assert len(tokens) > 200


def test_a_row_hangs_on_itself_alone():
    torch.manual_seed(0)
    logprobs = torch.randn(5, 300).log_softmax(-1)
    hows = [
        Sampling(temperature=0.7),
        Sampling(temperature=0),
        Sampling(temperature=0.7, top_p=0.8),
        Sampling(temperature=2.0, extra={"top_k": 40}),
        Sampling(),
    ]
    alone = [choose(logprobs[i : i + 1], hows[i : i + 1], [new_dice(i)])[0] for i in range(5)]
    assert choose(logprobs, hows, [new_dice(i) for i in range(5)]) == alone
    back = list(range(5))[::-1]
    assert choose(logprobs[back], [hows[i] for i in back], [new_dice(i) for i in back]) == [
        alone[i] for i in back
    ]


def test_equal_seeds_give_equal_texts_and_dice_go_on():
    logprobs = torch.zeros(1, 1000).log_softmax(-1)

    def text(dice):
        return [choose(logprobs, [Sampling()], [dice])[0] for _ in range(8)]

    assert text(new_dice(3)) == text(new_dice(3)) != text(new_dice(4))
    assert len(set(text(new_dice(3)))) > 4
    assert text(new_dice(None)) != text(new_dice(None))


def test_a_token_without_a_chance_never_comes():
    certain = torch.tensor([[-math.inf, 0.0, -math.inf]])
    for seed in range(50):
        for how in (Sampling(), Sampling(top_p=0.9), Sampling(temperature=0.01)):
            assert choose(certain, [how], [new_dice(seed)]) == [1]


def test_a_frequency_penalty_takes_so_much_for_each_time_a_token_stands_there():
    import torch

    from adhere.models.open_weights.dice import penalized

    logprobs = torch.log_softmax(torch.tensor([[2.0, 1.9, 0.0]] * 3), -1)
    half = Sampling(temperature=0.0, extra={"frequency_penalty": 0.5})
    hows = [half, half, Sampling(temperature=0.0)]
    out = penalized(logprobs, hows, [[0, 0, 2], [], [0]])
    assert torch.allclose(logprobs[0] - out[0], torch.tensor([1.0, 0.0, 0.5]))
    assert torch.equal(out[1:], logprobs[1:])
    assert choose(out, hows, [None] * 3) == [1, 0, 0]
    assert penalized(logprobs, hows[2:] * 3, [[0]] * 3) is logprobs
