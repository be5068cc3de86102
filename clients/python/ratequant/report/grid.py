"""A cell for every layer and KV head, K above V."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ratequant.report.markup import Markup, element, join, svg, tooltip
from ratequant.v1 import model_pb2

_WIDTH = 1000.0
_LEFT = 76.0
_LARGEST_CELL = 30.0
_SMALLEST_CELL_WITH_TEXT = 17.0
_SMALLEST_CELL_WITH_GAP = 8.0
_LARGEST_STRIPE = 5.0
# A figure of so many characters fits a small cell; a longer one a large one only.
_SHORT_TEXT = 2
_LONG_TEXT_CELL = 26.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """One group.

    Attributes:
      colour: CSS class that fills the cell, and "on-" before it its text.
      text: a few characters, drawn where the cell has room for them.
      title: what the pointer shows.
      stripe: CSS class of a stripe under the cell, or none.
    """

    colour: str
    text: str
    title: str
    stripe: str | None = None


def group_name(geometry: model_pb2.ModelGeometry, group: int) -> str:
    """ "layer 3, head 1, K", of a group in group order."""
    layer, rest = divmod(group, 2 * geometry.kv_heads)
    return f"layer {layer}, head {rest // 2}, {'KV'[rest % 2]}"


def grid(geometry: model_pb2.ModelGeometry, label: str, cell_of: Callable[[int], Cell]) -> Markup:
    """Two panels, K and V, of layers by heads. `cell_of` gets a group's index
    in group order; `label` describes the picture."""
    size = min(_LARGEST_CELL, (_WIDTH - _LEFT) / geometry.layers)
    row = size + min(_LARGEST_STRIPE, 2 + size * 0.16)
    panel = geometry.kv_heads * row + 30
    parts = [_panel(geometry, cell_of, tensor, size, row, 8 + tensor * panel) for tensor in range(2)]
    bottom = 8 + 2 * panel - 14
    for layer in range(0, geometry.layers, 1 if size >= 18 else 5):
        parts.append(element("text", layer, x=_LEFT + (layer + 0.5) * size, y=bottom, class_="tick middle"))
    parts.append(element("text", "layer", x=_LEFT - 8, y=bottom, class_="tick end"))
    # Short models aren't blown up to the whole column.
    return svg(max(_LEFT + geometry.layers * size + 4, _WIDTH), bottom + 8, label, *parts)


def _panel(
    geometry: model_pb2.ModelGeometry,
    cell_of: Callable[[int], Cell],
    tensor: int,
    size: float,
    row: float,
    top: float,
) -> Markup:
    parts = [element("text", "KV"[tensor], x=4, y=top + geometry.kv_heads * row / 2 + 6, class_="panel")]
    for head in range(0, geometry.kv_heads, max(1, round(12 / row))):
        text = f"head {head}" if head == 0 else str(head)
        parts.append(element("text", text, x=_LEFT - 8, y=top + head * row + size / 2 + 4, class_="tick end"))
    for layer in range(geometry.layers):
        for head in range(geometry.kv_heads):
            cell = cell_of((layer * geometry.kv_heads + head) * 2 + tensor)
            parts.append(_cell(cell, _LEFT + layer * size, top + head * row, size, row))
    return join(*parts)


def _cell(cell: Cell, x: float, y: float, size: float, row: float) -> Markup:
    side = size - (1.0 if size >= _SMALLEST_CELL_WITH_GAP else 0.0)
    parts = [tooltip(cell.title), element("rect", x=x, y=y, width=side, height=side, class_=cell.colour)]
    if cell.stripe:
        height = row - size - 2
        level = y + size + height / 2
        path = element("path", d=f"M{x:.1f},{level:.1f}h{side:.1f}", stroke_width=height, class_=f"stripe {cell.stripe}")
        parts.append(path)
    long = len(cell.text) > _SHORT_TEXT
    if cell.text and size >= (_LONG_TEXT_CELL if long else _SMALLEST_CELL_WITH_TEXT):
        class_ = f"cell{' long' if long else ''} on-{cell.colour}"
        parts.append(element("text", cell.text, x=x + side / 2, y=y + size / 2 + 4, class_=class_))
    return element("g", *parts)
