"""Two calibrations of one model side by side: do they agree on which groups hurt?"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from ratequant.report.estimate import Estimate, format_estimate
from ratequant.report.grid import Cell, grid, group_name
from ratequant.report.markup import Markup, element, join, table
from ratequant.report.palette import difference_class, difference_scale
from ratequant.report.prediction import Prediction
from ratequant.report.tabs import tabs
from ratequant.v1 import calibration_pb2

_WIDTH = 3
# Doublings that one step of the colour scale stands for.
_DOUBLINGS_PER_STEP = 0.5


def compare_calibrations(calibrations: Mapping[str, calibration_pb2.Calibration]) -> Markup:
    """What two calibrations were made from, and by quantizer and group what the
    second says of the loss in parts of what the first says."""
    (first, base), (second, other) = calibrations.items()
    before, after = Prediction(base), Prediction(other)
    common = [name for name in before.quantizers if name in after.quantizers]
    facts = _facts(calibrations)
    if not common:
        return join(facts, element("p", "They have no quantizer in common."))
    rows, panels = [], []
    for name in common:
        width = _common_width(before.widths(name), after.widths(name))
        if width is None:
            continue
        pairs = [
            (before.group_loss(name, group, width), after.group_loss(name, group, width))
            for group in range(2 * base.geometry.layers * base.geometry.kv_heads)
        ]
        rows.append([f"{name}, {width} bits", *_agreement(pairs)])
        panels.append((f"{name}, {width} bits", _ratio_map(before, name, first, second, pairs)))
    header = [
        "all groups, nats per token ± standard error", first, second, "rank correlation", "median ratio",
        "beyond two standard errors",
    ]  # fmt: skip
    scale = difference_scale(f"less in {second}: ¼ ", " 4 times as much")
    return join(facts, table(header, rows), scale, tabs("calibration-comparison", panels))


def _facts(calibrations: Mapping[str, calibration_pb2.Calibration]) -> Markup:
    facts: list[tuple[str, Callable[[calibration_pb2.CaptureInfo], str]]] = [
        ("tokens", lambda c: f"{c.sequences} × {c.sequence_length}"),
        ("loss of the text, nats per token", lambda c: f"{c.mean_nll:.3f}" if c.mean_nll else "not said"),
        ("sinks", lambda c: str(c.sink_tokens)),
        ("means subtracted", lambda c: "yes" if c.means_subtracted else "no"),
        ("model ran on", lambda c: c.device or "not said"),
        ("text, SHA-256 of its tokens", lambda c: c.token_digest[:12] or "not said"),
        ("model, SHA-256", lambda c: c.model_digest[:12] or "not said"),
    ]
    rows: list[list[object]] = [["calibration", *(c.name.rpartition("/")[2][:12] for c in calibrations.values())]]
    for name, fact in facts:
        values = [fact(calibration.capture) for calibration in calibrations.values()]
        rows.append([name, *values, "" if values[0] == values[1] else "different"])
    rows[0].append("")
    return table(["", *calibrations, ""], rows)


def _common_width(first: Sequence[int], second: Sequence[int]) -> int | None:
    both = set(first) & set(second)
    return min(both, key=lambda width: abs(width - _WIDTH), default=None)


def _agreement(pairs: Sequence[tuple[Estimate, Estimate]]) -> list[str]:
    before, after = zip(*pairs, strict=True)
    ratios = [b.value / a.value for a, b in pairs if a.value > 0]
    apart = sum(a.differs(b) for a, b in pairs)
    return [
        format_estimate(Estimate.total(before)),
        format_estimate(Estimate.total(after)),
        _rank_correlation([e.value for e in before], [e.value for e in after]),
        f"{statistics.median(ratios):.2f}" if ratios else "",
        f"{apart} of {len(pairs)}",
    ]


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> str:
    """Spearman's; empty where one side is all the same."""
    try:
        return f"{statistics.correlation(_ranks(first), _ranks(second)):.3f}"
    except statistics.StatisticsError:
        return ""


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [(bisect.bisect_left(ordered, value) + bisect.bisect_right(ordered, value)) / 2 for value in values]


def _ratio_map(
    prediction: Prediction, name: str, first: str, second: str, pairs: Sequence[tuple[Estimate, Estimate]]
) -> Markup:
    def cell(group: int) -> Cell:
        before, after = pairs[group]
        title = f"{group_name(prediction.geometry, group)}: {format_estimate(before)} → {format_estimate(after)}"
        if before.value <= 0 or after.value <= 0:
            return Cell("d0", "", title)
        ratio = after.value / before.value
        text = f"{ratio:.1f}" if before.differs(after) else ""
        return Cell(difference_class(math.log2(ratio) / _DOUBLINGS_PER_STEP), text, title)

    label = f"Loss-projected distortion under {name}: {second} over {first}, every layer and head"
    return grid(prediction.geometry, label, cell)
