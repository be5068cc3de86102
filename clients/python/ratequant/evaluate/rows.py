"""The rows of an evaluation: what scripts read."""

from __future__ import annotations

import math
import pathlib

import numpy as np

from ratequant.evaluate.configurations import Configuration
from ratequant.evaluate.options import BASELINE, EvaluateOptions
from ratequant.evaluate.paired import paired_difference
from ratequant.v1 import bit_map_pb2, calibration_pb2

# Stands for fp32 among the names of bit maps.
FP32_MAP = ""


class RowBuilder:
    """Builds rows that share a model, a text and a calibration.

    The keys up to "nll_diff_stderr", and their order, are what scripts rely on;
    those after it may grow. Losses are in nats per token.
    """

    def __init__(
        self,
        options: EvaluateOptions,
        calibration: calibration_pb2.Calibration,
        token_digest: str,
        losses: dict[str, np.ndarray],
    ):
        """`losses` are by bit map name; FP32_MAP's are among them."""
        self._geometry = calibration.geometry
        self._losses = losses
        self._first = {
            "model": options.model_name.removeprefix("models/"),
            "text": pathlib.Path(options.eval_text).name,
        }
        self._last = {
            "calibration": calibration.name,
            "token_digest": token_digest,
            "sinks": options.sinks,
            "window": options.window,
            "context_tokens": options.context_tokens,
        }

    def baseline(self) -> dict:
        """The row of fp32: no quantizer, no budget, nothing to compare with."""
        elements = self._geometry.layers * self._geometry.kv_heads * 2 * self._geometry.head_dim
        size = {"code_bits": 32.0, "effective_bits": 32.0, "bytes_per_token": 4.0 * elements}
        budget = {"budget_kind": "none", "budget": None}
        return self._assemble({"quantizer": "none", "strategy": BASELINE}, size, FP32_MAP, None, budget)

    def row(
        self, configuration: Configuration, bit_map: bit_map_pb2.BitMap, uniform: bit_map_pb2.BitMap | None
    ) -> dict:
        """The row of one configuration; `uniform` is what it is compared with."""
        name = {"quantizer": configuration.quantizer, "strategy": configuration.strategy}
        size = {key: getattr(bit_map, key) for key in ("code_bits", "effective_bits", "bytes_per_token")}
        budget = {"budget_kind": configuration.budget_kind, "budget": configuration.budget}
        return self._assemble(name, size, bit_map.name, uniform.name if uniform is not None else None, budget)

    def _assemble(self, name: dict, size: dict, bit_map: str, uniform: str | None, budget: dict) -> dict:
        losses = self._losses[bit_map]
        to_uniform, to_uniform_stderr = (
            (None, None) if uniform is None else paired_difference(losses, self._losses[uniform])
        )
        to_fp, to_fp_stderr = paired_difference(losses, self._losses[FP32_MAP])
        return {
            **self._first,
            **name,
            **size,
            "tokens": int(losses.size),
            "perplexity": math.exp(losses.mean()),
            "nll_diff_to_uniform": to_uniform,
            "nll_diff_stderr": to_uniform_stderr,
            **budget,
            "bit_map": bit_map,
            "nll": float(losses.mean()),
            "nll_diff_to_fp": to_fp,
            "nll_diff_to_fp_stderr": to_fp_stderr,
            **self._last,
        }
