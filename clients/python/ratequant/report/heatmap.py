"""The bit map as a picture: layer by head, K above V."""

from __future__ import annotations

from collections import Counter

from ratequant.quantizer import quantizer_name
from ratequant.report.grid import Cell, grid, group_name
from ratequant.report.markup import Markup, element, join, table
from ratequant.report.palette import legend, stripe_swatch
from ratequant.report.prediction import FP16_WIDTH
from ratequant.v1 import bit_map_pb2


def heatmap(bit_map: bit_map_pb2.BitMap, classes: dict[str, str]) -> Markup:
    """Two grids, K and V. A cell's fill and figure are its width in bits, the
    stripe under it is its quantizer. `classes` colours quantizers by name."""
    geometry = bit_map.geometry

    def cell(group: int) -> Cell:
        width, name = bit_map.width[group], choice_name(bit_map, group)
        title = f"{group_name(geometry, group)}: {name}, {width} bits"
        return Cell(f"w{width}", str(width), title, classes.get(name))

    label = f"Bits of every layer and head, K and V; {geometry.layers} layers, {geometry.kv_heads} KV heads"
    return join(_legends(bit_map, classes), grid(geometry, label, cell), _mix(bit_map))


def choice_name(bit_map: bit_map_pb2.BitMap, group: int) -> str:
    """A group's quantizer, or "fp16"."""
    if bit_map.width[group] == FP16_WIDTH:
        return "fp16"
    return quantizer_name(bit_map.quantizers[bit_map.quantizer_index[group]])


def _legends(bit_map: bit_map_pb2.BitMap, classes: dict[str, str]) -> Markup:
    widths = sorted(set(bit_map.width))
    names = [quantizer_name(quantizer) for quantizer in bit_map.quantizers]
    return element(
        "div",
        legend((f"{width} bits" if width > 1 else "1 bit", f"fill w{width}") for width in widths),
        legend((name, stripe_swatch(classes[name])) for name in names if name in classes),
        class_="legends",
    )


def _mix(bit_map: bit_map_pb2.BitMap) -> Markup:
    """How many groups each quantizer has, and their mean width."""
    groups = range(len(bit_map.width))
    rows = []
    for name in dict.fromkeys(choice_name(bit_map, group) for group in groups):
        cells: list[object] = [name]
        for tensor in range(2):
            widths = [bit_map.width[g] for g in groups if g % 2 == tensor and choice_name(bit_map, g) == name]
            cells += [f"{len(widths)}", f"{sum(widths) / len(widths):.2f}" if widths else "", _spread(widths)]
        rows.append(cells)
    header = ["quantizer", "K heads", "mean bits", "heads × bits", "V heads", "mean bits", "heads × bits"]
    return table(header, sorted(rows, key=lambda cells: str(cells[0])))


def _spread(widths: list[int]) -> str:
    return ", ".join(f"{count}×{width}" for width, count in sorted(Counter(widths).items()))
