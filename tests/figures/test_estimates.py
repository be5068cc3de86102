"""The estimates' variants of tables, and their table of results."""

from __future__ import annotations

import numpy as np
import pytest

from estimates import BASE, BUDGETS, estimates_table, expected_loss
from figures import QUANTIZERS
from ratequant.quantizer import parse_quantizer
from ratequant.v1.bit_map_pb2 import BitMap
from table_variants import (
    clipped_by_sequence, clipped_by_token, geometric_mean_of_sequences, layer_means, means, median_of_sequences,
    shrunk, toward_c1, winsorised, without_first,
)  # fmt: skip
from token_errors import TokenErrors

LAYERS, HEADS, WIDTHS, SEQUENCES, TOKENS = 3, 2, 8, 4, 100
GROUPS = 2 * LAYERS * HEADS


@pytest.fixture
def errors() -> TokenErrors:
    """Heavy-tailed, about 4^-width, of 2 quantizers."""
    generator = np.random.default_rng(3)
    scale = 4.0 ** -np.arange(1, WIDTHS + 1)[:, None, None, None]
    c1 = scale * generator.lognormal(0, 2, (2, WIDTHS, GROUPS, SEQUENCES, TOKENS))
    c2 = c1 * generator.chisquare(1, c1.shape)
    gradient = generator.lognormal(0, 1, (GROUPS, SEQUENCES, TOKENS))
    return TokenErrors(c2.astype(np.float32), c1.astype(np.float32), gradient.astype(np.float32))


def test_groups_that_are_shrunk_keep_their_levels_and_take_the_mean_shape(errors):
    c2 = means(errors)
    before, half, whole = np.log(c2), np.log(shrunk(c2, 0.5)), np.log(shrunk(c2, 1.0))
    np.testing.assert_allclose(half.mean(axis=1), before.mean(axis=1))
    for tensor in (0, 1):
        steps = np.diff(whole[..., tensor::2], axis=1)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[..., :1], steps.shape))
        np.testing.assert_allclose(steps[..., 0], np.diff(before[..., tensor::2], axis=1).mean(axis=-1))
    np.testing.assert_allclose(half, (before + whole) / 2)
    np.testing.assert_allclose(shrunk(c2, 0.0), c2)


def test_heads_of_a_layer_share_its_mean(errors):
    before = means(errors).reshape(2, WIDTHS, LAYERS, HEADS, 2)
    after = layer_means(means(errors), HEADS).reshape(before.shape)
    np.testing.assert_allclose(after[..., 0, :], before.mean(axis=3))
    np.testing.assert_array_equal(after[..., 0, :], after[..., 1, :])


def test_c1_takes_the_place_of_c2_at_its_level(errors):
    c2, c1 = means(errors), errors.c1.mean(axis=(-2, -1), dtype=np.float64)
    np.testing.assert_allclose(toward_c1(errors, 0.0), c2)
    whole, half = toward_c1(errors, 1.0), toward_c1(errors, 0.5)
    np.testing.assert_allclose(half, np.sqrt(c2 * whole))
    for tensor in (0, 1):
        factor = (whole / c1)[..., tensor::2]
        np.testing.assert_allclose(factor, np.broadcast_to(factor[..., :1], factor.shape))
        np.testing.assert_allclose(np.log(whole / c2)[..., tensor::2].mean(axis=-1), 0.0, atol=1e-9)


def test_one_token_far_off_moves_only_the_mean(errors):
    spoilt = TokenErrors(errors.c2.copy(), errors.c1, errors.gradient)
    spoilt.c2[0, 2, 5, 1, 17] = 1e6
    at = (0, 2, 5)
    assert means(spoilt)[at] > 1000 * means(errors)[at]
    assert winsorised(spoilt, 0.99)[at] < 1.2 * winsorised(errors, 0.99)[at]
    assert median_of_sequences(spoilt, SEQUENCES)[at] < 2 * median_of_sequences(errors, SEQUENCES)[at]
    np.testing.assert_allclose(median_of_sequences(errors, 1), means(errors))
    np.testing.assert_allclose(winsorised(errors, 1.0), means(errors))
    by_sequence = errors.c2.mean(axis=-1, dtype=np.float64)
    np.testing.assert_allclose(geometric_mean_of_sequences(errors), by_sequence.prod(axis=-1) ** (1 / SEQUENCES))


def test_the_first_tokens_of_every_sequence_are_left_out(errors):
    np.testing.assert_allclose(without_first(errors, 40), errors.c2[..., 40:].mean(axis=(-2, -1)), rtol=1e-5)


def test_a_clipped_gradient_counts_for_less(errors):
    np.testing.assert_allclose(clipped_by_token(errors, 1.0), means(errors), rtol=1e-5)
    gradient = np.ones((GROUPS, SEQUENCES, TOKENS), np.float32)
    gradient[:, 0, 0] = 4.0  # squared
    flat = TokenErrors(np.ones_like(errors.c2), errors.c1, gradient)
    np.testing.assert_allclose(clipped_by_token(flat, 0.5), 1 - 0.75 / (SEQUENCES * TOKENS), rtol=1e-6)
    gradient = np.ones((GROUPS, SEQUENCES, TOKENS), np.float32)
    gradient[:, 3] = 2.0
    flat = TokenErrors(np.ones_like(errors.c2), errors.c1, gradient)
    np.testing.assert_allclose(clipped_by_sequence(flat), 1 - 0.5 / SEQUENCES, rtol=1e-6)


def test_a_map_costs_half_of_what_its_choices_lose():
    c2 = np.arange(4 * WIDTHS * 4, dtype=float).reshape(4, WIDTHS, 4)
    kinds = ("turboquant", "kivi")
    bit_map = BitMap(
        quantizers=[parse_quantizer(kind) for kind in kinds], quantizer_index=[0, 1, 1, 0], width=[1, 2, 3, 8]
    )
    turboquant, kivi = (QUANTIZERS.index(kind) for kind in kinds)
    expected = c2[turboquant, 0, 0] + c2[kivi, 1, 1] + c2[kivi, 2, 2] + c2[turboquant, 7, 3]
    assert expected_loss(c2, bit_map) == expected / 2


def test_results_are_a_line_for_each_variant_and_slice():
    rows = [
        {"variant": name, "slice": part, "quantizer": q, "effective_bits": bits, "perplexity": 30.0,
         "increase": 0.05, "nll_diff": -0.01, "nll_diff_stderr": 0.004, "expected_on_fresh_tokens": loss}
        for part in ("B", None) for name, loss in ((BASE, 0.5), ("other", 0.4)) for q, bits in BUDGETS
    ]  # fmt: skip
    lines = estimates_table(rows).splitlines()[-4:]
    assert lines[0].startswith(f"| B | {BASE} | +5.0% |")
    assert "| B | other | +5.0% (-0.0100 ± 0.0040) |" in lines[1]
    assert lines[2].startswith(f"| fresh | {BASE} | 0.5000 |")
    assert "| fresh | other | 0.4000 (-20.0%) |" in lines[3]
