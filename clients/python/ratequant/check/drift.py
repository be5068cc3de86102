"""Compares a stored calibration with what new text shows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ratequant.quantizer import quantizer_name
from ratequant.v1 import bit_map_pb2, calibration_pb2

_FP16_WIDTH = 16


class Losses:
    """Predicted loss of bit maps under one calibration's tables: half the sum of c2 (loss-projected), in nats per token."""

    def __init__(self, calibration: calibration_pb2.Calibration) -> None:
        groups = 2 * calibration.geometry.layers * calibration.geometry.kv_heads
        self._tables = {
            quantizer_name(table.quantizer): (list(table.widths), np.reshape(table.c2, (groups, len(table.widths))))
            for table in calibration.tables
        }

    def c2(self, name: str, width: int) -> np.ndarray:
        """[groups] of one quantizer and width.

        Raises:
          ValueError: it wasn't measured.
        """
        widths, table = self._tables.get(name, ([], None))
        if width not in widths:
            raise ValueError(f"{name} at {width} bits wasn't measured on the new text")
        return table[:, widths.index(width)]

    def of_groups(self, bit_map: bit_map_pb2.BitMap) -> np.ndarray:
        """[groups] the predicted loss of a map; 0 for groups in fp16."""
        names = [quantizer_name(quantizer) for quantizer in bit_map.quantizers]
        losses = np.zeros(len(bit_map.width))
        for group, width in enumerate(bit_map.width):
            if width != _FP16_WIDTH:
                losses[group] = 0.5 * self.c2(names[bit_map.quantizer_index[group]], width)[group]
        return losses

    def formats(self) -> list[tuple[str, int]]:
        """Every quantizer and width that was measured."""
        return [(name, width) for name, (widths, _) in self._tables.items() for width in widths]


@dataclasses.dataclass(frozen=True)
class GroupDrift:
    """How one group's predicted loss under the stored map changed: `ratio` is new over stored."""

    layer: int
    head: int
    tensor: str
    ratio: float


@dataclasses.dataclass(frozen=True)
class Drift:
    """What a check found.

    Attributes:
      rank_correlation: Spearman's, of groups by c2 on the stored and the new text, median over quantizers and widths.
      stored_loss, new_loss: predicted loss on the new text of the stored map, and of maps made for the new text, in nats
        per token. The new maps are made on one half of the new text and judged on the other, so that they don't profit
        from its noise.
      excess: stored_loss / new_loss - 1. Below 0 when the stored calibration, from more text, is the better guide.
      groups: the groups whose loss changed most, at most ten.
    """

    rank_correlation: float
    stored_loss: float
    new_loss: float
    excess: float
    groups: tuple[GroupDrift, ...]


def compare(
    stored: calibration_pb2.Calibration,
    stored_map: bit_map_pb2.BitMap,
    halves: Sequence[calibration_pb2.Calibration],
    half_maps: Sequence[bit_map_pb2.BitMap],
) -> Drift:
    """Judges `stored_map`, made from `stored`, on two halves of new text, beside the map that each half makes for the other.

    Raises:
      ValueError: the calibrations are of other models, or don't have the maps' quantizers.
    """
    for half in halves:
        _check_same_model(stored, half)
    old, new = Losses(stored), [Losses(half) for half in halves]
    stored_loss = np.mean([losses.of_groups(stored_map).sum() for losses in new])
    new_loss = np.mean([new[1 - i].of_groups(half_map).sum() for i, half_map in enumerate(half_maps)])
    after = np.mean([losses.of_groups(stored_map) for losses in new], axis=0)
    return Drift(
        rank_correlation=_rank_correlation(old, new),
        stored_loss=float(stored_loss),
        new_loss=float(new_loss),
        excess=float(stored_loss / new_loss - 1),
        groups=_most_changed(stored.geometry.kv_heads, old.of_groups(stored_map), after),
    )


def _check_same_model(stored: calibration_pb2.Calibration, new: calibration_pb2.Calibration) -> None:
    if stored.geometry != new.geometry:
        raise ValueError(f"the calibration is of a model with another geometry:\n{stored.geometry}not\n{new.geometry}")
    old, fresh = stored.capture.model_digest, new.capture.model_digest
    if old and fresh and old != fresh:
        raise ValueError(f"the calibration is of other model files: their digest is {old[:12]}…, not {fresh[:12]}…")


def _rank_correlation(old: Losses, new: Sequence[Losses]) -> float:
    correlations = []
    for name, width in set(old.formats()).intersection(*(losses.formats() for losses in new)):
        mean = np.mean([losses.c2(name, width) for losses in new], axis=0)
        correlations.append(np.corrcoef(_ranks(old.c2(name, width)), _ranks(mean))[0, 1])
    return float(np.median(correlations))


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


def _most_changed(kv_heads: int, before: np.ndarray, after: np.ndarray) -> tuple[GroupDrift, ...]:
    changes = [
        GroupDrift(group // (2 * kv_heads), group // 2 % kv_heads, "KV"[group % 2], float(after[group] / before[group]))
        for group in range(len(before))
        if before[group] > 0 and after[group] > 0
    ]
    return tuple(sorted(changes, key=lambda change: -abs(math.log(change.ratio)))[:10])
