"""The top of the page: what it is about, and three figures."""

from __future__ import annotations

from collections.abc import Iterator

from ratequant.report.content import Content
from ratequant.report.estimate import Estimate, format_estimate, format_value
from ratequant.report.markup import Markup, element
from ratequant.report.prediction import Prediction
from ratequant.v1 import calibration_pb2

_FP16_BYTES = 2
_NEWCOMERS_BITS = 3.0


def summary(content: Content) -> Markup:
    """Title, what was measured, the figures a newcomer should see first, and
    the calibrations' warnings."""
    parts = [element("h1", content.model), element("p", " ".join(_sentences(content)), class_="lead")]
    tiles = [*_evaluation_tiles(content), *_map_tiles(content)]
    if tiles:
        parts.append(element("div", *tiles, class_="tiles"))
    for calibration in content.calibrations.values():
        parts += [element("p", f"Warning: {text}", class_="warning") for text in calibration.warnings]
    return element("header", *parts, id="summary")


def _sentences(content: Content) -> Iterator[str]:
    if content.rows:
        row = content.rows[0]
        yield (
            f"Perplexity on {row['tokens']:,} tokens of {row['text']}, "
            "every token older than the window read back from packed bytes."
        )
        if "sinks" in row:
            yield f"The first {row['sinks']} and the newest {row['window']} tokens stay in fp16."
    for label, calibration in content.calibrations.items():
        name = f" {label}" if len(content.calibrations) > 1 else ""
        yield f"Calibration{name} {_calibration_text(calibration)}"
    if not content.rows and not content.calibrations:
        yield "Bit maps and curves as the allocator answered."


def _calibration_text(calibration: calibration_pb2.Calibration) -> str:
    capture = calibration.capture
    identifier = calibration.name.rpartition("/")[2][:12]
    device = capture.device or "an unnamed device"
    return f"{identifier}: {capture.sequences} × {capture.sequence_length} tokens on {device}."


def _evaluation_tiles(content: Content) -> Iterator[Markup]:
    baseline = next((row for row in content.rows if row["strategy"] == "fp32"), None)
    if baseline is not None:
        yield _tile(f"{baseline['perplexity']:.2f}", "perplexity in fp32", "no cache quantization")
    best = _headline(content.rows)
    if best is None:
        return
    name = "across quantizers" if best["quantizer"] == "any" else best["quantizer"]
    change = ""
    if baseline is not None:
        change = f", {100 * (best['perplexity'] / baseline['perplexity'] - 1):+.1f}% to fp32"
        if (stderr := best.get("nll_diff_to_fp_stderr")) is not None:
            change += f" (standard error {100 * stderr:.1f}%)"
    yield _tile(f"{best['perplexity']:.2f}", f"perplexity at {best['effective_bits']:.2f} bits", name + change)
    yield from _size_tile(content, best["bytes_per_token"])


def _headline(rows: list[dict]) -> dict | None:
    """The row a newcomer should see first: across quantizers near 3 bits."""
    candidates = [row for row in rows if row["strategy"] == "loss-projected"]
    across = [row for row in candidates if row["quantizer"] == "any"]
    return min(across or candidates, key=lambda row: abs(row["effective_bits"] - _NEWCOMERS_BITS), default=None)


def _map_tiles(content: Content) -> Iterator[Markup]:
    """The same of a map alone, when nothing was measured."""
    if content.rows or not content.bit_maps:
        return
    label, bit_map = list(content.bit_maps.items())[content.newcomers_map]
    yield _tile(f"{bit_map.effective_bits:.2f}", "effective bits", label)
    if content.calibration is not None:
        prediction = Prediction(content.calibration)
        if prediction.knows(bit_map):
            loss = Estimate.total(prediction.map_losses(bit_map))
            yield _tile(format_value(loss.value), "nats per token predicted", f"{format_estimate(loss)}; it ranks maps")
    yield from _size_tile(content, bit_map.bytes_per_token)


def _size_tile(content: Content, bytes_per_token: float) -> Iterator[Markup]:
    geometry = content.geometry
    if geometry is None:
        return
    fp16 = geometry.layers * geometry.kv_heads * 2 * geometry.head_dim * _FP16_BYTES
    detail = f"{bytes_per_token:,.0f} of {fp16:,} bytes per token, everything counted"
    yield _tile(f"{fp16 / bytes_per_token:.1f}×", "smaller than an fp16 cache", detail)


def _tile(figure: str, label: str, detail: str) -> Markup:
    return element("div", element("b", figure), element("span", label), element("small", detail), class_="tile")
