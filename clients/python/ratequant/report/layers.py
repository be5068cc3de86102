"""Where a map's bits went, layer by layer, and what each layer is predicted to cost."""

from __future__ import annotations

from collections.abc import Sequence

from ratequant.report.axes import Scale, error_bar, format_tick, linear_ticks
from ratequant.report.estimate import Estimate, format_estimate
from ratequant.report.markup import Markup, element, join, svg, table, tooltip
from ratequant.report.palette import legend
from ratequant.report.prediction import Prediction
from ratequant.v1 import bit_map_pb2

_WIDTH, _PANEL_HEIGHT, _LEFT, _TOP, _GAP = 1000.0, 150.0, 76.0, 30.0, 62.0
_TENSORS = ("K", "V")
# Layers in the table.
_COSTLIEST = 5


def hatch() -> Markup:
    """The lines over V's bars. Once on a page and never hidden, or no bar has
    them."""
    line = element("path", d="M-1,1l2,-2M0,6l6,-6M5,7l2,-2", class_="hatch-line")
    pattern = element("pattern", line, id="hatch", width=6, height=6, patternUnits="userSpaceOnUse")
    return element("svg", element("defs", pattern), width=0, height=0, class_="patterns", aria_hidden="true")


def layer_chart(bit_map: bit_map_pb2.BitMap, prediction: Prediction | None) -> Markup:
    """Bars for every layer, K and V side by side: above, bits per element,
    averaged over heads; below, the predicted loss, summed over heads, with two
    standard errors. Without a prediction the bits are those of the codes alone
    and there is no loss."""
    layers = bit_map.geometry.layers
    known = prediction is not None and prediction.knows(bit_map)
    bits = prediction.map_bits(bit_map) if known else [float(width) for width in bit_map.width]
    bit_bars = [[Estimate(sum(part) / len(part), None) for part in _by_tensor(bits, layers, n)] for n in range(layers)]
    title = "stored bits per element" if known else "code bits"
    panels = [_panel(bit_bars, layers, 0, title, "bits")]
    if known:
        losses = prediction.map_losses(bit_map)
        loss_bars = [[Estimate.total(part) for part in _by_tensor(losses, layers, n)] for n in range(layers)]
        panels.append(_panel(loss_bars, layers, 1, "predicted loss increase, nats per token", "nats"))
    height = _TOP + len(panels) * (_PANEL_HEIGHT + _GAP) - _GAP + 24
    label = "Bits of every layer" + (" and the loss each is predicted to add" if known else "")
    picture = svg(_WIDTH, height, label, *panels)
    costs = _costliest(loss_bars) if known else None
    return join(legend([("K", "fill key"), ("V", "fill value")]), picture, costs)


def _by_tensor(values: Sequence, layers: int, layer: int) -> tuple[Sequence, Sequence]:
    per_layer = len(values) // layers
    of_layer = values[layer * per_layer : (layer + 1) * per_layer]
    return of_layer[0::2], of_layer[1::2]


def _panel(bars: list[list[Estimate]], layers: int, place: int, title: str, unit: str) -> Markup:
    top = _TOP + place * (_PANEL_HEIGHT + _GAP)
    highest = max(bar.value + 2 * (bar.stderr or 0.0) for pair in bars for bar in pair)
    y = Scale(0.0, highest * 1.05 or 1.0, top + _PANEL_HEIGHT, top)
    band = (_WIDTH - _LEFT) / layers
    bar_width = band * 0.4
    parts = [element("text", title, x=_LEFT - 8, y=top - 10, class_="label start")]
    for tick in linear_ticks(y.low, y.high, 4):
        level = y(tick)
        parts.append(element("line", x1=_LEFT, x2=_WIDTH, y1=level, y2=level, class_="grid"))
        parts.append(element("text", format_tick(tick), x=_LEFT - 8, y=level + 4, class_="tick end"))
    for layer, pair in enumerate(bars):
        for tensor, bar in enumerate(pair):
            x = _LEFT + band * layer + band * 0.1 + tensor * bar_width
            about = f"layer {layer}, {_TENSORS[tensor]}: {format_estimate(bar)} {unit}"
            parts.append(_bar(x, bar_width, bar, y, tensor, about))
    for layer in range(0, layers, 1 if layers <= 40 else 5):
        parts.append(element("text", layer, x=_LEFT + band * (layer + 0.5), y=y.start + 20, class_="tick middle"))
    parts.append(element("text", "layer", x=_LEFT - 8, y=y.start + 20, class_="tick end"))
    return join(*parts)


def _bar(x: float, width: float, bar: Estimate, y: Scale, tensor: int, title: str) -> Markup:
    top = y(bar.value)
    box = {"x": x, "y": top, "width": width, "height": y.start - top}
    parts = [tooltip(title), element("rect", class_=f"bar {('key', 'value')[tensor]}", **box)]
    if tensor == 1:
        parts.append(element("rect", class_="hatched", **box))
    if bar.stderr:
        low, high = max(bar.value - 2 * bar.stderr, 0.0), bar.value + 2 * bar.stderr
        parts.append(error_bar(x + width / 2, y(low), y(high), "q-any"))
    return element("g", *parts)


def _costliest(bars: list[list[Estimate]]) -> Markup:
    """The layers that cost most, and what all cost."""
    sums = [Estimate.total(pair) for pair in bars]
    total = Estimate.total(sums)
    order = sorted(range(len(bars)), key=lambda layer: -sums[layer].value)[:_COSTLIEST]
    rows: list[list[object]] = [
        [f"layer {layer}", *(format_estimate(bar) for bar in (*bars[layer], sums[layer])), _share(sums[layer], total)]
        for layer in order
    ]
    rows.append([f"all {len(bars)} layers", *(format_estimate(Estimate.total(pair[n] for pair in bars)) for n in range(2)),
                 format_estimate(total), _share(total, total)])  # fmt: skip
    errors = "" if total.stderr is None else " ± standard error"
    return table([f"predicted loss, nats per token{errors}", "K", "V", "K and V", "share"], rows)


def _share(part: Estimate, total: Estimate) -> str:
    return f"{100 * part.value / total.value:.0f}%" if total.value else ""
