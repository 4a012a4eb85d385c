"""Price files: what they cost out to, and that a mistake in one is named with its line."""

from __future__ import annotations

import pytest

from adhere.chat import Usage
from adhere.errors import BadInput
from adhere.experiments.pricing import read_prices

FILE = """\
currency: EUR
models:
  openai:gpt-x: {input: 2.0, cached_input: 0.5, output: 8, tokens_per_second: 60, seconds_per_call: 0.4}
  plain:
    input: 3
    output: 4.5
  local:free: {input: 0, output: 0}
  local:speed: {tokens_per_second: 25}
"""
USED = Usage(prompt_tokens=1_000_000, cached_prompt_tokens=400_000, completion_tokens=500_000)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "prices.yaml"
        path.write_text(text)
        return path

    return write


def test_cached_tokens_have_their_own_price_where_one_is_given(write):
    prices = read_prices(write(FILE))
    assert prices.currency == "EUR"
    assert prices.cost("openai:gpt-x", USED) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 8)
    assert prices.cost("plain", USED) == pytest.approx(3 + 0.5 * 4.5)


def test_no_price_is_none_and_zero_only_where_the_file_says_so(write):
    prices = read_prices(write(FILE))
    assert prices.cost("local:other", USED) is None
    assert prices.cost("local:speed", USED) is None
    assert prices.cost("local:free", USED) == 0.0


def test_a_label_is_looked_up_before_the_model_string(write):
    prices = read_prices(write(FILE))
    assert prices.cost(["plain", "openai:gpt-x"], USED) == prices.cost("plain", USED)
    assert prices.cost(["big", "openai:gpt-x"], USED) == prices.cost("openai:gpt-x", USED)
    assert prices.cost(["big", "small"], USED) is None


def test_speed_needs_tokens_per_second(write):
    prices = read_prices(write(FILE))
    assert prices.speed("openai:gpt-x") == (60, 0.4)
    assert prices.speed("local:speed") == (25, 0.0)
    assert prices.speed("plain") is None


def test_more_cached_tokens_than_prompt_tokens_never_give_money_back(write):
    prices = read_prices(write(FILE))
    assert prices.cost("openai:gpt-x", Usage(10, 50, 0)) == pytest.approx(10 * 0.5 / 1e6)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("models:\n  m: {input: 1, output: 1}\n", 1, "currency: nothing"),
        ("currency: USD\n", 1, "models: nothing"),
        ("currency: USD\nmodels: {}\n", 2, "models"),
        ("currency: USD\nmodels:\n  m:\n    input: -1\n    output: 1\n", 4, "not negative"),
        ("currency: USD\nmodels:\n  m:\n    input: 1\n    output: .nan\n", 5, "models.m.output"),
        ("currency: USD\nmodels:\n  m:\n    input: 1\n    output: .inf\n", 5, "finite"),
        ('currency: USD\nmodels:\n  m:\n    output: 1\n    input: "2,0"\n', 5, "'2,0'"),
        ("currency: USD\nmodels:\n  m:\n    input: yes\n    output: 1\n", 4, "a number"),
        ("currency: USD\nmodels:\n  m:\n    input: 1\n    outptu: 1\n", 5, "unknown field"),
        ("currency: USD\nmodels:\n  a: {input: 1, output: 1}\n  m: {input: 1}\n", 4, "'output'"),
        ("currency: USD\nmodels:\n  m: {cached_input: 1}\n", 3, "'input'"),
        ("currency: USD\nmodels:\n  m: {}\n", 3, "without a number"),
        ("currency: USD\nmodels:\n  m: {tokens_per_second: 0}\n", 3, "above 0"),
        ("currency: USD\nmodels:\n  m: 3\n", 3, "models.m"),
        ("currency: USD\nmodels:\n  m: {input: 1, output: 1}\n  m: {input: 2, output: 2}\n", 4, "second time"),
        ("currency: USD\nmodels: [\n", 3, "broken YAML"),
        ("- a\n", 1, "currency"),
        ("", 1, "nothing"),
        ("1: 2\ncurrency: USD\nmodels:\n  m: {input: 1, output: 1}\n", 1, "unknown field"),
        ("currency: USD\nmodels:\n  4: {input: 1, output: 1}\n", 3, "models.4"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(write, text, line, said):
    path = write(text)
    with pytest.raises(BadInput) as caught:
        read_prices(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: found ")
    assert "; expected " in message
    assert said in message


def test_files_that_cannot_be_read_say_so(tmp_path):
    with pytest.raises(BadInput, match=r"cannot be read"):
        read_prices(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"currency: \xe9\n")
    with pytest.raises(BadInput, match="UTF-8"):
        read_prices(tmp_path / "latin.yaml")
