"""Predicted loss against cost, for every budget at once."""

from __future__ import annotations

from ratequant.report.axes import Scale, error_bar, format_tick, frame, linear_ticks, log_range, log_ticks, polyline
from ratequant.report.markup import Markup, element, join, svg, tooltip
from ratequant.report.palette import legend
from ratequant.v1 import allocation_service_pb2

_WIDTH, _HEIGHT = 1000.0, 400.0
_MOST_BITS = 9.0


def rate_distortion(
    curves: dict[str, allocation_service_pb2.RateDistortionCurve], classes: dict[str, str], rows: list[dict]
) -> Markup:
    """Half the objective against effective bits: across quantizers, each
    quantizer alone, the best uniform map, and what the rows measured."""
    allocated = {name: _points(curve, "objective_value") for name, curve in curves.items()}
    uniform = _points(curves["any"], "uniform_objective_value") if "any" in curves else []
    measured = [row for row in rows if _is_measured(row)]
    series = [points for points in (*allocated.values(), uniform) if points]
    if not series:
        return element("p", "The curve has no points.")
    bits = [point[0] for points in series for point in points]
    losses = [point[1] for points in series for point in points] + [row["nll_diff_to_fp"] for row in measured]
    x_low, x_high = min(bits) - 0.1, max(bits) + 0.1
    y_low, y_high = log_range(losses)
    x = Scale(x_low, x_high, 64, _WIDTH - 20)
    y = Scale(y_low, y_high, _HEIGHT - 48, 34, log=True)
    ticks = linear_ticks(x_low, x_high, 10)
    parts = [frame(x, y, ticks, log_ticks(y_low, y_high), "effective bits per element, everything counted",
                   "loss increase, nats per token")]  # fmt: skip
    # "any" last, on top.
    for name in sorted(allocated, key=lambda name: name == "any"):
        parts.append(_line(allocated[name], x, y, classes[name]))
    if uniform:
        parts.append(_line(uniform, x, y, "q-uniform", dashed=True))
    parts += [_dots(allocated.get("any", []), x, y)]
    parts += [_measured(row, x, y) for row in measured]
    entries = [(name if name != "any" else "across quantizers", f"line {classes[name]}") for name in curves]
    if uniform:
        entries.append(("best uniform", "line dashed q-uniform"))
    if measured:
        entries.append(("measured, across quantizers (± 2 standard errors)", "diamond"))
    return join(legend(entries), svg(_WIDTH, _HEIGHT, "Predicted loss increase against effective bits", *parts))


def _points(curve: allocation_service_pb2.RateDistortionCurve, field: str) -> list[tuple[float, float]]:
    """(effective bits, predicted loss increase), where there is one."""
    return [
        (point.effective_bits, getattr(point, field) / 2)
        for point in curve.points
        if getattr(point, field) > 0 and point.effective_bits <= _MOST_BITS
    ]


def _is_measured(row: dict) -> bool:
    return (
        row["quantizer"] == "any"
        and row["strategy"] == "loss-projected"
        and row.get("nll_diff_to_fp", 0.0) > 0
        and row["effective_bits"] <= _MOST_BITS
    )


def _line(points: list[tuple[float, float]], x: Scale, y: Scale, class_: str, dashed: bool = False) -> Markup:
    return polyline([(x(bits), y(loss)) for bits, loss in points], class_, dashed)


def _dots(points: list[tuple[float, float]], x: Scale, y: Scale) -> Markup:
    """Invisible marks that carry tooltips, thinned to one a few pixels."""
    parts, last = [], float("-inf")
    for bits, loss in points:
        if x(bits) - last < 6:
            continue
        last = x(bits)
        text = f"{bits:.3f} effective bits: {format_tick(float(f'{loss:.3g}'))} nats predicted"
        parts.append(element("circle", tooltip(text), cx=x(bits), cy=y(loss), r=6, class_="hit"))
    return join(*parts)


def _measured(row: dict, x: Scale, y: Scale) -> Markup:
    mean, stderr = row["nll_diff_to_fp"], row.get("nll_diff_to_fp_stderr") or 0.0
    px, py = x(row["effective_bits"]), y(mean)
    low, high = max(mean - 2 * stderr, y.low), min(mean + 2 * stderr, y.high)
    text = f"{row['effective_bits']:.2f} effective bits: {mean:+.4f} ± {stderr:.4f} nats measured"
    diamond = element("path", tooltip(text), d=f"M{px:.1f},{py - 6:.1f}l6,6l-6,6l-6,-6z", class_="diamond")
    return join(error_bar(px, y(low), y(high), "q-any"), diamond)
