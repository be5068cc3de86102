"""Fitted distortion curves with the measured points."""

from __future__ import annotations

import math

from ratequant.quantizer import quantizer_name
from ratequant.report.axes import Scale, frame, log_range, log_ticks, polyline
from ratequant.report.estimate import format_value
from ratequant.report.marker import marker, marker_swatch
from ratequant.report.markup import Markup, element, join, svg, table
from ratequant.report.palette import legend
from ratequant.v1 import calibration_pb2

_PANEL_WIDTH, _HEIGHT = 500.0, 330.0
_FITTED = (2, 6)


def distortion_curves(calibration: calibration_pb2.Calibration, classes: dict[str, str]) -> Markup:
    """Mean squared error against width for every quantizer, K and V side by
    side on one logarithmic axis: points are measured, lines are the fit of
    ln D on 2 to 6 bits, dashed outside of it."""
    means = {
        quantizer_name(table.quantizer): [_mean_mse(table, tensor) for tensor in range(2)]
        for table in calibration.tables
    }
    positive = [value for pair in means.values() for series in pair for value in series.values() if value > 0]
    if not positive:
        return element("p", "This calibration has no distortion to draw.")
    y_range = log_range(positive)
    panels = [_panel(calibration, means, classes, tensor, y_range) for tensor in range(2)]
    label = "Mean squared error against bits, per quantizer: K left, V right"
    picture = svg(2 * _PANEL_WIDTH, _HEIGHT, label, *panels)
    return join(legend((name, marker_swatch(classes[name], line=True)) for name in means), picture, _fit_table(calibration))


def _mean_mse(table: calibration_pb2.DistortionTable, tensor: int) -> dict[int, float]:
    """Mean over the groups of a tensor, by width."""
    columns = len(table.widths)
    groups = range(tensor, len(table.mse) // columns, 2)
    return {
        width: math.fsum(table.mse[group * columns + column] for group in groups) / max(len(groups), 1)
        for column, width in enumerate(table.widths)
    }


def _panel(
    calibration: calibration_pb2.Calibration,
    means: dict[str, list[dict[int, float]]],
    classes: dict[str, str],
    tensor: int,
    y_range: tuple[float, float],
) -> Markup:
    left = tensor * _PANEL_WIDTH + 58
    widths = [width for pair in means.values() for width in pair[tensor]]
    x = Scale(min(widths) - 0.3, max(widths) + 0.3, left, (tensor + 1) * _PANEL_WIDTH - 16)
    y = Scale(*y_range, _HEIGHT - 48, 34, log=True)
    title = f"{('K', 'V')[tensor]}: mean squared error"
    parts = [frame(x, y, sorted(set(widths)), log_ticks(*y_range), "code width, bits", title)]
    for table in calibration.tables:
        name = quantizer_name(table.quantizer)
        fit = (table.key_fit, table.value_fit)[tensor]
        parts.append(_fit_line(fit, list(table.widths), x, y, classes[name]))
        for width, value in means[name][tensor].items():
            if value > 0:
                title = f"{name}, {width} bits: {format_value(value)}"
                parts.append(marker(x(width), y(value), classes[name], title))
    return join(*parts)


def _fit_line(fit: calibration_pb2.CurveFit, widths: list[int], x: Scale, y: Scale, class_: str) -> Markup:
    if fit.alpha <= 0 or fit.beta <= 0:
        return Markup()

    def segment(low: float, high: float, dashed: bool) -> Markup:
        if high <= low:
            return Markup()
        ends = [(bits, fit.alpha * fit.beta**-bits) for bits in (low, high)]
        # A straight line on this axis; drawn to the edge of the frame.
        points = [(x(bits), min(max(y(value), y.end), y.start)) for bits, value in ends]
        return polyline(points, class_, dashed)

    first, last = min(widths), max(widths)
    low, high = max(first, _FITTED[0]), min(last, _FITTED[1])
    return join(segment(first, low, True), segment(low, high, False), segment(high, last, True))


def _fit_table(calibration: calibration_pb2.Calibration) -> Markup:
    rows = []
    for distortion in calibration.tables:
        cells: list[object] = [quantizer_name(distortion.quantizer)]
        for fit in (distortion.key_fit, distortion.value_fit):
            cells += [format_value(fit.alpha), f"{fit.beta:.2f}", f"{fit.r2:.4f}"]
        rows.append(cells)
    return table(["fit over 2-6 bits", "K: α", "β", "R²", "V: α", "β", "R²"], rows)
