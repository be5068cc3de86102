"""Attention "ratequant": from the packed bytes, what attention over the cache read back gives."""

from __future__ import annotations

import pytest
import torch
from cache_models import bit_map, generate, make_model, prompt, streamed_logits
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen3Config,
)

from ratequant import RateQuantCache

SLIDING = {"sliding_window": 24, "query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"]}
ARCHITECTURES = [
    (LlamaConfig, {}),
    (LlamaConfig, {"num_attention_heads": 2}),
    (Qwen3Config, {}),
    (MistralConfig, {"sliding_window": 24}),
    (Gemma2Config, SLIDING),  # soft caps, too
    (Gemma3TextConfig, SLIDING),
]


@pytest.fixture
def llama() -> PreTrainedModel:
    model = make_model()
    model.set_attn_implementation("ratequant")
    return model


@torch.inference_mode()
def logits(model, ids, cache, chunks, mask=None) -> torch.Tensor:
    """Of all tokens, in chunks of these sizes; `mask` [batch, tokens]."""
    pieces, first = [], 0
    for piece in ids.split(chunks, dim=1):
        first += piece.shape[1]
        seen = None if mask is None else mask[:, :first]
        pieces.append(model(input_ids=piece, attention_mask=seen, past_key_values=cache).logits)
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize(("config_class", "changes"), ARCHITECTURES)
def test_logits_at_width_16_equal_the_stock_caches_in_every_architecture(config_class, changes):
    model = make_model(config_class, **changes)
    model.set_attn_implementation("eager")
    ids = prompt(2, 110)
    want = streamed_logits(model, ids, DynamicCache(config=model.config))
    model.set_attn_implementation("ratequant")
    # A prompt, a long piece behind it, short ones, and single tokens.
    chunks = [60, 20, 8, 3, *[1] * 19]
    got = logits(model, ids, RateQuantCache(bit_map(16), model.config), chunks)
    assert (got - want).abs().max() < 0.01 * want.std()


@pytest.mark.parametrize("batch", [1, 3])
def test_generate_at_width_16_equals_the_stock_cache(llama, batch):
    ids = prompt(batch)
    cache = RateQuantCache(bit_map(16), llama.config)
    got = generate(llama, ids, cache)
    llama.set_attn_implementation("sdpa")
    assert torch.equal(got, generate(llama, ids, DynamicCache(config=llama.config)))
    assert cache.get_seq_length() == ids.shape[1] + 29


@pytest.mark.parametrize("quantizer", ["rtn", "kivi:group_size=16", "quarot", "turboquant", "tcq"])
@pytest.mark.parametrize("batch", [1, 3])
def test_packed_attention_is_attention_over_what_is_read_back(llama, quantizer, batch):
    ids = prompt(batch, 130)
    # Pieces short enough for both to append first and read then.
    chunks = [8] * 14 + [1] * 18
    got = logits(llama, ids, RateQuantCache(bit_map(3, quantizer), llama.config), chunks)
    llama.set_attn_implementation("sdpa")
    want = logits(llama, ids, RateQuantCache(bit_map(3, quantizer), llama.config), chunks)
    stock = logits(llama, ids, DynamicCache(config=llama.config), chunks)
    assert (got - want).abs().max() < 1e-3 * want.std()
    assert (stock - want).abs().max() > 0.01 * want.std()


def test_a_bfloat16_model():
    model = make_model().to(torch.bfloat16)
    ids = prompt(2, 80)
    want = streamed_logits(model, ids, DynamicCache(config=model.config))
    model.set_attn_implementation("ratequant")
    got = logits(model, ids, RateQuantCache(bit_map(16), model.config), [60, *[1] * 20])
    assert got.dtype == torch.bfloat16
    assert (got - want).abs().float().max() < 0.1 * want.float().std()


# Padding.


def padded(batch: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = prompt(batch, tokens)
    mask = torch.ones_like(ids)
    mask[0, :47] = 0
    mask[-1, :5] = 0
    return ids, mask


def test_a_padded_row_is_the_row_alone_and_padding_takes_no_memory(llama):
    ids, mask = padded(3, 100)
    chunks = [20, 40, 20, *[1] * 20]  # the first one is all padding in row 0
    cache = RateQuantCache(bit_map(16), llama.config)
    both = logits(llama, ids, cache, chunks, mask)
    assert cache.allocated_bytes() == sum(cache.sequence_bytes(n) for n in (53, 100, 95))
    for row, pad in ((0, 47), (1, 0), (2, 5)):
        alone = RateQuantCache(bit_map(16), llama.config)
        want = logits(llama, ids[row : row + 1, pad:], alone, [60 - pad, 20, *[1] * 20])
        # Positions differ by the padding, but rotary embeddings are relative.
        assert (both[row, pad:] - want[0]).abs().max() < 0.01 * want.std()


def test_padding_within_short_steps_and_between_turns(llama):
    """Prompts whose padding lies in a short first piece, or behind an earlier turn."""
    ids = prompt(2, 70)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    mask[1, 30:42] = 0
    chunks = [5, 25, 20, *[1] * 20]
    got = logits(llama, ids, RateQuantCache(bit_map(16), llama.config), chunks, mask)
    llama.set_attn_implementation("sdpa")
    want = logits(llama, ids, DynamicCache(config=llama.config), chunks, mask)
    real = mask.bool()
    assert (got[real] - want[real]).abs().max() < 0.01 * want[real].std()


def test_a_padded_batch_is_cropped_reordered_and_read_by_other_attention(llama):
    ids, mask = padded(2, 90)
    more = prompt(2, 10)
    cache = RateQuantCache(bit_map(16), llama.config)
    logits(llama, ids, cache, [80, *[1] * 10], mask)
    cache.crop(-6)
    cache.reorder_cache(torch.tensor([1, 0]))
    ids, mask = ids[[1, 0], :84], mask[[1, 0], :84]
    whole_ids, whole_mask = torch.cat([ids, more], 1), torch.cat([mask, torch.ones_like(more)], 1)
    llama.set_attn_implementation("sdpa")
    want = logits(llama, whole_ids, DynamicCache(config=llama.config), [84, 10], whole_mask)[:, 84:]
    with torch.inference_mode():
        got = llama(input_ids=more, attention_mask=whole_mask, past_key_values=cache).logits
    assert (got - want).abs().max() < 0.01 * want.std()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda mask: mask.index_fill(1, torch.tensor([50]), 0), "row 0 holds 53 tokens and gets 1, .* 53 be seen"),
        (lambda mask: torch.ones_like(mask), "row 0 holds 53 tokens and gets 1, .* 101 be seen"),
    ],
)
def test_a_mask_that_says_otherwise_than_before_is_refused(llama, change, text):
    ids, mask = padded(2, 100)
    cache = RateQuantCache(bit_map(4), llama.config)
    logits(llama, ids, cache, [100], mask)
    later = change(torch.cat([mask, mask.new_ones(2, 1)], dim=1))
    with pytest.raises(ValueError, match=text), torch.inference_mode():
        llama(input_ids=ids[:, :1], attention_mask=later, past_key_values=cache)


# Mistakes.


def test_other_caches_are_refused(llama):
    with pytest.raises(TypeError, match="reads a RateQuantCache made with the model's config"):
        generate(llama, prompt(), DynamicCache(config=llama.config))
    with pytest.raises(TypeError, match="made with the model's config"):
        generate(llama, prompt(), RateQuantCache(bit_map()))


def test_layers_of_chunked_attention_are_refused():
    model = make_model(Qwen3Config, layer_types=["full_attention", "chunked_attention"])
    model.set_attn_implementation("ratequant")
    cache = RateQuantCache(bit_map(), model.config)
    k = torch.zeros(1, 2, 3, 16)
    cache.update(k, k, 0)
    with pytest.raises(NotImplementedError, match="chunked_attention with attention 'ratequant'"):
        cache.update(k, k, 1)


def test_keys_that_no_attention_took_are_found_out(llama):
    cache = RateQuantCache(bit_map(), llama.config)
    k = torch.zeros(1, 2, 3, 16)
    cache.update(k, k, 0)
    with pytest.raises(RuntimeError, match="layer 0: attention 'ratequant' wasn't called"):
        cache.update(k, k, 0)
    cache.reset()
    cache.update(k, k, 0)


def test_the_implementation_can_change_between_steps(llama):
    ids = prompt(1, 100)
    cache = RateQuantCache(bit_map(16), llama.config)
    pieces = []
    for piece, implementation in zip(ids.split(25, dim=1), ["sdpa", "ratequant", "sdpa", "ratequant"]):
        llama.set_attn_implementation(implementation)
        pieces.append(logits(llama, piece, cache, 25))
    llama.set_attn_implementation("sdpa")
    want = logits(llama, ids, DynamicCache(config=llama.config), 25)
    assert (torch.cat(pieces, dim=1) - want).abs().max() < 0.01 * want.std()


# A real model.


@pytest.fixture(scope="module")
def real_model(smollm2) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


def real_map(model: PreTrainedModel, bits: int) -> dict:
    config = model.config
    groups = config.num_hidden_layers * config.num_key_value_heads * 2
    geometry = {"layers": config.num_hidden_layers, "kv_heads": config.num_key_value_heads, "head_dim": 64}
    return bit_map(bits, "turboquant", geometry=geometry, quantizer_index=[0] * groups, width=[bits] * groups)


def real_ids(smollm2, shared, tokens: int) -> torch.Tensor:
    from transformers import AutoTokenizer

    text = (shared / "data" / "wikitext-2" / "test-head.txt").read_text(encoding="utf-8")[:20000]
    return torch.tensor([AutoTokenizer.from_pretrained(smollm2)(text)["input_ids"][:tokens]])


def test_a_real_model_at_width_16_generates_the_stock_caches_tokens(real_model, smollm2, shared):
    ids = real_ids(smollm2, shared, 3 * 60).view(3, 60)
    real_model.set_attn_implementation("sdpa")
    want = generate(real_model, ids, DynamicCache(config=real_model.config), max_new_tokens=40)
    real_model.set_attn_implementation("ratequant")
    got = generate(real_model, ids, RateQuantCache(real_map(real_model, 16), real_model.config), max_new_tokens=40)
    assert torch.equal(got, want)


def test_a_real_models_loss_is_that_of_reading_back(real_model, smollm2, shared):
    ids = real_ids(smollm2, shared, 2 * 120).view(2, 120)
    losses = {}
    for implementation in ("sdpa", "ratequant"):
        real_model.set_attn_implementation(implementation)
        cache = RateQuantCache(real_map(real_model, 3), real_model.config)
        predicted = logits(real_model, ids, cache, 8)[:, :-1]
        losses[implementation] = torch.nn.functional.cross_entropy(predicted.flatten(0, 1), ids[:, 1:].flatten())
    assert losses["ratequant"].item() == pytest.approx(losses["sdpa"].item(), abs=2e-3)
