"""The whole page."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from ratequant.evaluate.paired import BLOCK_TOKENS
from ratequant.report.calibration_comparison import compare_calibrations
from ratequant.report.content import Content
from ratequant.report.distortion import distortion_curves
from ratequant.report.distortion_map import distortion_maps
from ratequant.report.heatmap import heatmap
from ratequant.report.layers import hatch, layer_chart
from ratequant.report.map_comparison import compare_maps
from ratequant.report.markup import Markup, element, join
from ratequant.report.palette import quantizer_classes
from ratequant.report.perplexity import perplexity_chart, perplexity_table
from ratequant.report.prediction import Prediction
from ratequant.report.rate_distortion import rate_distortion
from ratequant.report.summary import summary
from ratequant.report.tabs import tabs
from ratequant.v1 import bit_map_pb2, calibration_pb2


def render(content: Content) -> str:
    """The page as one HTML text that needs nothing else: a section for
    everything the content has."""
    classes = quantizer_classes(content.quantizers())
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<link rel="icon" href="data:,">'),
        element("title", f"RateQuant report: {content.model}"),
        element("style", Markup(style)),
    )
    body = element("body", hatch(), element("main", summary(content), *_sections(content, classes)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _sections(content: Content, classes: dict[str, str]) -> Iterator[Markup]:
    if content.bit_maps:
        yield _maps(content, classes)
    if len(content.bit_maps) > 1:
        yield _map_comparison(content, classes)
    if content.rows:
        yield _perplexity(content.rows, classes)
    if content.curves or content.calibrations:
        yield _rate_distortion(content, classes)
    if len(content.calibrations) > 1:
        yield _calibration_comparison(content)
    if content.calibration is not None:
        # Of two, the first; the comparison tells the second.
        more = f": {next(iter(content.calibrations))}" if len(content.calibrations) > 1 else ""
        yield _distortion_maps(Prediction(content.calibration), more)
        yield _distortion_curves(content.calibration, classes, more)


def _section(identifier: str, title: str, text: str, *children: object) -> Markup:
    return element("section", element("h2", title), element("p", text), *children, id=identifier)


def _maps(content: Content, classes: dict[str, str]) -> Markup:
    rows = {row["bit_map"]: row for row in content.rows if "bit_map" in row}
    panels = []
    for label, bit_map in content.bit_maps.items():
        prediction = _prediction_of(content, bit_map)
        facts = element("p", _map_facts(bit_map, rows.get(bit_map.name)), class_="facts")
        spent = element("h3", "Where the bits went, and what each layer is predicted to cost")
        panels.append((label, join(facts, heatmap(bit_map, classes), spent, layer_chart(bit_map, prediction))))
    return _section(
        "bit-map",
        "Bit maps",
        "Every layer and KV head, K above V. Fill and figure are the code width, the stripe under a cell is its "
        "quantizer. Predicted losses are halves of the loss-projected distortion: they rank maps and layers, and "
        "their absolute size is not the measured loss. Bars are two standard errors, those of single groups added.",
        tabs("map", panels, content.newcomers_map),
    )


def _prediction_of(content: Content, bit_map: bit_map_pb2.BitMap) -> Prediction | None:
    """By the calibration a map was made from, else by the first there is."""
    calibrations = list(content.calibrations.values())
    own = [calibration for calibration in calibrations if calibration.name == bit_map.calibration]
    return next((Prediction(calibration) for calibration in own + calibrations), None)


def _map_facts(bit_map: bit_map_pb2.BitMap, row: dict | None) -> str:
    text = (
        f"{bit_map.effective_bits:.3f} effective bits, {bit_map.code_bits:.3f} code bits, "
        f"{bit_map.bytes_per_token:,.0f} bytes per token at {bit_map.cache.context_tokens:,} tokens"
    )
    if row is not None:
        text += f"; perplexity {row['perplexity']:.2f}"
    return f"{text}. Bit map {bit_map.name.rpartition('/')[2][:12]}."


def _map_comparison(content: Content, classes: dict[str, str]) -> Markup:
    predictions = {label: Prediction(calibration) for label, calibration in content.calibrations.items()}
    return _section(
        "map-comparison",
        "Maps compared",
        "A cell's fill and figure are the change of width against the first map; a stripe is the quantizer of a group "
        "that has another one.",
        compare_maps(content.bit_maps, predictions, classes),
    )


def _perplexity(rows: list[dict], classes: dict[str, str]) -> Markup:
    text = (
        "Bars are two standard errors. Differences are paired by token and clustered in blocks of "
        f"{BLOCK_TOKENS} tokens; the chart's bars are those of the difference to fp32, the table's of the "
        "difference to uniform bits at the same budget, where left is better."
    )
    return _section("perplexity", "Perplexity", text, perplexity_chart(rows, classes), perplexity_table(rows))


def _rate_distortion(content: Content, classes: dict[str, str]) -> Markup:
    text = (
        "What is predicted for every budget: half the loss-projected distortion summed over groups, their standard "
        "errors added. It ranks maps; its absolute size is not the measured loss."
    )
    return _section("rate-distortion", "Rate and distortion", text, rate_distortion(content, classes))


def _calibration_comparison(content: Content) -> Markup:
    text = (
        "How the second measures each group's loss-projected distortion, in parts of what the first does. A figure "
        "stands in the cells where the two are more than two standard errors of their difference apart."
    )
    return _section(
        "calibration-comparison", "Calibrations compared", text, compare_calibrations(content.calibrations)
    )  # fmt: skip


def _distortion_maps(prediction: Prediction, more: str) -> Markup:
    text = (
        "What storing one group at that width, and nothing else, is predicted to add to the loss. Brighter is more; a "
        "cell's figure is the decimal logarithm."
    )
    return _section("distortion-map", f"Distortion by layer and head{more}", text, distortion_maps(prediction))


def _distortion_curves(calibration: calibration_pb2.Calibration, classes: dict[str, str], more: str) -> Markup:
    text = (
        "Mean squared error over all groups at every width. Points are measured; lines are the fit "
        "D(b) = α·β⁻ᵇ over 2 to 6 bits, dashed where it is extrapolated."
    )
    return _section("distortion", f"Distortion curves{more}", text, distortion_curves(calibration, classes))
