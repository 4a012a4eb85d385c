"""Sums of log-probabilities of pairs, and their gradients, beside those of the plain model."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib.util import find_spec

import pytest

from support.scoring_models import KINDS, VOCAB, make_model, make_pairs, plain_sums, with_lora

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "transformers", "peft")),
    reason="needs torch, transformers and peft (pip install 'adhere[train]')",
)


def score(model, pairs, **options):
    from adhere.training.log_probs import PairScorer

    scorer = PairScorer(model, **options)
    return scorer(scorer.lay_out(pairs))


def scorer_of(model, **options):
    from adhere.training.log_probs import PairScorer

    return PairScorer(model, **options)


def gradients(run, model):
    """Gradients of an uneven weighting of the sums, by parameter."""
    import torch

    model.zero_grad()
    sums = run()
    weights = torch.linspace(-1.0, 1.5, sums.numel()).view(sums.shape)
    (sums * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same(found, expected):
    import torch

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Relative to the largest number of a tensor: small ones are sums of large ones.
        atol = 1e-5 * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, atol=atol, rtol=1e-5, msg=name)
    assert any(float(value.abs().max()) > 1e-3 for value in expected.values())


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize("chunk", [1, 5, 256])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_answers_that_are_alone_in_the_model(kind, share, chunk):
    import torch

    model, pairs = make_model(kind), make_pairs()
    with torch.no_grad():
        expected = plain_sums(model, pairs)
        scorer = scorer_of(model, chunk=chunk, share=share, longest=128)
        assert (scorer.shares, scorer.head_mode) == (share, "chunked")
        found = scorer(scorer.lay_out(pairs))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert found.dtype == torch.float32
    assert found.shape == (2, len(pairs))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_pair_counts_the_same_alone_and_in_a_ragged_group(kind):
    import torch

    model, pairs = make_model(kind), make_pairs()
    with torch.no_grad():
        together = score(model, pairs, longest=128)
        alone = torch.cat([score(model, [pair], longest=128) for pair in pairs], 1)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def test_equal_answers_have_equal_sums_and_the_common_start_is_on_both_sides():
    import torch

    model = make_model("llama")
    pair = make_pairs()[1]
    with torch.no_grad():
        (chosen,), (rejected,) = score(model, [pair]).tolist()
        start = replace(
            pair, chosen=pair.chosen[: pair.common], rejected=pair.chosen[: pair.common]
        )
        (common,), (same,) = score(model, [start]).tolist()
    # Equal but for the last bits: products of other shapes may be added up in another order.
    assert common == pytest.approx(same, rel=1e-6)
    # More is predicted than the start, so each side has a lower sum than the start has.
    assert chosen < common
    assert rejected < common


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_kinds_of_attention_take_the_mask(attention):
    import torch

    model, pairs = make_model("llama", attn_implementation=attention), make_pairs()
    with torch.no_grad():
        scorer = scorer_of(model)
        assert scorer.shares
        torch.testing.assert_close(
            scorer(scorer.lay_out(pairs)), plain_sums(model, pairs), atol=2e-5, rtol=1e-5
        )


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_all_weights(kind, share):
    model, pairs = make_model(kind), make_pairs()
    scorer = scorer_of(model, chunk=9, share=share, longest=128)
    laid = scorer.lay_out(pairs)
    expected = gradients(lambda: plain_sums(model, pairs), model)
    assert_same(gradients(lambda: scorer(laid), model), expected)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "not fused"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_gradients_of_an_adapter(kind, fuse):
    pairs = make_pairs()
    plain = with_lora(make_model(kind))
    model = copy.deepcopy(plain)
    scorer = scorer_of(model, chunk=9, fuse=fuse)
    assert scorer.shares
    laid = scorer.lay_out(pairs)
    expected = gradients(lambda: plain_sums(plain, pairs), plain)
    assert_same(gradients(lambda: scorer(laid), model), expected)
    assert all("lora_" in name for name in expected)


def test_gradients_when_layers_are_computed_twice():
    pairs = make_pairs()
    plain = with_lora(make_model("llama"))
    model = copy.deepcopy(plain)
    scorer = scorer_of(model, checkpoint_layers=True)
    calls = []
    layer = model.get_base_model().model.layers[0].self_attn
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = gradients(lambda: plain_sums(plain, pairs), plain)
    scorer.train()
    assert_same(gradients(lambda: scorer(scorer.lay_out(pairs)), model), expected)
    assert len(calls) == 2


def test_layers_that_cannot_be_computed_twice():
    from adhere.errors import BadInput

    model = make_model("llama")
    type(model).supports_gradient_checkpointing, before = False, True
    try:
        with pytest.raises(BadInput, match="LlamaForCausalLM has no gradient checkpointing"):
            scorer_of(model, checkpoint_layers=True)
    finally:
        type(model).supports_gradient_checkpointing = before


def test_a_head_with_an_adapter_is_called_as_it_is():
    import torch

    pairs = make_pairs()
    plain = with_lora(make_model("llama"), target_modules=["q_proj", "lm_head"])
    model = copy.deepcopy(plain)
    scorer = scorer_of(model, chunk=4)
    torch.testing.assert_close(
        scorer(scorer.lay_out(pairs)), plain_sums(plain, pairs), atol=2e-5, rtol=1e-5
    )
    expected = gradients(lambda: plain_sums(plain, pairs), plain)
    assert any("lm_head" in name for name in expected)
    assert_same(gradients(lambda: scorer(scorer.lay_out(pairs)), model), expected)


# ---------------------------------------------------------------- step 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "computed twice"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_before_the_first_step_an_adapter_changes_no_bit(dtype, share, checkpoint):
    import torch

    pairs = make_pairs()
    model = with_lora(make_model("llama").to(getattr(torch, dtype)), at_zero=True)
    scorer = scorer_of(model, share=share, checkpoint_layers=checkpoint).train()
    laid = scorer.lay_out(pairs)
    with scorer.reference():
        assert not scorer.training
        reference = scorer(laid)
        assert not reference.requires_grad
    assert scorer.training
    policy = scorer(laid)
    assert policy.requires_grad
    assert torch.equal(policy, reference)
    assert policy.dtype == torch.float32


def test_an_adapter_that_does_something_is_off_in_the_reference_only():
    import torch

    base, pairs = make_model("llama"), make_pairs()
    with torch.no_grad():
        without = plain_sums(base, pairs)
    scorer = scorer_of(with_lora(base))
    laid = scorer.lay_out(pairs)
    with scorer.reference():
        torch.testing.assert_close(scorer(laid), without, atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        assert float((scorer(laid) - without).abs().max()) > 0.1


def test_the_adapter_is_on_again_when_the_reference_fails():
    model = with_lora(make_model("llama"))
    scorer = scorer_of(model).train()
    with pytest.raises(KeyError), scorer.reference():
        raise KeyError
    assert scorer.training
    assert all(layer.enabled for layer in model.get_layer_status())


# ---------------------------------------------------------------- number formats


@pytest.mark.parametrize("adapter", [None, "float32", "bfloat16"])
def test_bfloat16_models_give_float32_sums_that_are_near(adapter):
    import torch

    pairs = make_pairs()
    model = make_model("llama")
    if adapter:
        model = with_lora(model)
    with torch.no_grad():
        expected = plain_sums(copy.deepcopy(model), pairs)
    for name, weight in model.named_parameters():
        if not (adapter == "float32" and "lora_" in name):
            weight.data = weight.data.bfloat16()
    scorer = scorer_of(model)
    found = scorer(scorer.lay_out(pairs))
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())  # sums are not rounded
    lengths = torch.tensor([[len(p.chosen) for p in pairs], [len(p.rejected) for p in pairs]])
    assert float(((found.detach() - expected).abs() / lengths).max()) < 0.1
    found.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])
def test_under_autocast_the_policy_is_the_reference_at_step_0(full):
    import torch

    pairs = make_pairs()
    model = make_model("llama") if full else with_lora(make_model("llama"), at_zero=True)
    scorer = scorer_of(model)
    laid = scorer.lay_out(pairs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with scorer.reference():
            reference = scorer(laid)
        policy = scorer(laid)
    assert torch.equal(policy, reference)
    policy.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert scorer.facts()["autocast"] is None


# ---------------------------------------------------------------- the fused adapter


def test_a_fused_layer_is_still_pefts_layer(tmp_path):
    import torch
    from peft import PeftModel

    from adhere.training.fused_lora import fuse_lora

    model = with_lora(make_model("llama"))
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        assert fuse_lora(model) == 14  # seven in each of two layers
        assert fuse_lora(model) == 0
        torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(make_model("llama"), str(tmp_path))
        torch.testing.assert_close(loaded(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}],
    ids=lambda options: next(iter(options)),
)
def test_other_adapters_go_their_own_way(options):
    import torch

    plain = with_lora(make_model("llama"), **options)
    model = copy.deepcopy(plain)
    pairs = make_pairs()
    scorer = scorer_of(model).train()
    plain.train()
    torch.manual_seed(3)
    expected = scorer_of(plain, fuse=False)(scorer.lay_out(pairs))
    torch.manual_seed(3)
    torch.testing.assert_close(scorer(scorer.lay_out(pairs)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("where", ["base_layer", "lora_A.default", "lora_B.default"])
@pytest.mark.parametrize("how", ["hook", "before", "backward", "forward"])
def test_hooks_into_the_parts_of_an_adapted_layer_run(how, where):
    model, calls = with_lora(make_model("llama")), []
    scorer = scorer_of(model)
    inner = model.get_base_model().model.layers[1].self_attn.q_proj.get_submodule(where)
    if how == "forward":
        own = inner.forward
        inner.forward = lambda x: calls.append(1) or own(x)
    else:
        name = {"hook": "forward", "before": "forward_pre", "backward": "full_backward"}[how]
        getattr(inner, f"register_{name}_hook")(lambda *_: calls.append(1))
    scorer(scorer.lay_out(make_pairs())).sum().backward()
    assert calls == [1]


def test_a_base_that_is_trained_beside_its_adapter_gets_its_gradients():
    pairs = make_pairs()
    plain = with_lora(make_model("qwen2"))
    for name, weight in plain.named_parameters():
        if "layers.0" in name and "base_layer.weight" in name:
            weight.requires_grad_(True)
        if "layers.1" in name and "base_layer.bias" in name:
            weight.requires_grad_(True)
    model = copy.deepcopy(plain)
    scorer = scorer_of(model)
    expected = gradients(lambda: plain_sums(plain, pairs), plain)
    assert any("base_layer.weight" in name for name in expected)
    assert any("base_layer.bias" in name for name in expected)
    assert_same(gradients(lambda: scorer(scorer.lay_out(pairs)), model), expected)


def test_an_adapter_that_is_merged_counts_once():
    import torch

    pairs = make_pairs()
    model = with_lora(make_model("llama"))
    scorer = scorer_of(model)
    with torch.no_grad():
        before = scorer(scorer.lay_out(pairs))
        model.merge_adapter()
        torch.testing.assert_close(scorer(scorer.lay_out(pairs)), before, atol=1e-3, rtol=1e-4)
        model.unmerge_adapter()
        torch.testing.assert_close(scorer(scorer.lay_out(pairs)), before, atol=1e-3, rtol=1e-4)


def test_two_adapters_at_once_and_none():
    import torch
    from peft import LoraConfig

    model = with_lora(make_model("llama"))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    pairs = make_pairs()
    scorer = scorer_of(model)
    for name in ("default", "second"):
        model.set_adapter(name)
        torch.testing.assert_close(
            scorer(scorer.lay_out(pairs)), plain_sums(model, pairs), atol=2e-5, rtol=1e-5
        )


# ---------------------------------------------------------------- is it exact?


def settled(model, **options):
    """The scorer after the check, the difference that was found, and what was said."""
    from adhere.training.exactness import check_exact

    notes = []
    options = {"longest": 128, **options}
    scorer = scorer_of(model, note=notes.append, **options)
    found = check_exact(scorer, make_pairs(), notes.append)
    return scorer, found, notes


@pytest.mark.parametrize("kind", KINDS)
def test_known_models_are_shared_and_chunked_without_a_word(kind):
    scorer, found, notes = settled(make_model(kind))
    assert (scorer.shares, scorer.head_mode, notes) == (True, "chunked", [])
    assert found < 1e-4


def test_a_sliding_window_is_not_shared_unless_it_is_as_long_as_the_texts():
    import torch

    model, pairs = make_model("mistral"), make_pairs()
    scorer, _, notes = settled(model)
    assert not scorer.shares
    assert notes == ["prompts are not shared between the two sides: layers of sliding_attention"]
    with torch.no_grad():
        torch.testing.assert_close(
            scorer(scorer.lay_out(pairs)), plain_sums(model, pairs), atol=2e-5, rtol=1e-5
        )
    wide, found, notes = settled(make_model("mistral", sliding_window=128))
    assert (wide.shares, notes) == (True, [])
    assert found < 1e-4


def test_what_a_layout_of_one_row_would_break_is_found_by_the_check():
    import torch

    # Its positions are made out of the mask; nothing in its configuration says so.
    model, pairs = make_model("bloom"), make_pairs()
    scorer, found, notes = settled(model)
    assert not scorer.shares
    assert len(notes) == 1
    assert "prompts are not shared" in notes[0]
    assert found < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(
            scorer(scorer.lay_out(pairs)), plain_sums(model, pairs), atol=2e-5, rtol=1e-5
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", ["causal to everything", "as packed texts"])
def test_a_model_that_ignores_the_mask_is_found_out(how, dtype):
    """One answer sees the other, or one sees no prompt; bfloat16 does not hide it."""
    import torch

    from adhere.training.exactness import check_exact

    # So near to an even chance for every token that comparing sums alone would not tell much.
    spread = 0.05 if how == "causal to everything" else 0.5
    model = make_model("llama", spread=spread).to(getattr(torch, dtype))
    inner, notes = model.model.forward, []

    def deaf(*, input_ids, attention_mask=None, **kwargs):
        # Without any mask, transformers takes positions that begin again for another text.
        mask = torch.ones_like(input_ids) if how == "causal to everything" else None
        return inner(input_ids=input_ids, attention_mask=mask, **kwargs)

    model.model.forward = deaf
    scorer = scorer_of(model)
    check_exact(scorer, make_pairs(), notes.append)
    assert not scorer.shares
    assert "prompts are not shared" in notes[0]


def long_pairs():
    """Ragged pairs, far longer than what the short check looks at."""
    import random

    from adhere.training.tokenizing import TokenizedPair

    chance = random.Random(1)

    def some(n, first):
        return (first, *(chance.randrange(5, VOCAB) for _ in range(n - 1)))

    sizes = [(40, 60, 50), (30, 40, 70), (20, 60, 10)]
    return [TokenizedPair(f"{p}", some(p, 5), some(a, 3), some(b, 4)) for p, a, b in sizes]


def settled_by_long_pairs(model, dtype="float32"):
    """The scorer after the check on long pairs, its greatest error in nats, what was said."""
    import torch

    from adhere.training.exactness import check_exact

    pairs, notes = long_pairs(), []
    model = model.to(getattr(torch, dtype))
    scorer = scorer_of(model, note=notes.append, longest=128)
    check_exact(scorer, pairs, notes.append)
    with torch.no_grad():
        apart = scorer(scorer.lay_out(pairs)) - plain_sums(model, pairs)
    return scorer, float(apart.abs().max()), notes


@pytest.mark.parametrize("kind", ["gpt2", "dynamic"])
def test_ragged_pairs_as_long_as_the_model_has_positions(kind):
    """Shared rows have more columns than a model has positions; no padding stands past them."""
    import torch

    from adhere.training.tokenizing import TokenizedPair

    def pair(prompt, chosen, rejected):
        one = range(5, 5 + max(prompt, chosen, rejected))
        return TokenizedPair(
            f"{chosen}", tuple(one[:prompt]), (3, *one[: chosen - 1]), (4, *one[: rejected - 1])
        )

    pairs = [pair(4, 50, 50), pair(4, 60, 60)]
    if kind == "gpt2":
        model = make_model("gpt2", n_positions=64)
    else:
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
        model = make_model("llama", max_position_embeddings=64, rope_parameters=rope)
    scorer = scorer_of(model, longest=64)
    assert scorer.shares
    with torch.no_grad():
        torch.testing.assert_close(
            scorer(scorer.lay_out(pairs)), plain_sums(model, pairs), atol=5e-5, rtol=1e-5
        )


def test_what_only_long_pairs_show_is_found_by_the_check():
    """A model that sees 48 columns back, of which its configuration says nothing."""
    model = make_model("gpt_neo")
    model.config.attention_layers = []
    scorer, apart, notes = settled_by_long_pairs(model)
    assert not scorer.shares
    assert "sums of the longest pair would differ" in notes[0]
    assert apart < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gpt_neo", "layers of local"),
        ("mpt", "cannot be told where a token stands"),
        ("falcon", "ALiBi"),
        ("recurrent_gemma", "layers of"),
    ],
)
def test_models_that_count_columns_are_not_shared(kind, reason, dtype):
    scorer, apart, notes = settled_by_long_pairs(make_model(kind), dtype)
    assert not scorer.shares
    assert len(notes) == 1
    assert reason in notes[0]
    assert scorer.head_mode == "chunked"
    assert apart < (1e-3 if dtype == "float32" else 0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_costs_known_models_nothing(kind):
    scorer, _, notes = settled_by_long_pairs(make_model(kind), "bfloat16")
    assert (scorer.shares, scorer.head_mode, notes) == (True, "chunked", [])


def test_a_cap_that_is_not_known_is_found_in_bfloat16():
    import torch

    from adhere.training.exactness import check_exact
    from adhere.training.head import PLAIN

    notes = []
    scorer = scorer_of(make_model("recurrent_gemma", spread=0.15).to(torch.bfloat16), share=False)
    assert scorer.shape.cap == 2.0
    scorer.shape = PLAIN
    check_exact(scorer, long_pairs(), notes.append)
    assert scorer.head_mode == "plain"
    assert "the head of this model is not one that is known" in notes[0]


@pytest.mark.parametrize("training", [True, False])
def test_the_check_leaves_each_part_in_its_mode(training):
    from adhere.training.exactness import check_exact

    model = make_model("llama").train(training)
    model.model.layers[1].train(not training)
    before = [part.training for part in model.modules()]
    scorer = scorer_of(model)
    check_exact(scorer, make_pairs())
    with scorer.reference():
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == before
    assert scorer.training == training


def test_dropout_of_the_model_itself_is_refused_and_that_of_the_adapter_is_not():
    from adhere.errors import BadInput

    settled(with_lora(make_model("llama"), lora_dropout=0.5))
    with pytest.raises(BadInput, match="in training differ"):
        settled(with_lora(make_model("llama", attention_dropout=0.5)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "biogpt", "xglm", "gpt_bigcode"])
def test_dropout_that_is_switched_off_is_off(kind):
    from adhere.errors import BadInput
    from adhere.training.loading import without_dropout

    rates = {
        "llama": {"attention_dropout": 0.4},
        "gpt2": {"attn_pdrop": 0.4, "embd_pdrop": 0.4, "resid_pdrop": 0.4},
    }
    model = make_model(kind, **rates.get(kind, {}))
    with pytest.raises(BadInput, match="in training differ"):
        settled(model)
    without_dropout(model)
    settled(model)


def test_a_state_space_model_is_scored_without_sharing():
    import torch

    model, pairs = make_model("mamba"), make_pairs()
    scorer, found, notes = settled(model)
    assert not scorer.shares
    assert "prompts are not shared" in notes[0]
    assert found < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(
            scorer(scorer.lay_out(pairs)), plain_sums(model, pairs), atol=2e-5, rtol=1e-5
        )


def test_a_head_that_does_more_than_is_known_gives_way_to_the_models_logits():
    import torch

    model, pairs = make_model("cohere"), make_pairs()
    model.logit_scale = 5.0  # and the configuration says 3
    scorer, found, notes = settled(model)
    assert (scorer.head_mode, scorer.shares) == ("plain", True)
    assert len(notes) == 1
    assert "the head of this model" in notes[0]
    assert found < 1e-4
    laid = scorer.lay_out(pairs)
    torch.testing.assert_close(scorer(laid), plain_sums(model, pairs), atol=2e-5, rtol=1e-5)
    expected = gradients(lambda: plain_sums(model, pairs), model)
    assert_same(gradients(lambda: scorer(laid), model), expected)


def test_a_model_whose_numbers_hang_on_the_padding_is_refused():
    from adhere.errors import BadInput
    from adhere.training.exactness import check_exact

    model = make_model("llama")
    inner = model.model.forward

    def sees_all(*args, input_ids=None, **kwargs):
        found = inner(*args, input_ids=input_ids, **kwargs)
        found.last_hidden_state = found.last_hidden_state + input_ids.shape[0]
        return found

    model.model.forward = sees_all
    with pytest.raises(BadInput, match="differ by"):
        check_exact(scorer_of(model), make_pairs())


def test_a_layout_that_the_model_cannot_take_is_refused():
    from adhere.training.layout import layout

    scorer = scorer_of(make_model("mistral"))
    with pytest.raises(ValueError, match="cannot share"):
        scorer(layout(make_pairs(), share=True, pad_id=0))


def test_an_adapter_before_the_prompt_is_refused():
    from peft import PromptTuningConfig, get_peft_model

    from adhere.errors import BadInput

    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    with pytest.raises(BadInput, match="before the prompt"):
        scorer_of(get_peft_model(make_model("llama"), config))


def test_flash_attention_takes_no_mask_of_ones_own():
    model = make_model("llama")
    model.config._attn_implementation = "flash_attention_2"
    notes = []
    assert not scorer_of(model, note=notes.append).shares
    assert "flash_attention_2" in notes[0]


def test_no_pairs_to_check_with():
    from adhere.errors import BadInput
    from adhere.training.exactness import check_exact

    with pytest.raises(BadInput, match="no pairs"):
        check_exact(scorer_of(make_model("llama")), [])
