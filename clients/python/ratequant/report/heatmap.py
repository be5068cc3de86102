"""The bit map as a picture: layer by head, K above V."""

from __future__ import annotations

from collections import Counter

from ratequant.quantizer import quantizer_name
from ratequant.report.markup import Markup, element, join, svg, table, tooltip
from ratequant.report.palette import legend
from ratequant.v1 import bit_map_pb2

_WIDTH = 1000.0
_LEFT = 64.0
_LARGEST_CELL = 30.0
_SMALLEST_CELL_WITH_TEXT = 17.0
_LARGEST_STRIPE = 5.0
_FP16_WIDTH = 16


def heatmap(bit_map: bit_map_pb2.BitMap, classes: dict[str, str]) -> Markup:
    """Two grids, K and V. A cell's fill and figure are its width in bits, the
    stripe under it is its quantizer. `classes` colours quantizers by name."""
    geometry = bit_map.geometry
    cell = min(_LARGEST_CELL, (_WIDTH - _LEFT) / geometry.layers)
    row = cell + _stripe(cell)
    panel = geometry.kv_heads * row + 30
    parts = [
        _panel(bit_map, classes, tensor, cell, row, 8 + tensor * panel) for tensor in range(2)
    ]
    bottom = 8 + 2 * panel - 14
    step = 1 if cell >= 18 else 5
    for layer in range(0, geometry.layers, step):
        parts.append(
            element("text", layer, x=_LEFT + (layer + 0.5) * cell, y=bottom, class_="tick middle")
        )
    parts.append(element("text", "layer", x=_LEFT - 8, y=bottom, class_="tick end"))
    label = f"Bits of every layer and head, K and V; {geometry.layers} layers, {geometry.kv_heads} KV heads"
    width = _LEFT + geometry.layers * cell + 4
    # Short models aren't blown up to the whole column.
    picture = svg(max(width, _WIDTH), bottom + 8, label, *parts)
    return join(_legends(bit_map, classes), picture, _mix(bit_map))


def _panel(
    bit_map: bit_map_pb2.BitMap, classes: dict[str, str], tensor: int, cell: float, row: float, top: float
) -> Markup:
    geometry = bit_map.geometry
    parts = [element("text", "KV"[tensor], x=4, y=top + geometry.kv_heads * row / 2 + 6, class_="panel")]
    every = max(1, round(12 / row))
    for head in range(0, geometry.kv_heads, every):
        text = f"head {head}" if head == 0 else str(head)
        parts.append(element("text", text, x=_LEFT - 8, y=top + head * row + cell / 2 + 4, class_="tick end"))
    for layer in range(geometry.layers):
        for head in range(geometry.kv_heads):
            parts.append(
                _cell(bit_map, classes, layer, head, tensor, _LEFT + layer * cell, top + head * row, cell)
            )
    return join(*parts)


def _cell(
    bit_map: bit_map_pb2.BitMap,
    classes: dict[str, str],
    layer: int,
    head: int,
    tensor: int,
    x: float,
    y: float,
    size: float,
) -> Markup:
    group = (layer * bit_map.geometry.kv_heads + head) * 2 + tensor
    width = bit_map.width[group]
    name = _name(bit_map, group)
    gap = 1.0 if size >= 8 else 0.0
    parts = [
        tooltip(f"layer {layer}, head {head}, {'KV'[tensor]}: {name}, {width} bits"),
        element("rect", x=x, y=y, width=size - gap, height=size - gap, class_=f"w{width}"),
    ]
    if name in classes:
        stripe = element("rect", x=x, y=y + size, width=size - gap, height=_stripe(size) - 2, class_=f"fill {classes[name]}")
        parts.append(stripe)
    if size >= _SMALLEST_CELL_WITH_TEXT:
        middle = x + (size - gap) / 2
        parts.append(element("text", width, x=middle, y=y + size / 2 + 4, class_=f"cell t{width}"))
    return element("g", *parts)


def _stripe(cell: float) -> float:
    """Height of a quantizer's stripe with the gap under it."""
    return min(_LARGEST_STRIPE, 2 + cell * 0.16)


def _name(bit_map: bit_map_pb2.BitMap, group: int) -> str:
    if bit_map.width[group] == _FP16_WIDTH:
        return "fp16"
    return quantizer_name(bit_map.quantizers[bit_map.quantizer_index[group]])


def _legends(bit_map: bit_map_pb2.BitMap, classes: dict[str, str]) -> Markup:
    widths = sorted(set(bit_map.width))
    names = [quantizer_name(quantizer) for quantizer in bit_map.quantizers]
    return element(
        "div",
        legend((f"{width} bits" if width > 1 else "1 bit", f"fill w{width}") for width in widths),
        legend((name, f"fill {classes[name]}") for name in names if name in classes),
        class_="legends",
    )


def _mix(bit_map: bit_map_pb2.BitMap) -> Markup:
    """How many groups each quantizer has, and their mean width."""
    groups = range(len(bit_map.width))
    rows = []
    for name in dict.fromkeys(_name(bit_map, group) for group in groups):
        cells: list[object] = [name]
        for tensor in range(2):
            widths = [bit_map.width[g] for g in groups if g % 2 == tensor and _name(bit_map, g) == name]
            cells += [f"{len(widths)}", f"{sum(widths) / len(widths):.2f}" if widths else "", _spread(widths)]
        rows.append(cells)
    header = ["quantizer", "K heads", "mean bits", "heads × bits", "V heads", "mean bits", "heads × bits"]
    return table(header, sorted(rows, key=lambda cells: str(cells[0])))


def _spread(widths: list[int]) -> str:
    return ", ".join(f"{count}×{width}" for width, count in sorted(Counter(widths).items()))
