"""Scales, grid lines and labels of a chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ratequant.report.markup import Markup, element, join


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps [low, high] onto pixels [start, end], linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def contains(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return self.low <= value <= self.high


def linear_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round values within [low, high], 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round values within [low, high] for a logarithmic axis: powers of ten
    over several decades, finer within one."""
    decades = math.log10(high / low)
    if decades < 1.2:
        for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5)):
            ticks = _log_candidates(low, high, factors)
            if 4 <= len(ticks) <= most:
                return ticks
        return linear_ticks(low, high, most)
    ticks = _log_candidates(low, high, (1,))
    every = -(-len(ticks) // most)
    return ticks[::every]


def _log_candidates(low: float, high: float, factors: Sequence[float]) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def log_range(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """A range that holds positive values with some room on a log axis."""
    low, high = math.log(min(values)), math.log(max(values))
    room = max((high - low) * margin, 0.02)
    return math.exp(low - room), math.exp(high + room)


def format_tick(value: float) -> str:
    """A number short enough for a tick: 0.01, 25, 1e-05."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        mantissa = value / 10.0**exponent
        power = f"10{_superscript(exponent)}"
        return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:g}·{power}"
    return f"{value:g}"


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def frame(
    x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> Markup:
    """Horizontal grid lines, tick labels and axis titles. `y.start` is the
    bottom."""
    parts = []
    for tick in y_ticks:
        level = y(tick)
        parts.append(element("line", x1=x.start, x2=x.end, y1=level, y2=level, class_="grid"))
        parts.append(element("text", format_tick(tick), x=x.start - 8, y=level + 4, class_="tick end"))
    for tick in x_ticks:
        parts.append(element("text", format_tick(tick), x=x(tick), y=y.start + 18, class_="tick middle"))
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=y.start, y2=y.start + 4, class_="axis"))
    parts.append(element("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    parts.append(element("text", x_label, x=(x.start + x.end) / 2, y=y.start + 38, class_="label middle"))
    parts.append(element("text", y_label, x=x.start - 8, y=y.end - 12, class_="label start"))
    return join(*parts)


def polyline(points: Sequence[tuple[float, float]], class_: str, dashed: bool = False) -> Markup:
    """A line through pixel coordinates."""
    text = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return element("polyline", points=text, class_=f"curve {class_}", stroke_dasharray="5 4" if dashed else None)


def error_bar(x: float, low: float, high: float, class_: str) -> Markup:
    """A vertical error bar with caps, in pixels."""
    path = f"M{x:.1f},{low:.1f}V{high:.1f}M{x - 3:.1f},{low:.1f}h6M{x - 3:.1f},{high:.1f}h6"
    return element("path", d=path, class_=f"error {class_}")
