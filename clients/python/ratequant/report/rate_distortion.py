"""Predicted loss against cost, for every budget at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ratequant.report.axes import Scale, error_bar, format_tick, frame, linear_ticks, log_range, log_ticks, polyline
from ratequant.report.content import Content
from ratequant.report.estimate import format_estimate
from ratequant.report.marker import marker, marker_swatch
from ratequant.report.markup import Markup, element, join, svg, table, tooltip
from ratequant.report.palette import legend
from ratequant.report.prediction import Prediction, UniformPoint
from ratequant.v1 import allocation_service_pb2, bit_map_pb2

_WIDTH, _HEIGHT = 1000.0, 440.0
_MOST_BITS = 9.0
# Pixels between the points that tell curves apart.
_MARK_EVERY = 110.0
_ANY = "any"


def rate_distortion(content: Content, classes: dict[str, str]) -> Markup:
    """Loss increase against effective bits on one plot: a curve for each of the
    content's curves, the best uniform map, and what the rows measured. A quantizer
    of the calibration that has no curve is drawn at its uniform widths, with two
    standard errors. The uniform widths are in a table too."""
    uniform = _uniform_points(content)
    series = _Series.of(content, uniform)
    picture = series.picture(classes)
    if picture is None:
        return element("p", "The curve has no points.")
    return join(legend(series.legend(classes)), picture, _uniform_table(uniform) if uniform else None)


@dataclasses.dataclass(frozen=True)
class _Series:
    """What the plot shows; curves are (effective bits, loss increase) points."""

    curves: dict[str, list[tuple[float, float]]]
    best_uniform: list[tuple[float, float]]
    widths: dict[str, list[UniformPoint]]
    measured: list[dict]

    @classmethod
    def of(cls, content: Content, uniform: dict[str, list[UniformPoint]]) -> _Series:
        curves = {name: _points(curve, "objective_value") for name, curve in content.curves.items()}
        mixed = content.curves.get(_ANY)
        return cls(
            {name: points for name, points in curves.items() if points},
            _points(mixed, "uniform_objective_value") if mixed is not None else [],
            {n: [p for p in points if p.loss.value > 0] for n, points in uniform.items() if not curves.get(n)},
            [row for row in content.rows if _is_measured(row)],
        )

    def picture(self, classes: dict[str, str]) -> Markup | None:
        at_widths = [(p.effective_bits, p.loss.value) for points in self.widths.values() for p in points]
        drawn = [point for points in (*self.curves.values(), self.best_uniform, at_widths) for point in points]
        if not drawn:
            return None
        x_low, x_high = min(bits for bits, _ in drawn) - 0.1, max(bits for bits, _ in drawn) + 0.1
        y_low, y_high = log_range([loss for _, loss in drawn] + [row["nll_diff_to_fp"] for row in self.measured])
        x = Scale(x_low, x_high, 64, _WIDTH - 20)
        y = Scale(y_low, y_high, _HEIGHT - 48, 34, log=True)
        axes = frame(x, y, linear_ticks(x_low, x_high, 10), log_ticks(y_low, y_high),
                     "effective bits per element, everything counted", "loss increase, nats per token")  # fmt: skip
        return svg(_WIDTH, _HEIGHT, "Predicted loss increase against effective bits", axes, *self._lines(x, y, classes))

    def _lines(self, x: Scale, y: Scale, classes: dict[str, str]) -> Iterator[Markup]:
        if self.best_uniform:
            yield polyline([(x(bits), y(loss)) for bits, loss in self.best_uniform], "q-uniform", dashed=True)
        # "any" last, on top.
        for place, name in enumerate(sorted(self.curves, key=lambda name: name == _ANY)):
            yield _curve(name, self.curves[name], x, y, classes[name], place)
        for name, points in self.widths.items():
            yield _at_widths(name, points, x, y, classes[name])
        for row in self.measured:
            yield _measured(row, x, y)

    def legend(self, classes: dict[str, str]) -> Iterator[tuple[str, str]]:
        for name in self.curves:
            yield "across quantizers" if name == _ANY else name, marker_swatch(classes[name], line=True)
        for name, points in self.widths.items():
            if points:
                yield f"{name}, uniform", marker_swatch(classes[name], line=True)
        if self.best_uniform:
            yield "best uniform", "line dashed q-uniform"
        if self.measured:
            yield "measured, across quantizers (± 2 standard errors)", "measured"


def _points(curve: allocation_service_pb2.RateDistortionCurve, field: str) -> list[tuple[float, float]]:
    """(effective bits, predicted loss increase), where there is one."""
    return [
        (point.effective_bits, getattr(point, field) / 2)
        for point in curve.points
        if getattr(point, field) > 0 and point.effective_bits <= _MOST_BITS
    ]


def _uniform_points(content: Content) -> dict[str, list[UniformPoint]]:
    if content.calibration is None:
        return {}
    prediction = Prediction(content.calibration)
    sized = (*content.curves.values(), *content.bit_maps.values())
    cache = next((thing.cache for thing in sized), bit_map_pb2.CacheConfig())
    return {name: prediction.uniform(name, cache) for name in prediction.quantizers}


def _is_measured(row: dict) -> bool:
    return (
        row["quantizer"] == _ANY
        and row["strategy"] == "loss-projected"
        and row.get("nll_diff_to_fp", 0.0) > 0
        and row["effective_bits"] <= _MOST_BITS
    )


def _curve(name: str, points: Sequence[tuple[float, float]], x: Scale, y: Scale, class_: str, place: int) -> Markup:
    """A line with its quantizer's point every so often, elsewhere on each, and
    invisible ones that carry tooltips, one every few pixels."""
    line = [(x(bits), y(loss)) for bits, loss in points]
    parts = [polyline(line, class_)]
    next_mark = x.start + 20 + 23 * place
    last = float("-inf")
    for (bits, loss), (px, py) in zip(points, line, strict=True):
        text = f"{name}, {bits:.3f} effective bits: {format_tick(float(f'{loss:.3g}'))} nats predicted"
        if px >= next_mark:
            parts.append(marker(px, py, class_, text))
            next_mark = max(px, next_mark) + _MARK_EVERY
        elif px - last >= 6:
            parts.append(element("circle", tooltip(text), cx=px, cy=py, r=6, class_="hit"))
            last = px
    return join(*parts)


def _at_widths(name: str, points: Sequence[UniformPoint], x: Scale, y: Scale, class_: str) -> Markup:
    parts = [polyline([(x(point.effective_bits), y(point.loss.value)) for point in points], f"thin {class_}")]
    for point in points:
        px, value, stderr = x(point.effective_bits), point.loss.value, point.loss.stderr or 0.0
        low, high = max(value - 2 * stderr, y.low), min(value + 2 * stderr, y.high)
        text = f"{name}, {point.width} bits, {point.effective_bits:.3f} effective: {format_estimate(point.loss)} nats predicted"
        parts += [error_bar(px, y(low), y(high), class_), marker(px, y(value), class_, text)]
    return join(*parts)


def _measured(row: dict, x: Scale, y: Scale) -> Markup:
    mean, stderr = row["nll_diff_to_fp"], row.get("nll_diff_to_fp_stderr") or 0.0
    px, py = x(row["effective_bits"]), y(mean)
    low, high = max(mean - 2 * stderr, y.low), min(mean + 2 * stderr, y.high)
    text = f"{row['effective_bits']:.2f} effective bits: {mean:+.4f} ± {stderr:.4f} nats measured"
    ring = element("circle", tooltip(text), cx=px, cy=py, r=6, class_="measured")
    return join(error_bar(px, y(low), y(high), "q-any"), ring)


def _uniform_table(uniform: dict[str, list[UniformPoint]]) -> Markup:
    """Widths down, quantizers across."""
    by_width = {name: {point.width: point for point in points} for name, points in uniform.items()}
    widths = sorted({width for points in by_width.values() for width in points})
    rows: list[list[object]] = []
    for width in widths:
        cells: list[object] = [f"{width} bits"]
        for points in by_width.values():
            point = points.get(width)
            cells += ["–", "–"] if point is None else [f"{point.effective_bits:.2f}", format_estimate(point.loss)]
        rows.append(cells)
    header: list[object] = ["every group at"]
    for name in by_width:
        header += ["effective", f"{name}, nats ± standard error"]
    return element(
        "details", element("summary", "Uniform widths, every figure"), table(header, rows)
    )  # fmt: skip
