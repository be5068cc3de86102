"""A RateQuantCache's rows as generate() moves them: cropped, copied, repeated, reordered, padded."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys

import pytest
import torch
from cache_models import LAYERS, bit_map, generate, make_model, prompt, states, streamed_logits
from transformers import DynamicCache, PreTrainedModel

from ratequant import RateQuantCache

WINDOW = 32


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return make_model()


def filled(tokens: int, batch: int = 1, quantizer: str = "turboquant", bits: int = 3) -> RateQuantCache:
    """A cache of `tokens` tokens, the first of those that `more` goes on with."""
    cache = RateQuantCache(bit_map(bits, quantizer, window=WINDOW))
    more(cache, 0, tokens, batch)
    return cache


def more(cache: RateQuantCache, first: int, end: int, batch: int = 1, seed: int = 0) -> None:
    """Appends tokens [first, end) of a sequence that `seed` names to all layers."""
    for layer in range(LAYERS):
        k, v = states(batch, 400, seed=seed + layer), states(batch, 400, seed=seed + 10 + layer)
        cache.update(k[:, :, first:end], v[:, :, first:end], layer)


def contents(cache: RateQuantCache) -> list[torch.Tensor]:
    """Everything that attention would see: K and V of every layer."""
    none = states(len(cache._rows.ids), 0)
    return [part for layer in range(LAYERS) for part in cache.update(none, none, layer)]


def assert_same(got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


# Cropping.


@pytest.mark.parametrize("quantizer", ["turboquant", "kivi:group_size=16"])
@pytest.mark.parametrize("removed", [1, 7, WINDOW])
def test_a_crop_within_the_window_leaves_no_trace(quantizer, removed):
    cache, plain = filled(150, 2, quantizer), filled(150, 2, quantizer)
    before = contents(cache)
    cache.crop(-removed)
    assert cache.get_seq_length() == 150 - removed
    assert_same(contents(cache), [part[:, :, :-removed] for part in before])
    more(cache, 150 - removed, 200, 2)
    more(plain, 150, 200, 2)
    assert_same(contents(cache), contents(plain))


def test_drafts_taken_back_for_ever_leave_no_trace():
    cache, plain = filled(40), filled(40)
    for token in range(40, 160):
        more(cache, token, token + 6, seed=77)
        cache.crop(-6)
        more(cache, token, token + 1)
        more(plain, token, token + 1)
    more(cache, 160, 170)
    more(plain, 160, 170)
    assert_same(contents(cache), contents(plain))


@pytest.mark.parametrize("keep", [0, 3, 64, 70, 100])
def test_a_deep_crop_keeps_whole_pages_and_repacks_less_than_one(keep):
    cache = filled(180)
    before = contents(cache)
    cache.crop(keep - 180)
    assert cache.get_seq_length() == keep
    pages = keep // 32 * 32
    for got, want in zip(contents(cache), before):
        assert torch.equal(got[:, :, :pages], want[:, :, :pages])
        # What is read back goes into the window in fp16.
        assert torch.allclose(got[:, :, pages:], want[:, :, pages:keep], rtol=1e-3, atol=1e-4)
    more(cache, keep, keep + 100)
    assert cache.get_seq_length() == keep + 100


@pytest.mark.parametrize("count", [1, -11, 11])
def test_a_crop_of_what_isnt_there_is_refused(count):
    cache = filled(10)
    with pytest.raises(ValueError, match=rf"crop\({count}\): the cache has 10 tokens"):
        cache.crop(count)
    cache.crop(0)
    assert cache.get_seq_length() == 10


@pytest.mark.parametrize("implementation", ["sdpa", "ratequant"])
def test_speculative_decoding_at_width_16_gives_the_stock_caches_tokens(llama, implementation):
    # A text that repeats itself, so that some drafts are taken and others not.
    ids = torch.cat([prompt(1, 20)] * 3, dim=1)
    llama.set_attn_implementation("sdpa")
    want = generate(llama, ids, DynamicCache(config=llama.config))
    llama.set_attn_implementation(implementation)
    cache = RateQuantCache(bit_map(16), llama.config)
    assert torch.equal(generate(llama, ids, cache, prompt_lookup_num_tokens=5), want)


# Copies.


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_shares_pages_and_goes_its_own_way(make):
    cache, plain = filled(150, 2), filled(150, 2)
    runtime_cache = cache._rows.cache
    free = runtime_cache.free_pages()
    other = make(cache)
    assert runtime_cache.free_pages() == free
    assert_same(contents(other), contents(cache))
    more(other, 150, 260, 2, seed=50)
    assert (other.get_seq_length(), cache.get_seq_length()) == (260, 150)
    assert_same(contents(cache), contents(plain))
    more(cache, 150, 260, 2)
    more(plain, 150, 260, 2)
    assert_same(contents(cache), contents(plain))


def test_a_copy_that_is_dropped_gives_its_pages_back():
    cache = filled(150)
    free = cache._rows.cache.free_pages()
    other = copy.deepcopy(cache)
    more(other, 150, 300)
    assert cache._rows.cache.free_pages() < free
    del other
    gc.collect()
    assert cache._rows.cache.free_pages() == free


@pytest.mark.parametrize("implementation", ["sdpa", "ratequant"])
def test_a_prompts_cache_is_used_again(llama, implementation):
    llama.set_attn_implementation(implementation)
    start = prompt(1, 70)
    prefix = RateQuantCache(bit_map(16), llama.config)
    with torch.inference_mode():
        llama(input_ids=start, past_key_values=prefix)
    for seed in (1, 2):
        ids = torch.cat([start, prompt(1, 10).roll(seed, dims=1)], dim=1)
        got = generate(llama, ids, copy.deepcopy(prefix))
        llama.set_attn_implementation("sdpa")
        want = generate(llama, ids, DynamicCache(config=llama.config))
        llama.set_attn_implementation(implementation)
        assert torch.equal(got, want)
    assert prefix.get_seq_length() == 70


# Rows.


def test_rows_are_selected_repeated_and_reordered():
    cache = filled(100, 3)
    rows = contents(cache)
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    assert_same(contents(cache), [part[[2, 0, 0]] for part in rows])
    cache.batch_repeat_interleave(2)
    assert cache.batch_size == 6
    assert_same(contents(cache), [part[[2, 2, 0, 0, 0, 0]] for part in rows])
    cache.batch_select_indices(torch.tensor([True, False, True, False, False, False]))
    assert cache.batch_size == 2
    assert_same(contents(cache), [part[[2, 0]] for part in rows])
    more(cache, 100, 160, 2)
    assert cache.get_seq_length() == 160


def test_an_empty_cache_has_no_rows_to_move():
    cache = RateQuantCache(bit_map())
    cache.reorder_cache(torch.tensor([0, 0]))
    cache.batch_repeat_interleave(4)
    assert cache.batch_size == -1


@pytest.mark.parametrize("implementation", ["sdpa", "ratequant"])
@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search_at_width_16_equals_the_stock_caches(llama, implementation, beams):
    ids = prompt(2, 60)
    llama.set_attn_implementation("sdpa")
    want = generate(llama, ids, DynamicCache(config=llama.config), num_beams=beams)
    llama.set_attn_implementation(implementation)
    cache = RateQuantCache(bit_map(16), llama.config)
    assert torch.equal(generate(llama, ids, cache, num_beams=beams), want)


@pytest.mark.parametrize("implementation", ["sdpa", "ratequant"])
def test_left_padding_at_width_16_equals_the_stock_caches(llama, implementation):
    ids = prompt(3, 60)
    mask = torch.ones_like(ids)
    mask[0, :33] = mask[2, :5] = 0
    llama.set_attn_implementation("sdpa")
    want = generate(llama, ids, DynamicCache(config=llama.config), attention_mask=mask)
    llama.set_attn_implementation(implementation)
    cache = RateQuantCache(bit_map(16), llama.config)
    assert torch.equal(generate(llama, ids, cache, attention_mask=mask), want)


@pytest.mark.parametrize("implementation", ["sdpa", "ratequant"])
def test_a_compiled_model_gets_the_same(llama, implementation):
    llama.set_attn_implementation(implementation)
    compiled = torch.compile(llama, backend="eager")
    want, got = (RateQuantCache(bit_map(4), llama.config) for _ in range(2))
    ids = prompt(1, 45)
    with torch.inference_mode():
        for piece in ids.split([40] + [1] * 5, dim=1):
            expected = llama(input_ids=piece, past_key_values=want).logits
            assert torch.equal(compiled(input_ids=piece, past_key_values=got).logits, expected)


def test_streaming_in_a_batch_equals_rows_alone(llama):
    llama.set_attn_implementation("sdpa")
    ids = prompt(2, 100)
    both = streamed_logits(llama, ids, RateQuantCache(bit_map(4), llama.config))
    for row in range(2):
        alone = streamed_logits(llama, ids[row : row + 1], RateQuantCache(bit_map(4), llama.config))
        assert torch.allclose(both[row], alone[0], atol=1e-4)


# Memory.

MEMORY = """
import ctypes

import torch
from ratequant import RateQuantCache

layers, heads, dim, tokens = 16, 4, 64, 8192
groups = layers * heads * 2
# turboquant has 16 bits a token beside its codes: 0.25 of an element's.
bit_map = {
    "geometry": {"layers": layers, "kv_heads": heads, "head_dim": dim},
    "quantizers": ["turboquant"],
    "quantizer_index": [0] * groups,
    "width": ([2, 3, 3, 3] * groups)[:groups],
}

def resident():
    ctypes.CDLL(None).malloc_trim(0)  # without what was read back and dropped
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0]) * 1024

piece = torch.randn(1, heads, 256, dim)
RateQuantCache(bit_map).update(piece, piece, 0)  # what is loaded once
cache = RateQuantCache(bit_map)
before = resident()
for _ in range(tokens // 256):
    for layer in range(layers):
        cache.update(piece, piece, layer)
print(resident() - before, cache.allocated_bytes(), cache.sequence_bytes(tokens), groups * dim * tokens)
"""


def test_three_effective_bits_at_8k_tokens_take_less_than_a_4_5th_of_fp16s_memory():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    resident, allocated, budget, elements = map(int, done.stdout.split())
    assert 2.9 < 8 * budget / elements < 3.1
    fp16 = 2 * elements
    assert fp16 / allocated >= 4.5
    # What the process really takes, codebooks, tables and the allocator's slack included.
    assert fp16 / resident >= 4.5
