"""Which groups a quantizer hurts: the loss-projected distortion, layer by head."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratequant.report.estimate import Estimate, format_estimate, format_value
from ratequant.report.grid import Cell, grid, group_name
from ratequant.report.markup import Markup, join, table
from ratequant.report.palette import size_class, size_scale
from ratequant.report.prediction import Prediction
from ratequant.report.tabs import tabs

_DRAWN_WIDTH = 3
_WIDTHS_IN_TEXT = (2, 3, 4)
_WORST_GROUPS = 8
# Far below the largest, everything is the same dark colour.
_MOST_DECADES = 6.0


def distortion_maps(prediction: Prediction) -> Markup:
    """A heatmap for each quantizer behind tabs, on one colour scale."""
    geometry = prediction.geometry
    groups = range(2 * geometry.layers * geometry.kv_heads)
    widths = {name: _nearest(prediction.widths(name), _DRAWN_WIDTH) for name in prediction.quantizers}
    losses = {
        name: [prediction.group_loss(name, group, width) for group in groups] for name, width in widths.items()
    }
    positive = [loss.value for series in losses.values() for loss in series if loss.value > 0]
    high = math.log10(max(positive, default=1.0))
    low = max(math.log10(min(positive, default=1.0)), high - _MOST_DECADES)
    scale = size_scale(f"{format_value(10**low)} ", f" {format_value(10**high)} nats per token")
    panels = [
        (f"{name}, {widths[name]} bits", _heatmap(prediction, name, series, low, high))
        for name, series in losses.items()
    ]
    return join(scale, tabs("distortion-map", panels))


def _heatmap(prediction: Prediction, name: str, losses: Sequence[Estimate], low: float, high: float) -> Markup:
    widths = [width for width in _WIDTHS_IN_TEXT if width in prediction.widths(name)]

    def cell(group: int) -> Cell:
        figures = "; ".join(f"{width} bits {format_estimate(prediction.group_loss(name, group, width))}" for width in widths)
        title = f"{group_name(prediction.geometry, group)}: {figures}"
        value = losses[group].value
        if value <= 0:
            return Cell("v0", "0", title)
        exponent = math.log10(value)
        part = (exponent - low) / (high - low) if high > low else 1.0
        return Cell(size_class(part), f"{exponent:.1f}".replace("-", "−"), title)

    worst = sorted(range(len(losses)), key=lambda group: -losses[group].value)[:_WORST_GROUPS]
    rows: list[list[object]] = [
        [group_name(prediction.geometry, group)]
        + [format_estimate(prediction.group_loss(name, group, width)) for width in widths]
        for group in worst
    ]
    header = ["largest, nats per token ± standard error", *(f"{width} bits" for width in widths)]
    label = f"Loss-projected distortion of every layer and head under {name}"
    return join(grid(prediction.geometry, label, cell), table(header, rows))


def _nearest(widths: Sequence[int], wanted: int) -> int:
    return min(widths, key=lambda width: abs(width - wanted))
