"""Bit maps and curves of one calibration, by the names rows use."""

from __future__ import annotations

import dataclasses

from ratequant.client import Client
from ratequant.evaluate.options import STRATEGIES
from ratequant.v1 import allocation_service_pb2, bit_map_pb2, calibration_pb2

# In place of a quantizer: each group the one that suits it.
ANY = "any"

_CURVE_POINTS = 200


@dataclasses.dataclass(frozen=True)
class MapSource:
    """Asks an allocator for what one evaluation needs.

    Attributes:
      client: of the allocator.
      model, calibration: resource names.
      quantizers: what "any" may mix.
      sinks, window, context_tokens: the cache the maps are for.
    """

    client: Client
    model: str
    calibration: str
    quantizers: tuple[str, ...]
    sinks: int
    window: int
    context_tokens: int

    def bit_map(self, quantizer: str, strategy: str, budget_kind: str, budget: float) -> bit_map_pb2.BitMap:
        """The map of a quantizer (or "any") under a row's strategy; budget_kind
        is "code_bits" or "effective_bits"."""
        objective, map_strategy = STRATEGIES[strategy]
        bit_map = self.client.get_bit_map(
            self.model,
            **{budget_kind: budget},
            objective=objective,
            strategy=map_strategy,
            keep_measured_worse=True,  # it is to be measured, not to be used
            **self._common(quantizer),
        )
        assert bit_map is not None  # no etag was sent
        return bit_map

    def curve(self, quantizer: str) -> allocation_service_pb2.RateDistortionCurve:
        """The rate-distortion curve of a quantizer, or "any"."""
        return self.client.get_rate_distortion_curve(
            self.model, max_points=_CURVE_POINTS, **self._common(quantizer)
        )

    def curves(self) -> dict[str, allocation_service_pb2.RateDistortionCurve]:
        """The curves of "any" and of every quantizer."""
        return {name: self.curve(name) for name in (ANY, *self.quantizers)}

    def full_calibration(self) -> calibration_pb2.Calibration:
        """The calibration with its tables."""
        return self.client.get_calibration(self.model, self.calibration)

    def _common(self, quantizer: str) -> dict:
        return {
            "quantizers": self.quantizers if quantizer == ANY else (quantizer,),
            "calibration": self.calibration,
            "sink_tokens": self.sinks,
            "window": self.window,
            "context_tokens": self.context_tokens,
        }
