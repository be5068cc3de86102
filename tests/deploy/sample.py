"""A small calibration with made-up tables that an allocator takes."""

from __future__ import annotations

from ratequant.v1 import calibration_pb2, quantizer_pb2

LAYERS, KV_HEADS, HEAD_DIM = 2, 2, 64
PAGE_TOKENS = 32
_GROUPS = LAYERS * KV_HEADS * 2
_WIDTHS = range(1, 9)


def calibration(seed: int = 0) -> calibration_pb2.Calibration:
    """rtn and turboquant over eight groups; another seed gives another one."""
    result = calibration_pb2.Calibration()
    geometry = result.geometry
    geometry.layers, geometry.kv_heads, geometry.query_heads, geometry.head_dim = LAYERS, KV_HEADS, 4, HEAD_DIM
    capture = result.capture
    capture.sequences, capture.sequence_length, capture.sink_tokens, capture.dtype = 2, 64, 4, "float32"
    capture.device = "cpu"
    weights = [1e-3 * (1 + (7 * group + seed) % 11) for group in range(_GROUPS)]
    for weight in weights:
        result.groups.add(g2=weight, x2=1.0)
    rtn = quantizer_pb2.Quantizer(kind="RTN")
    turboquant = quantizer_pb2.Quantizer(kind="TURBOQUANT", key_scale="L2", value_scale="UNBIASED")
    for quantizer, alpha, beta in ((rtn, 2.4, 4.6), (turboquant, 1.5, 3.7)):
        _fill(result.tables.add(quantizer=quantizer), weights, alpha, beta)
    return result


def _fill(table: calibration_pb2.DistortionTable, weights: list[float], alpha: float, beta: float) -> None:
    fit = calibration_pb2.CurveFit(alpha=alpha, beta=beta, r2=0.999, max_residual=0.05)
    for width in _WIDTHS:
        table.widths.append(width)
        page_bytes = int((width + 0.25) * HEAD_DIM * PAGE_TOKENS / 8)
        table.key_page_bytes.append(page_bytes)
        table.value_page_bytes.append(page_bytes)
    for weight in weights:
        for width in _WIDTHS:
            mse = alpha * beta**-width
            table.mse.append(mse)
            table.c1.append(0.8 * weight * mse)
            table.c2.append(weight * mse)
        table.group_fits.add().CopyFrom(fit)
    table.key_fit.CopyFrom(fit)
    table.value_fit.CopyFrom(fit)
    table.page_tokens, table.format_version = PAGE_TOKENS, 1
