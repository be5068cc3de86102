"""Points of a chart: a shape for each quantizer, so that colour is never alone."""

from __future__ import annotations

import math

from ratequant.report.markup import Markup, element, tooltip


def _star(outer: float = 7.0, inner: float = 3.0) -> str:
    corners = [(inner if turn % 2 else outer, math.pi * turn / 5) for turn in range(10)]
    points = [(radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in corners]
    moves = [(x - px, y - py) for (x, y), (px, py) in zip(points, [(0.0, 0.0), *points[:-1]], strict=True)]
    return "m" + "l".join(f"{dx:.2f},{dy:.2f}" for dx, dy in moves) + "z"


_CIRCLE = "m-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z"
# By CSS class; relative to the point.
_SHAPES = {
    "q-any": _star(),
    "q-rtn": _CIRCLE,
    "q-kivi": "m-4.2,-4.2h8.4v8.4h-8.4z",
    "q-quarot": "m0,-5.5l5.5,9.5h-11z",
    "q-turboquant": "m0,-6l6,6l-6,6l-6,-6z",
    "q-tcq": "m-5.5,0l2.75,-4.8h5.5l2.75,4.8l-2.75,4.8h-5.5z",
    "q-a": "m0,5.5l5.5,-9.5h-11z",
    "q-b": "m-1.8,-5.5h3.6v3.7h3.7v3.6h-3.7v3.7h-3.6v-3.7h-3.7v-3.6h3.7z",
    "q-c": "m-5,-5l10,10v-10l-10,10z",
    "q-d": "m-5,-5h10l-10,10h10z",
}


def marker(x: float, y: float, class_: str, title: str = "", hollow: bool = False) -> Markup:
    """A point of a quantizer's CSS class, in pixels."""
    shape = _SHAPES.get(class_, _CIRCLE)
    classes = f"point {class_}" + (" hollow" if hollow else "")
    return element("path", tooltip(title) if title else None, d=f"M{x:.1f},{y:.1f}{shape}", class_=classes)


def marker_swatch(class_: str, hollow: bool = False, line: bool = False) -> Markup:
    """The point for a legend, on a piece of its curve with `line`."""
    through = element("path", d="M0,8h26", class_=f"curve {class_}") if line else None
    return element(
        "svg", through, marker(13, 8, class_, hollow=hollow),
        width=26, height=16, class_="mark", aria_hidden="true",
    )  # fmt: skip
