"""The whole page."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from ratequant.evaluate.bundle import Bundle
from ratequant.evaluate.paired import BLOCK_TOKENS
from ratequant.quantizer import quantizer_name
from ratequant.report.distortion import distortion_curves
from ratequant.report.heatmap import heatmap
from ratequant.report.markup import Markup, element, join
from ratequant.report.palette import quantizer_classes
from ratequant.report.perplexity import perplexity_chart, perplexity_table
from ratequant.report.rate_distortion import rate_distortion
from ratequant.report.source import shown_maps

_FP16_BYTES = 2


def render(rows: list[dict], bundle: Bundle | None) -> str:
    """The page as one HTML text that needs nothing else. Without a bundle only
    the perplexities are shown."""
    model = rows[0]["model"]
    classes = quantizer_classes(_quantizers(rows, bundle))
    sections = [_summary(rows, bundle)]
    if bundle is not None:
        sections += [_maps(rows, bundle, classes), _perplexity(rows, classes)]
        sections += [_rate_distortion(rows, bundle, classes), _distortion(bundle, classes)]
    else:
        sections.append(_perplexity(rows, classes))
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<link rel="icon" href="data:,">'),
        element("title", f"RateQuant report: {model}"),
        element("style", Markup(style)),
    )
    body = element("body", element("main", *sections))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _quantizers(rows: list[dict], bundle: Bundle | None) -> Iterable[str]:
    yield "any"
    if bundle is not None:
        yield from (quantizer_name(table.quantizer) for table in bundle.calibration.tables)
        yield from bundle.curves
    yield from (row["quantizer"] for row in rows if row["strategy"] != "fp32")


def _section(identifier: str, title: str, text: str, *children: object) -> Markup:
    return element("section", element("h2", title), element("p", text), *children, id=identifier)


def _summary(rows: list[dict], bundle: Bundle | None) -> Markup:
    parts = [element("h1", rows[0]["model"]), element("p", _what_was_measured(rows, bundle), class_="lead")]
    parts.append(element("div", *_tiles(rows, bundle), class_="tiles"))
    if bundle is not None:
        parts += [element("p", f"Warning: {text}", class_="warning") for text in bundle.calibration.warnings]
    return element("header", *parts, id="summary")


def _what_was_measured(rows: list[dict], bundle: Bundle | None) -> str:
    row = rows[0]
    text = f"Perplexity on {row['tokens']:,} tokens of {row['text']}, every token older than the window read back from packed bytes."
    if "sinks" in row:
        text += f" The first {row['sinks']} and the newest {row['window']} tokens stay in fp16."
    if bundle is not None:
        capture = bundle.calibration.capture
        identifier = bundle.calibration.name.rpartition("/")[2][:12]
        text += f" Calibration {identifier}: {capture.sequences} × {capture.sequence_length} tokens on {capture.device or 'an unnamed device'}."
    return text


def _tiles(rows: list[dict], bundle: Bundle | None) -> Iterable[Markup]:
    baseline = next((row for row in rows if row["strategy"] == "fp32"), None)
    if baseline is not None:
        yield _tile(f"{baseline['perplexity']:.2f}", "perplexity in fp32", "no cache quantization")
    best = _headline(rows)
    if best is None:
        return
    name = "across quantizers" if best["quantizer"] == "any" else best["quantizer"]
    change = ""
    if baseline is not None:
        change = f", {100 * (best['perplexity'] / baseline['perplexity'] - 1):+.1f}% to fp32"
    yield _tile(f"{best['perplexity']:.2f}", f"perplexity at {best['effective_bits']:.2f} bits", name + change)
    if bundle is None:
        return
    geometry = bundle.calibration.geometry
    fp16 = geometry.layers * geometry.kv_heads * 2 * geometry.head_dim * _FP16_BYTES
    yield _tile(
        f"{fp16 / best['bytes_per_token']:.1f}×",
        "smaller than an fp16 cache",
        f"{best['bytes_per_token']:,.0f} of {fp16:,} bytes per token, everything counted",
    )


def _headline(rows: list[dict]) -> dict | None:
    """The row a newcomer should see first: across quantizers near 3 bits."""
    candidates = [row for row in rows if row["strategy"] == "loss-projected"]
    across = [row for row in candidates if row["quantizer"] == "any"]
    return min(across or candidates, key=lambda row: abs(row["effective_bits"] - 3.0), default=None)


def _tile(figure: str, label: str, detail: str) -> Markup:
    return element(
        "div", element("b", figure), element("span", label), element("small", detail), class_="tile"
    )


def _maps(rows: list[dict], bundle: Bundle, classes: dict[str, str]) -> Markup | None:
    shown = shown_maps(rows, bundle.bit_maps)
    if not shown:
        return None
    selected = min(range(len(shown)), key=lambda index: abs(shown[index][0]["effective_bits"] - 3.0))
    inputs, labels, panels = [], [], []
    for index, (row, bit_map) in enumerate(shown):
        identifier = f"map-{index}"
        checked = "checked" if index == selected else None
        inputs.append(element("input", type="radio", name="map", id=identifier, checked=checked))
        labels.append(element("label", _map_label(row), for_=identifier))
        facts = (
            f"{bit_map.effective_bits:.3f} effective bits, {bit_map.code_bits:.3f} code bits, "
            f"{bit_map.bytes_per_token:,.0f} bytes per token at {bit_map.cache.context_tokens:,} tokens; "
            f"perplexity {row['perplexity']:.2f}. Bit map {bit_map.name.rpartition('/')[2][:12]}."
        )
        panels.append(element("div", element("p", facts), heatmap(bit_map, classes), class_="panel"))
    return _section(
        "bit-map",
        "Bit map",
        "Every layer and KV head, K above V. The fill is the code width; the stripe under a cell is its quantizer.",
        element("div", *inputs, element("div", *labels, class_="tabs"), *panels, class_="switch"),
    )


def _map_label(row: dict) -> str:
    name = "across quantizers" if row["quantizer"] == "any" else row["quantizer"]
    kind = row.get("budget_kind", "effective_bits")
    return f"{row.get('budget', row['effective_bits']):g} {kind.replace('_', ' ')}, {name}"


def _perplexity(rows: list[dict], classes: dict[str, str]) -> Markup:
    text = (
        "Bars are two standard errors. Differences are paired by token and clustered in blocks of "
        f"{BLOCK_TOKENS} tokens; the chart's bars are those of the difference to fp32, the table's of the "
        "difference to uniform bits at the same budget, where left is better."
    )
    return _section("perplexity", "Perplexity", text, perplexity_chart(rows, classes), perplexity_table(rows))


def _rate_distortion(rows: list[dict], bundle: Bundle, classes: dict[str, str]) -> Markup:
    text = (
        "What the allocator predicts for every budget: half the loss-projected distortion summed over groups. "
        "It ranks maps; its absolute size is not the measured loss."
    )
    return _section("rate-distortion", "Rate and distortion", text, rate_distortion(bundle.curves, classes, rows))


def _distortion(bundle: Bundle, classes: dict[str, str]) -> Markup:
    text = (
        "Mean squared error over all groups at every width. Points are measured; lines are the fit "
        "D(b) = α·β⁻ᵇ over 2 to 6 bits, dashed where it is extrapolated."
    )
    return _section("distortion", "Distortion curves", text, distortion_curves(bundle.calibration, classes))
