"""Measured perplexities: a chart and the table of all rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ratequant.report.axes import Scale, error_bar, frame, linear_ticks, log_range, log_ticks, polyline
from ratequant.report.marker import marker, marker_swatch
from ratequant.report.markup import Markup, element, join, svg, table, tooltip
from ratequant.report.palette import legend

WIDTH, HEIGHT = 1000.0, 400.0
_BAR_WIDTH, _BAR_HEIGHT = 90.0, 16.0
_BASELINE = "fp32"
# Worse than so many times the best is beyond use, and would flatten the rest.
_HIGHEST = 2.0
# Strategies in the chart; the table has all.
_FILLED, _HOLLOW = "loss-projected", "uniform"


def perplexity_chart(rows: list[dict], classes: dict[str, str]) -> Markup:
    """Perplexity against effective bits, with a legend."""
    wanted = [row for row in rows if row["strategy"] in (_FILLED, _HOLLOW)]
    if not wanted:
        return element("p", "No row to draw.")
    plot = plot_perplexity(rows, classes)
    if plot is None:
        return _left_out(len(wanted), rows)
    entries = [(name if name != "any" else "across quantizers", marker_swatch(classes[name])) for name in plot.names]
    entries += [(_FILLED, marker_swatch("q-uniform")), (_HOLLOW, marker_swatch("q-uniform", hollow=True))]
    picture = svg(WIDTH, HEIGHT, "Perplexity against effective bits", plot.marks)
    return join(legend(entries), picture, _left_out(plot.left_out, rows))


@dataclasses.dataclass(frozen=True)
class PerplexityPlot:
    """The chart without its legend.

    Attributes:
      marks: SVG within WIDTH and HEIGHT.
      names: quantizers drawn.
      left_out: points too bad to draw.
    """

    marks: Markup
    names: list[str]
    left_out: int


def plot_perplexity(
    rows: list[dict],
    classes: dict[str, str],
    highest: float = _HIGHEST,
    goals: Sequence[tuple[float, float]] = (),
) -> PerplexityPlot | None:
    """Perplexity against effective bits: filled points are allocated, hollow
    ones uniform; bars are two standard errors of the paired difference to
    fp32. Points above `highest` times the best are left out; None when no
    point is left. `goals` are (effective bits, perplexity) to draw marks at."""
    baseline = next((row for row in rows if row["strategy"] == _BASELINE), None)
    wanted = [row for row in rows if row["strategy"] in (_FILLED, _HOLLOW)]
    ceiling = _ceiling(rows, highest)
    drawn = [row for row in wanted if row["perplexity"] <= ceiling]
    if not drawn:
        return None
    intervals = [_interval(row) for row in drawn]
    values = [min(value, ceiling) for interval in intervals for value in interval] + ([baseline["perplexity"]] if baseline else [])
    y_low, y_high = log_range(values)
    bits = [row["effective_bits"] for row in drawn]
    x_low, x_high = min(bits) - 0.2, max(bits) + 0.2
    x = Scale(x_low, x_high, 64, WIDTH - 20)
    y = Scale(y_low, y_high, HEIGHT - 48, 34, log=True)
    parts = [frame(x, y, linear_ticks(x_low, x_high, 10), log_ticks(y_low, y_high),
                   "effective bits per element, everything counted", "perplexity")]  # fmt: skip
    if baseline:
        level = y(baseline["perplexity"])
        parts.append(element("line", x1=x.start, x2=x.end, y1=level, y2=level, class_="reference"))
        text = f"fp32 {baseline['perplexity']:.2f}"
        parts.append(element("text", text, x=x.start + 6, y=level + 14, class_="tick start"))
    names = [name for name in classes if any(row["quantizer"] == name for row in drawn)]
    for name in sorted(names, key=lambda name: name == "any"):
        for strategy in (_HOLLOW, _FILLED):
            series = sorted(
                (row for row in drawn if row["quantizer"] == name and row["strategy"] == strategy),
                key=lambda row: row["effective_bits"],
            )
            points = [(x(row["effective_bits"]), y(row["perplexity"])) for row in series]
            parts.append(polyline(points, f"thin {classes[name]}", dashed=strategy == _HOLLOW))
            parts += [_point(row, x, y, classes[name]) for row in series]
    for bits, perplexity in goals:
        at, level = x(bits), y(perplexity)
        text = tooltip(f"goal: perplexity {perplexity:.2f} at {bits:g} effective bits")
        parts.append(element("path", text, d=f"M{at - 14:.1f},{level:.1f}h28m-14,0v9m-4,-4l4,4l4,-4", class_="goal"))
    return PerplexityPlot(join(*parts), names, len(wanted) - len(drawn))


def _ceiling(rows: list[dict], highest: float = _HIGHEST) -> float:
    return highest * min(row["perplexity"] for row in rows)


def _left_out(count: int, rows: list[dict]) -> Markup:
    if not count:
        return Markup()
    which = "One point" if count == 1 else f"{count} points"
    return element("p", f"{which} above {_ceiling(rows):.0f} only in the table.", class_="note")


def _interval(row: dict) -> tuple[float, float]:
    spread = math.exp(2 * (row.get("nll_diff_to_fp_stderr") or 0.0))
    return row["perplexity"] / spread, row["perplexity"] * spread


def _point(row: dict, x: Scale, y: Scale, class_: str) -> Markup:
    low, high = _interval(row)
    px, py = x(row["effective_bits"]), y(row["perplexity"])
    text = (
        f"{row['quantizer']}, {row['strategy']}, {row['effective_bits']:.2f} effective bits: "
        f"perplexity {row['perplexity']:.2f}, {low:.2f} to {high:.2f} within two standard errors"
    )
    point = marker(px, py, class_, text, hollow=row["strategy"] == _HOLLOW)
    return join(error_bar(px, y(low), max(y(high), y.end), class_), point)


def perplexity_table(rows: list[dict]) -> Markup:
    """A line for each quantizer and budget, a column for each strategy: the
    perplexity, and beside it the difference to uniform with its error bar.
    Every row with all its figures can be folded out below."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["strategy"] != _BASELINE:
            groups.setdefault(_group(row), []).append(row)
    strategies = list(dict.fromkeys(row["strategy"] for members in groups.values() for row in members))
    strategies.sort(key=lambda strategy: strategy != _HOLLOW)
    reach = _reach(rows)
    lines: list[list[object]] = []
    kind = None
    for (name, budget, group_kind), members in groups.items():
        if group_kind != kind:
            kind = group_kind
            lines.append([_KIND_HEADING.get(kind, kind)])
        by_strategy = {row["strategy"]: row for row in members}
        best = min(row["perplexity"] for row in members)
        cells = [_cell(by_strategy.get(strategy), best, len(members) > 1, reach) for strategy in strategies]
        lines.append([name, f"{budget:g}", *cells])
    details = element("details", element("summary", "All rows, every figure"), _full_table(rows))
    return join(table(["quantizer", "bits", *strategies], lines), details)


_KIND_HEADING = {
    "code bits": "At equal code bits: the average width, overhead not counted",
    "effective bits": "At equal effective bits: scales, zero points, norms, padding, sinks and window counted",
}


def _reach(rows: list[dict]) -> float:
    """What an error bar's half width stands for: the largest difference, but
    those far off must not flatten all others; they are cut off."""
    ends = sorted(
        abs(row["nll_diff_to_uniform"]) + 2 * (row["nll_diff_stderr"] or 0.0)
        for row in rows
        if row["nll_diff_to_uniform"] is not None
    )
    return min(ends[-1], 3 * ends[len(ends) // 2]) if ends else 0.0


def _group(row: dict) -> tuple[str, float, str]:
    kind = row.get("budget_kind", "effective_bits")
    name = "across quantizers" if row["quantizer"] == "any" else row["quantizer"]
    return (name, row.get("budget", row[kind]), kind.replace("_", " "))


def _cell(row: dict | None, best: float, compared: bool, reach: float) -> Markup | str:
    if row is None:
        return "–"
    is_best = compared and row["perplexity"] == best
    figure = element("strong" if is_best else "span", f"{row['perplexity']:.2f}")
    mean, stderr = row["nll_diff_to_uniform"], row["nll_diff_stderr"]
    if mean is None or not reach or row["strategy"] == _HOLLOW:
        return figure
    return element("div", _difference_bar(mean, stderr or 0.0, reach), figure, class_="compared")


def _full_table(rows: list[dict]) -> Markup:
    header = ["quantizer", "strategy", "budget", "code bits", "effective bits", "bytes/token", "perplexity", "ΔNLL to uniform"]
    cells: list[list[object]] = []
    for row in rows:
        name, budget, kind = _group(row) if row["strategy"] != _BASELINE else ("", None, "")
        mean, stderr = row["nll_diff_to_uniform"], row["nll_diff_stderr"]
        difference = "" if mean is None or row["strategy"] == _HOLLOW else f"{mean:+.4f}"
        if difference and stderr is not None:
            difference += f" ± {stderr:.4f}"
        cells.append(
            [
                name,
                row["strategy"],
                "" if budget is None else f"{budget:g} {kind}",
                f"{row['code_bits']:.2f}",
                f"{row['effective_bits']:.2f}",
                f"{row['bytes_per_token']:,.0f}",
                f"{row['perplexity']:.2f}",
                difference,
            ]
        )
    return table(header, cells, left_columns=3)


def _difference_bar(mean: float, stderr: float, reach: float) -> Markup:
    """A dot with its two-standard-error bar around a zero line; left is better
    than uniform."""
    scale = Scale(-reach, reach, 5, _BAR_WIDTH - 5)

    def place(value: float) -> float:
        return scale(min(max(value, -reach), reach))

    middle = _BAR_HEIGHT / 2
    low, high = place(mean - 2 * stderr), place(mean + 2 * stderr)
    side = "better" if mean + 2 * stderr < 0 else "worse" if mean - 2 * stderr > 0 else "even"
    return svg(
        _BAR_WIDTH,
        _BAR_HEIGHT,
        f"{mean:+.4f} plus or minus {2 * stderr:.4f} nats per token to uniform",
        tooltip(f"{mean:+.4f} nats per token to uniform, two standard errors {2 * stderr:.4f}"),
        element("line", x1=scale(0.0), x2=scale(0.0), y1=0, y2=_BAR_HEIGHT, class_="axis"),
        element("line", x1=low, x2=high, y1=middle, y2=middle, class_=f"spread {side}"),
        element("circle", cx=place(mean), cy=middle, r=3.5, class_=f"mean {side}"),
        scale=False,
    )
