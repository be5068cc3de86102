"""What a page is drawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ratequant.quantizer import quantizer_name
from ratequant.v1 import allocation_service_pb2, bit_map_pb2, calibration_pb2, model_pb2

# What a reader can still compare.
MOST_CALIBRATIONS, MOST_MAPS = 2, 6
_NEWCOMERS_BITS = 3.0


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything a page shows; any part may be empty, but not all.

    Attributes:
      rows: of an evaluation, fp32 first.
      calibrations: by label, one or the two to compare; of the same shape.
      bit_maps: by label, in the order they are shown; of that shape too.
      curves: by quantizer, "any" across quantizers, or by a file's name.

    Raises:
      ValueError: there is nothing, too much, or things of different shapes.
    """

    rows: list[dict] = dataclasses.field(default_factory=list)
    calibrations: dict[str, calibration_pb2.Calibration] = dataclasses.field(default_factory=dict)
    bit_maps: dict[str, bit_map_pb2.BitMap] = dataclasses.field(default_factory=dict)
    curves: dict[str, allocation_service_pb2.RateDistortionCurve] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not (self.rows or self.calibrations or self.bit_maps or self.curves):
            raise ValueError("nothing to report on: name an evaluation, a calibration, a bit map or a curve")
        for things, most, what in (
            (self.calibrations, MOST_CALIBRATIONS, "calibrations"),
            (self.bit_maps, MOST_MAPS, "bit maps"),
        ):
            if len(things) > most:
                raise ValueError(f"{len(things)} {what} ({', '.join(things)}); one page shows at most {most}")
        self._check_shapes()

    @property
    def model(self) -> str:
        """The model's id, from whatever names it first."""
        if self.rows:
            return self.rows[0]["model"]
        return next(name.split("/")[1] for name in self._names())

    @property
    def calibration(self) -> calibration_pb2.Calibration | None:
        """The first calibration."""
        return next(iter(self.calibrations.values()), None)

    @property
    def geometry(self) -> model_pb2.ModelGeometry | None:
        """The shape of the cache, where anything tells it."""
        return next((thing.geometry for _, thing in self._shaped()), None)

    @property
    def newcomers_map(self) -> int:
        """Which map to show first: the one nearest to 3 effective bits."""
        maps = list(self.bit_maps.values())
        return min(range(len(maps)), key=lambda index: abs(maps[index].effective_bits - _NEWCOMERS_BITS), default=0)

    def quantizers(self) -> Iterator[str]:
        """Everything that gets a colour, "any" first; with repetitions."""
        yield "any"
        for calibration in self.calibrations.values():
            yield from (quantizer_name(table.quantizer) for table in calibration.tables)
        for bit_map in self.bit_maps.values():
            yield from (quantizer_name(quantizer) for quantizer in bit_map.quantizers)
        yield from self.curves
        yield from (row["quantizer"] for row in self.rows if row["strategy"] != "fp32")

    def _names(self) -> Iterator[str]:
        yield from (calibration.name for calibration in self.calibrations.values())
        yield from (bit_map.name for bit_map in self.bit_maps.values())
        yield from (curve.calibration for curve in self.curves.values())

    def _shaped(self) -> Iterator[tuple[str, calibration_pb2.Calibration | bit_map_pb2.BitMap]]:
        yield from self.calibrations.items()
        yield from self.bit_maps.items()

    def _check_shapes(self) -> None:
        first = None
        for label, thing in self._shaped():
            shape = (thing.geometry.layers, thing.geometry.kv_heads, thing.geometry.head_dim)
            if first is None:
                first = (label, shape)
            elif shape != first[1]:
                raise ValueError(
                    f"'{label}' is of {_shape_text(shape)}, '{first[0]}' of {_shape_text(first[1])}: "
                    "only one model fits a page"
                )


def _shape_text(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} layers × {shape[1]} KV heads × {shape[2]} channels"
