"""RateQuantCache in real models, and against the runtime's own read-back."""

from __future__ import annotations

import pickle

import pytest
import torch
from cache_models import (
    DIM,
    GROUPS,
    HEADS,
    LAYERS,
    SHAPE,
    bit_map,
    generate,
    make_model,
    prompt,
    states,
    streamed_logits,
)
from transformers import (
    DynamicCache,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen3Config,
)

from ratequant import RateQuantCache, runtime
from ratequant.cache_format import format_of
from ratequant.runtime import KvRuntimeError, TensorView
from ratequant.v1 import bit_map_pb2, quantizer_pb2


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return make_model()


# In models.


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("window", [1 << 20, 32, 0])
def test_generate_at_width_16_equals_the_stock_cache(llama, batch, window):
    ids = prompt(batch)
    want = generate(llama, ids, DynamicCache(config=llama.config))
    cache = RateQuantCache(bit_map(16), llama.config, window=window)
    assert torch.equal(generate(llama, ids, cache), want)
    assert cache.get_seq_length() == ids.shape[1] + 29


@pytest.mark.parametrize(
    ("config_class", "changes"),
    [
        (LlamaConfig, {}),
        (LlamaConfig, {"num_attention_heads": 2}),
        (Qwen3Config, {}),
        (MistralConfig, {"sliding_window": 24}),
        (GemmaConfig, {}),
    ],
)
def test_logits_at_width_16_equal_the_stock_caches_in_every_architecture(config_class, changes):
    model = make_model(config_class, **changes)
    ids = prompt(2, 100)
    want = streamed_logits(model, ids, DynamicCache(config=model.config))
    got = streamed_logits(model, ids, RateQuantCache(bit_map(16), model.config))
    # fp16 keeps 11 bits of K and V.
    assert (got - want).abs().max() < 0.01 * want.std()


@pytest.mark.parametrize("quantizer", ["rtn", "kivi:group_size=16", "quarot", "turboquant", "tcq"])
def test_logits_come_closer_with_every_bit(llama, quantizer):
    ids = prompt(2, 150)
    want = streamed_logits(llama, ids, DynamicCache(config=llama.config))
    errors = []
    for bits in (2, 4, 8):
        cache = RateQuantCache(bit_map(bits, quantizer), llama.config)
        errors.append(((streamed_logits(llama, ids, cache) - want).std() / want.std()).item())
    assert errors[2] < 0.05
    assert errors[0] > 2 * errors[1] > 8 * errors[2] > 0


def test_generate_goes_on_with_a_filled_cache(llama):
    ids = prompt(1, 60)
    cache = RateQuantCache(bit_map(16), llama.config)
    first = generate(llama, ids, cache)
    more = torch.cat([first, prompt(1, 5)], dim=1)
    want = generate(llama, more, DynamicCache(config=llama.config))
    assert torch.equal(generate(llama, more, cache), want)


def test_a_bfloat16_model_gets_bfloat16_back():
    model = make_model().to(torch.bfloat16)
    ids = prompt(1, 80)
    want = streamed_logits(model, ids, DynamicCache(config=model.config))
    got = streamed_logits(model, ids, RateQuantCache(bit_map(16), model.config))
    assert got.dtype == torch.bfloat16
    # bf16 values within fp16's normal range survive fp16 exactly.
    assert (got - want).abs().float().max() < 0.02 * want.float().std()


# The bytes.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_update_returns_what_the_runtime_reads_back(dtype):
    cache_format = format_of(
        bit_map(
            quantizers=["kivi:group_size=16", "turboquant:seed=5"],
            quantizer_index=[0, 1, 1, 0, 0, 0, 1, 1],
            width=[3, 2, 4, 16, 8, 5, 1, 6],
        ),
        window=20,
    )
    cache = RateQuantCache(cache_format)
    direct = runtime.KvCache(cache_format)
    view = lambda t: TensorView(t.data_ptr(), {4: 0, 2: 1}[t.element_size()], t.stride(0), t.stride(1))  # noqa: E731
    rows = [direct.add_sequence() for _ in range(2)]
    for step, tokens in enumerate((70, 1, 1, 33)):
        k, v = states(2, tokens, dtype, 2 * step), states(2, tokens, dtype, 2 * step + 1)
        keys, values = cache.update(k, v, 1)
        assert keys.dtype == values.dtype == dtype
        for row, sequence in enumerate(rows):
            # The same tokens as fp32 to the runtime directly, read as fp32.
            wide_k, wide_v = k[row].float(), v[row].float()
            direct.append(sequence, 1, tokens, view(wide_k), view(wide_v))
            want_k, want_v = torch.empty(keys[row].shape), torch.empty(values[row].shape)
            direct.gather(sequence, 1, 0, want_k.shape[1], view(want_k), view(want_v))
            assert torch.equal(keys[row], want_k.to(dtype))
            assert torch.equal(values[row], want_v.to(dtype))


def test_only_sinks_and_window_are_exact():
    cache = RateQuantCache(bit_map(3, window=20))
    k, v = states(1, 90, torch.float16, 1), states(1, 90, torch.float16, 2)
    for got, put in zip(cache.update(k, v, 0), (k, v)):
        exact = (got == put).all(dim=(0, 1, 3))
        assert exact[:4].all() and exact[-20:].all()
        assert not exact[4:-20].any()


def test_chunks_dont_matter():
    k, v = states(1, 97, seed=1), states(1, 97, seed=2)
    whole = RateQuantCache(bit_map(2, "kivi:group_size=16")).update(k, v, 0)
    for chunk in (1, 7, 32):
        cache = RateQuantCache(bit_map(2, "kivi:group_size=16"))
        for piece_k, piece_v in zip(k.split(chunk, dim=2), v.split(chunk, dim=2)):
            got = cache.update(piece_k, piece_v, 0)
        assert torch.equal(got[0], whole[0]) and torch.equal(got[1], whole[1])


def test_tensors_are_read_where_they_lie_whatever_their_strides():
    k, v = states(2, 60, seed=1), states(2, 60, seed=2)
    want = RateQuantCache(bit_map(4)).update(k, v, 0)
    layouts = {
        "token by token": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        "channels apart": lambda t: torch.stack([t, t], dim=-1)[..., 0],
        "channels outermost": lambda t: t.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
        "every other token": lambda t: t.repeat_interleave(2, dim=2)[:, :, ::2],
    }
    for name, layout in layouts.items():
        assert torch.equal(layout(k), k)
        got = RateQuantCache(bit_map(4)).update(layout(k), layout(v), 0)
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1]), name
    broadcast = k[:, :1].expand(2, HEADS, 60, DIM)
    got = RateQuantCache(bit_map(4)).update(broadcast, v, 0)
    want = RateQuantCache(bit_map(4)).update(broadcast.contiguous(), v, 0)
    assert torch.equal(got[0], want[0])


def test_bytes_are_those_of_the_packed_format():
    cache = RateQuantCache(bit_map(2))
    assert cache.allocated_bytes() == 0
    for layer in range(LAYERS):
        cache.update(states(3, 200), states(3, 200), layer)
    assert cache.allocated_bytes() == 3 * cache.sequence_bytes(200)
    # 2 bits and an fp16 scale for each token in 6 pages of 32; 36 in fp16.
    assert cache.sequence_bytes(200) == GROUPS * (6 * 32 * (DIM * 2 // 8 + 2) + 36 * DIM * 2)


# As transformers sees it.


def test_lengths_and_mask_sizes():
    cache = RateQuantCache(bit_map())
    assert (len(cache), cache.get_seq_length(), cache.batch_size) == (LAYERS, 0, -1)
    assert not cache.is_initialized
    assert cache.get_mask_sizes(7, 0) == (7, 0)
    for layer in range(LAYERS):
        cache.update(states(2, 10), states(2, 10), layer)
    assert [cache.get_seq_length(layer) for layer in range(LAYERS)] == [10, 10]
    assert cache.get_mask_sizes(5, 1) == (15, 0)
    assert cache.get_max_length() == cache.get_max_cache_shape() == -1
    assert cache.batch_size == 2
    assert cache.is_initialized
    assert not cache.is_compileable
    assert cache.is_sliding == [False] * LAYERS


def test_an_update_without_tokens_adds_none():
    cache = RateQuantCache(bit_map())
    keys, values = cache.update(states(1, 0), states(1, 0), 0)
    assert keys.shape == values.shape == (1, HEADS, 0, DIM)
    cache.update(states(1, 5), states(1, 5), 0)
    keys, _ = cache.update(states(1, 0), states(1, 0), 0)
    assert keys.shape[2] == cache.get_seq_length() == 5


def test_reset_empties_it_for_another_batch():
    cache = RateQuantCache(bit_map())
    want = cache.update(states(2, 60), states(2, 60), 0)
    cache.reset()
    assert cache.allocated_bytes() == cache.get_seq_length() == 0
    got = cache.update(states(2, 60)[:1], states(2, 60)[:1], 0)
    assert torch.equal(got[0], want[0][:1])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda cache: cache.layers[0].crop(-2), "cropping one layer"),
        (lambda cache: cache.layers[0].reorder_cache(torch.tensor([0])), "reordering one layer"),
        (lambda cache: cache.layers[0].batch_repeat_interleave(2), "repeating rows of one layer"),
        (lambda cache: cache.layers[0].batch_select_indices(torch.tensor([0])), "selecting rows of one layer"),
        (lambda cache: cache.layers[0].reset(), "resetting one layer"),
        (lambda cache: cache.offload(0), "offloading"),
        (pickle.dumps, "pickling"),
    ],
)
def test_what_isnt_supported_says_so_and_changes_nothing(call, text):
    cache = RateQuantCache(bit_map())
    want = cache.update(states(), states(), 0)
    with pytest.raises(NotImplementedError, match=f"doesn't support .*{text}"):
        call(cache)
    got = cache.update(states(1, 0), states(1, 0), 0)
    assert torch.equal(got[0], want[0])


# Bad input.


@pytest.mark.parametrize(
    ("keys", "values", "text"),
    [
        ((1, HEADS, 4, DIM + 1), (1, HEADS, 4, DIM + 1), r"layer 0: keys of shape \[1, 2, 4, 17\].*head_dim 16"),
        ((1, HEADS + 1, 4, DIM), (1, HEADS + 1, 4, DIM), "2 KV heads"),
        ((1, HEADS, 4, DIM), (1, HEADS, 4, DIM * 2), "values of shape"),
        ((1, HEADS, 4, DIM), (1, HEADS, 5, DIM), r"values of \[1, 2, 5, 16\]"),
        ((HEADS, 4, DIM), (HEADS, 4, DIM), "keys of shape"),
    ],
)
def test_shapes_that_dont_fit_are_named(keys, values, text):
    cache = RateQuantCache(bit_map())
    with pytest.raises(ValueError, match=text):
        cache.update(torch.zeros(keys), torch.zeros(values), 0)
    assert cache.get_seq_length() == 0


def test_other_bad_updates_are_refused():
    cache = RateQuantCache(bit_map())
    with pytest.raises(TypeError, match="float64.*float32"):
        cache.update(states(dtype=torch.float64), states(dtype=torch.float64), 0)
    for layer in (-1, LAYERS):
        with pytest.raises(ValueError, match=f"layer {layer}: the bit map has 2 layers"):
            cache.update(states(), states(), layer)
    with pytest.raises(RuntimeError, match="no_grad"):
        cache.update(states().requires_grad_(), states(), 0)
    cache.update(states(2), states(2), 0)
    with pytest.raises(ValueError, match="a batch of 3; the cache holds one of 2"):
        cache.update(states(3), states(3), 0)


def test_values_that_cant_be_stored_are_named():
    cache = RateQuantCache(bit_map())
    bad = states(1, 8)
    bad[0, 1, 3, 5] = float("inf")
    with pytest.raises(KvRuntimeError, match="layer 1, head 1, V, token 3, channel 5") as caught:
        cache.update(states(1, 8), bad, 1)
    assert caught.value.code == "DATA_LOSS"
    assert cache.get_seq_length(1) == 0
    cache.update(states(1, 8), states(1, 8), 1)  # and it goes on


def test_an_update_that_failed_for_a_part_of_the_batch_ends_the_cache_until_reset():
    cache = RateQuantCache(bit_map())
    bad = states(2, 8)
    bad[1, 0, 0, 0] = float("nan")
    with pytest.raises(KvRuntimeError, match="in row 1 of a batch of 2"):
        cache.update(bad, states(2, 8), 0)
    with pytest.raises(RuntimeError, match="reset"):
        cache.update(states(2, 8), states(2, 8), 0)
    cache.reset()
    cache.update(states(2, 8), states(2, 8), 0)
    assert cache.get_seq_length() == 8


# Bit maps.


def bit_map_message(**changes) -> bit_map_pb2.BitMap:
    fields = {
        "name": "models/tiny/bitMaps/1",
        "geometry": {"layers": LAYERS, "kv_heads": HEADS, "query_heads": 4, "head_dim": DIM},
        "quantizers": [
            quantizer_pb2.Quantizer(kind="KIVI", group_size=16),
            quantizer_pb2.Quantizer(kind="TURBOQUANT", seed=3, key_scale="L2", value_scale="UNBIASED"),
            quantizer_pb2.Quantizer(kind="RTN"),
        ],
        "quantizer_index": [0, 1, 2, 0, 1, 2, 0, 1],
        "width": [2, 3, 4, 16, 5, 6, 8, 1],
        "format_version": 1,
    }
    return bit_map_pb2.BitMap(**(fields | changes))


def test_a_bit_map_from_the_allocator_and_its_description_store_the_same():
    message = bit_map_message(cache={"sink_tokens": 0, "window": 7})
    described = bit_map(
        quantizers=["kivi:group_size=16", "turboquant:seed=3", "rtn"],
        quantizer_index=list(message.quantizer_index),
        width=list(message.width),
        sink_tokens=0,
        window=7,
    )
    assert format_of(message) == format_of(described)
    k, v = states(1, 77, seed=1), states(1, 77, seed=2)
    got = RateQuantCache.from_bit_map(message).update(k, v, 0)
    want = RateQuantCache(described).update(k, v, 0)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_means_of_the_bit_map_are_stored_with_and_put_back():
    means = torch.randn(2 * LAYERS * HEADS * DIM, generator=torch.Generator().manual_seed(3)) * 4
    centred = RateQuantCache(bit_map_message(means=means.tolist()))
    k, v = states(1, 77, seed=1), states(1, 77, seed=2)
    mean = means.view(LAYERS, HEADS, 2, DIM)[0]
    got = centred.update(k, v, 0)
    want = RateQuantCache(bit_map_message()).update(k - mean[:, 0, None], v - mean[:, 1, None], 0)
    assert torch.equal(got[0], want[0] + mean[:, 0, None]) and torch.equal(got[1], want[1] + mean[:, 1, None])


def test_sinks_window_and_page_come_from_the_caller_then_the_bit_map_then_the_defaults():
    silent = format_of(bit_map_message())
    assert (silent.sink_tokens, silent.window, silent.page_tokens) == (4, 32, 32)
    said = format_of(bit_map_message(cache={"sink_tokens": 0, "window": 0, "page_tokens": 64}))
    assert (said.sink_tokens, said.window, said.page_tokens) == (0, 0, 64)
    described = format_of(bit_map(page_tokens=128))
    assert described.page_tokens == 128
    overridden = format_of(bit_map_message(cache={"page_tokens": 64}), sink_tokens=3, window=9, page_tokens=16)
    assert (overridden.sink_tokens, overridden.window, overridden.page_tokens) == (3, 9, 16)


def test_a_bit_map_of_another_format_version_is_refused():
    with pytest.raises(ValueError, match="packed format 99; the runtime has 1"):
        RateQuantCache(bit_map_message(format_version=99))


def test_a_description_without_a_part_is_refused():
    part = bit_map()
    del part["width"]
    with pytest.raises(ValueError, match="no width"):
        RateQuantCache(part)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_hidden_layers": 3}, "the model has 3, 2 and 16"),
        ({"head_dim": 32}, "the model has 2, 2 and 32"),
        ({"num_key_value_heads": 4}, "the model has 2, 4 and 16"),
        ({"num_hidden_layers": 2, "layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_a_bit_map_for_another_model_is_refused(changes, text):
    config_class = Qwen3Config if "layer_types" in changes else LlamaConfig
    with pytest.raises(ValueError, match=text):
        RateQuantCache(bit_map(), config_class(**(SHAPE | changes)))
