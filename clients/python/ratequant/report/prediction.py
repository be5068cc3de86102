"""What a calibration predicts: the loss and the bytes of maps and of uniform widths."""

from __future__ import annotations

import dataclasses

from ratequant.quantizer import quantizer_name
from ratequant.report.estimate import Estimate
from ratequant.v1 import bit_map_pb2, calibration_pb2

FP16_WIDTH = 16
# Used where no map says otherwise; the allocator's own.
_DEFAULT_WINDOW, _DEFAULT_CONTEXT = 32, 4096


@dataclasses.dataclass(frozen=True)
class UniformPoint:
    """A quantizer at one width everywhere."""

    width: int
    effective_bits: float
    loss: Estimate


class Prediction:
    """Reads a calibration's tables; losses are halves of the loss-projected
    distortion c2, in nats per token. A group is [layer][KV head][K, V]."""

    def __init__(self, calibration: calibration_pb2.Calibration):
        self.geometry = calibration.geometry
        self._sinks = calibration.capture.sink_tokens
        self._tables = {quantizer_name(table.quantizer): table for table in calibration.tables}
        self._columns = {
            name: {width: column for column, width in enumerate(table.widths)} for name, table in self._tables.items()
        }

    @property
    def quantizers(self) -> list[str]:
        """Names of the quantizers that were measured."""
        return list(self._tables)

    def widths(self, quantizer: str) -> list[int]:
        """The widths a quantizer was measured at, ascending."""
        return list(self._columns[quantizer])

    def knows(self, bit_map: bit_map_pb2.BitMap) -> bool:
        """Whether every group's quantizer and width were measured."""
        columns = [self._columns.get(quantizer_name(quantizer), {}) for quantizer in bit_map.quantizers]
        choices = zip(bit_map.quantizer_index, bit_map.width, strict=True)
        return all(width == FP16_WIDTH or width in columns[index] for index, width in choices)

    def group_loss(self, quantizer: str, group: int, width: int) -> Estimate:
        """What one group adds to the loss."""
        if width == FP16_WIDTH:
            return Estimate(0.0, 0.0)
        table = self._tables[quantizer]
        columns = self._columns[quantizer]
        entry = group * len(columns) + columns[width]
        stderr = table.c2_standard_error[entry] / 2 if table.c2_standard_error else None
        return Estimate(table.c2[entry] / 2, stderr)

    def map_losses(self, bit_map: bit_map_pb2.BitMap) -> list[Estimate]:
        """What each group of a known map adds to the loss."""
        names = [quantizer_name(quantizer) for quantizer in bit_map.quantizers]
        choices = zip(bit_map.quantizer_index, bit_map.width, strict=True)
        return [self.group_loss(names[index], group, width) for group, (index, width) in enumerate(choices)]

    def map_bits(self, bit_map: bit_map_pb2.BitMap) -> list[float]:
        """Bits per element of each group's packed pages: codes, scales, zero
        points, norms and padding, without sinks and window."""
        names = [quantizer_name(quantizer) for quantizer in bit_map.quantizers]
        choices = zip(bit_map.quantizer_index, bit_map.width, strict=True)
        return [self._page_bits(names[index], group % 2, width) for group, (index, width) in enumerate(choices)]

    def uniform(self, quantizer: str, cache: bit_map_pb2.CacheConfig) -> list[UniformPoint]:
        """A quantizer at each of its widths, sinks and window counted as
        CacheConfig says."""
        groups = range(2 * self.geometry.layers * self.geometry.kv_heads)
        points = []
        for width in self.widths(quantizer):
            packed = sum(self._page_bits(quantizer, tensor, width) for tensor in range(2)) / 2
            loss = Estimate.total(self.group_loss(quantizer, group, width) for group in groups)
            points.append(UniformPoint(width, self._with_window(quantizer, packed, cache), loss))
        return points

    def _page_bits(self, quantizer: str, tensor: int, width: int) -> float:
        if width == FP16_WIDTH:
            return float(FP16_WIDTH)
        table = self._tables[quantizer]
        sizes = (table.key_page_bytes, table.value_page_bytes)[tensor]
        return 8.0 * sizes[self._columns[quantizer][width]] / (table.page_tokens * self.geometry.head_dim)

    def _with_window(self, quantizer: str, packed: float, cache: bit_map_pb2.CacheConfig) -> float:
        context = cache.context_tokens or _DEFAULT_CONTEXT
        window = cache.window if cache.HasField("window") else _DEFAULT_WINDOW
        page = self._tables[quantizer].page_tokens
        pages = -(-max(0, context - window) // page)
        return (pages * page * packed + min(context, self._sinks + window) * FP16_WIDTH) / context
