"""What `evaluate --record` tells the allocator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ratequant.evaluate.paired import paired_difference
from ratequant.evaluate.recording import record


class Recorder:
    """Stands for a client: keeps what is recorded."""

    def __init__(self):
        self.recorded = {}

    def record_evaluation(self, bit_map, evaluation):
        self.recorded[bit_map] = evaluation
        return evaluation


def _row(strategy, losses, uniform, fp, budget=3.0, **values):
    to_uniform = paired_difference(losses, uniform) if uniform is not None else (None, None)
    to_fp = paired_difference(losses, fp)
    return {
        "strategy": strategy,
        "quantizer": "kivi",
        "budget_kind": "effective_bits",
        "budget": budget,
        "bit_map": f"models/m/bitMaps/{strategy}-{budget:g}",
        "text": "held-out.txt",
        "token_digest": "ab" * 32,
        "tokens": losses.size,
        "nll": float(losses.mean()),
        "nll_diff_to_uniform": to_uniform[0],
        "nll_diff_stderr": to_uniform[1],
        "nll_diff_to_fp": to_fp[0],
        "nll_diff_to_fp_stderr": to_fp[1],
    } | values


def test_every_map_is_recorded_beside_uniform_and_full_precision():
    random = np.random.default_rng(1)
    fp = random.gamma(2.0, 1.5, (4, 200))
    uniform, mixed = fp + random.normal(0.05, 0.1, fp.shape), fp + random.normal(0.02, 0.1, fp.shape)
    rows = [
        _row("fp32", fp, None, fp, quantizer="none", budget_kind="none", bit_map=""),
        _row("uniform", uniform, uniform, fp),
        _row("loss-projected", mixed, uniform, fp),
        # Without a uniform map of the same budget there is nothing to say.
        _row("loss-projected", mixed, None, fp, budget=2.0),
    ]
    client = Recorder()
    record(client, rows)
    assert set(client.recorded) == {"models/m/bitMaps/uniform-3", "models/m/bitMaps/loss-projected-3"}
    said = client.recorded["models/m/bitMaps/loss-projected-3"]
    assert said.uniform_bit_map == "models/m/bitMaps/uniform-3"
    assert (said.text, said.text_digest, said.tokens) == ("held-out.txt", "ab" * 32, 800)
    # The allocator refuses what doesn't fit together.
    assert said.loss_minus_uniform == pytest.approx(math.log(said.perplexity / said.uniform_perplexity), abs=1e-9)
    assert said.loss_minus_fp == pytest.approx(math.log(said.perplexity / said.fp_perplexity), abs=1e-9)
    assert said.loss_minus_uniform < 0 < said.loss_minus_uniform_stderr
    itself = client.recorded["models/m/bitMaps/uniform-3"]
    assert itself.uniform_bit_map == "models/m/bitMaps/uniform-3"
    assert itself.loss_minus_uniform == 0
