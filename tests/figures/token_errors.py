"""What quantization does to the loss token by token, of which calibration keeps
the means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ratequant.cache_rows import view
from ratequant.capture.geometry import Geometry, probe_geometry
from ratequant.capture.sequence import capture_sequence
from ratequant.runtime import CacheFormat, Geometry as CacheGeometry, KvCache, Quantizer

WIDTHS = tuple(range(1, 9))


@dataclasses.dataclass(frozen=True)
class TokenErrors:
    """With e = dequantized - original and y the gradient of the summed loss,
    float32; groups are (layer, head, K before V), sinks are left out.

    Attributes:
      c2: (sum over channels of y e)^2, [quantizers, widths, groups, sequences, tokens].
      c1: sum over channels of (y e)^2, laid out as c2.
      gradient: sum over channels of y^2, [groups, sequences, tokens].
    """

    c2: np.ndarray
    c1: np.ndarray
    gradient: np.ndarray

    def save(self, path: Path) -> None:
        partial = path.with_name(f".{path.name}")
        np.savez(partial, **vars(self))
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> TokenErrors:
        with np.load(path) as arrays:
            return TokenErrors(**arrays)


def measure_token_errors(
    model: PreTrainedModel, ids: torch.Tensor, quantizers: Sequence[str], sinks: int
) -> TokenErrors:
    """Through the runtime's own caches, all tokens packed but for the sinks.

    Args:
      model: from `ratequant.capture.loading.load_model`.
      ids: int64 [sequences, tokens].
      quantizers: as texts, at WIDTHS each.
    """
    geometry = probe_geometry(model)
    groups = 2 * geometry.layers * geometry.kv_heads
    count, length = ids.shape
    c2 = np.empty((len(quantizers), len(WIDTHS), groups, count, length - sinks), np.float32)
    c1, gradient = np.empty_like(c2), np.empty(c2.shape[2:], np.float32)
    for sequence, row in enumerate(ids):
        values, gradients = _capture(model, geometry, row)
        gradient[:, sequence] = _by_token(gradients.square(), sinks)
        for q, quantizer in enumerate(quantizers):
            for w, width in enumerate(WIDTHS):
                projected = gradients * (_stored(values, geometry, Quantizer.parse(quantizer), width, sinks) - values)
                c1[q, w, :, sequence] = _by_token(projected.square(), sinks)
                c2[q, w, :, sequence] = np.square(_by_token(projected, sinks))
    return TokenErrors(c2, c1, gradient)


def _capture(model: PreTrainedModel, geometry: Geometry, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(K and V, their gradients) of a sequence, both [layers, kv_heads, 2, tokens, head_dim]."""
    values = torch.empty((geometry.layers, geometry.kv_heads, 2, len(ids), geometry.head_dim))
    gradients = torch.empty_like(values)

    def on_layer(layer: int, keys, layer_values, key_gradient, value_gradient) -> None:
        values[layer] = torch.stack((keys, layer_values), dim=1)
        gradients[layer] = torch.stack((key_gradient, value_gradient), dim=1)

    capture_sequence(model, geometry, ids, on_layer)
    return values, gradients


def _stored(
    values: torch.Tensor, geometry: Geometry, quantizer: Quantizer, width: int, sinks: int
) -> torch.Tensor:
    """What a cache gives back of K and V, [layers, kv_heads, 2, tokens, head_dim]."""
    groups = 2 * geometry.layers * geometry.kv_heads
    shape = CacheGeometry(geometry.layers, geometry.kv_heads, geometry.head_dim)
    stored = torch.empty_like(values)
    with KvCache(CacheFormat(shape, [quantizer], [0] * groups, [width] * groups, sink_tokens=sinks, window=0)) as cache:
        sequence, tokens = cache.add_sequence(), values.shape[3]
        for layer in range(geometry.layers):
            keys, layer_values = (view(values[layer, :, tensor]) for tensor in (0, 1))
            cache.append(sequence, layer, tokens, keys, layer_values)
            keys, layer_values = (view(stored[layer, :, tensor]) for tensor in (0, 1))
            cache.gather(sequence, layer, 0, tokens, keys, layer_values)
    return stored


def _by_token(values: torch.Tensor, sinks: int) -> np.ndarray:
    """Sums over channels, [groups, tokens] without sinks."""
    return values.sum(dim=-1).flatten(0, 2)[:, sinks:].numpy()
