"""A made-up but plausible evaluation for the tests of the report: every message
is filled in as the services do it, without running them."""

from __future__ import annotations

import math

from ratequant.evaluate.bundle import Bundle
from ratequant.quantizer import parse_quantizer
from ratequant.report.content import Content
from ratequant.report.files import FileSet
from ratequant.v1 import allocation_service_pb2, bit_map_pb2, calibration_pb2, model_pb2

MODEL = "models/Example-135M"
CALIBRATION = f"{MODEL}/calibrations/{'c0ffee' * 10}abcd"
QUANTIZERS = ("rtn", "kivi", "quarot", "turboquant")
_BETA = {"rtn": 4.2, "kivi": 4.6, "quarot": 4.6, "turboquant": 3.7}
_ALPHA = {"rtn": 20.0, "kivi": 3.4, "quarot": 15.0, "turboquant": 7.2}
_OVERHEAD = {"rtn": 0.25, "kivi": 1.0, "quarot": 0.5, "turboquant": 0.25}


def geometry(layers: int = 30, kv_heads: int = 3) -> model_pb2.ModelGeometry:
    return model_pb2.ModelGeometry(layers=layers, kv_heads=kv_heads, query_heads=3 * kv_heads, head_dim=64)


def make_calibration(shape: model_pb2.ModelGeometry, change: float = 0.0) -> calibration_pb2.Calibration:
    """`change` shifts the distortion of single groups, each its own way; their
    standard errors are a tenth."""
    groups = shape.layers * shape.kv_heads * 2
    calibration = calibration_pb2.Calibration(
        name=CALIBRATION if not change else CALIBRATION[:-4] + "0123",
        geometry=shape,
        capture=calibration_pb2.CaptureInfo(sequences=16, sequence_length=512, sink_tokens=4, device="cpu"),
        groups=[calibration_pb2.GroupStatistics(g2=0.01, x2=1.0)] * groups,
        warnings=["Example <numbers> only."],
    )
    for name in QUANTIZERS:
        table = calibration.tables.add(quantizer=parse_quantizer(name), widths=range(1, 9), page_tokens=32)
        for group in range(groups):
            size = _ALPHA[name] * (1.0 if group % 2 == 0 else 0.3) * (1 + 0.5 * math.sin(group))
            for width in range(1, 9):
                step = (2.0**width - 1) ** -2 * 4 if name != "turboquant" else _BETA[name] ** -width
                table.mse.append(size * step / 10)
                table.c1.append(size * step / 1e4)
                table.c2.append(size * step / 2e4 * (1 + change * math.cos(group)))
                table.c2_standard_error.append(table.c2[-1] / 10)
        for width in range(1, 9):
            stored = round((width + _OVERHEAD[name]) * 32 * shape.head_dim / 8)
            table.key_page_bytes.append(stored)
            table.value_page_bytes.append(stored)
        for fit, scale in ((table.key_fit, 1.0), (table.value_fit, 0.3)):
            fit.alpha, fit.beta, fit.r2 = _ALPHA[name] * scale * 0.9, _BETA[name], 0.9986
    return calibration


def make_bit_map(shape: model_pb2.ModelGeometry, bits: float, salt: int) -> bit_map_pb2.BitMap:
    groups = shape.layers * shape.kv_heads * 2
    choices = [(int(abs(math.sin(group * 1.7 + salt)) * 4) % 4) for group in range(groups)]
    widths = [max(1, min(8, round(bits + 2 * math.sin(group * 0.9 + salt)))) for group in range(groups)]
    bit_map = bit_map_pb2.BitMap(
        name=f"{MODEL}/bitMaps/{salt:064x}",
        calibration=CALIBRATION,
        geometry=shape,
        quantizers=[parse_quantizer(name) for name in QUANTIZERS],
        quantizer_index=choices,
        width=widths,
        code_bits=sum(widths) / groups,
        effective_bits=bits,
        bytes_per_token=bits * groups * shape.head_dim / 8,
    )
    bit_map.cache.context_tokens = 4096
    bit_map.budget.effective_bits = bits
    bit_map.policy.objective = bit_map_pb2.Policy.LOSS_PROJECTED
    bit_map.policy.strategy = bit_map_pb2.Policy.ALLOCATED
    return bit_map


def make_curve(overhead: float, shift: float, uniform: bool) -> allocation_service_pb2.RateDistortionCurve:
    curve = allocation_service_pb2.RateDistortionCurve(calibration=CALIBRATION)
    for step in range(60):
        bits = 1.0 + overhead + step * 0.11
        value = 6.0 * shift * 4.0 ** -(bits - overhead)
        point = curve.points.add(effective_bits=bits, code_bits=bits - overhead, objective_value=value)
        if uniform and step > 5:
            point.uniform_objective_value = value * 1.8
    return curve


def make_rows(shape: model_pb2.ModelGeometry) -> tuple[list[dict], dict[str, bit_map_pb2.BitMap]]:
    shared = {"model": "Example-135M", "text": "held-out.txt", "tokens": 3066}
    extra = {"calibration": CALIBRATION, "sinks": 4, "window": 32, "context_tokens": 4096}
    rows = [
        shared
        | {"quantizer": "none", "strategy": "fp32", "code_bits": 32.0, "effective_bits": 32.0}
        | {"bytes_per_token": 46080.0, "perplexity": 24.4, "nll_diff_to_uniform": None, "nll_diff_stderr": None}
        | {"budget_kind": "none", "budget": None, "bit_map": "", "nll_diff_to_fp": 0.0, "nll_diff_to_fp_stderr": 0.0}
        | extra
    ]
    maps: dict[str, bit_map_pb2.BitMap] = {}
    budgets = [(q, "code_bits", b) for q in QUANTIZERS for b in (2.0, 2.5, 3.0)]
    budgets += [(q, "effective_bits", b) for b in (2.5, 3.0, 3.5, 4.0) for q in ("any", *QUANTIZERS)]
    for quantizer, kind, budget in budgets:
        effective = budget + (_OVERHEAD[quantizer] if kind == "code_bits" else 0.0)
        to_uniform = 3.0 * 4.0**-effective
        for factor, strategy in enumerate(("loss-projected", "paper", "k-ceil-v-floor", "uniform")):
            bit_map = make_bit_map(shape, effective, len(maps) + 1)
            maps[bit_map.name] = bit_map
            excess = to_uniform * (0.5 + 0.3 * factor) * (0.7 if quantizer == "any" else 1.0)
            rows.append(
                shared
                | {"quantizer": quantizer, "strategy": strategy, "code_bits": bit_map.code_bits}
                | {"effective_bits": effective, "bytes_per_token": bit_map.bytes_per_token}
                | {"perplexity": 24.4 * math.exp(excess), "nll_diff_to_uniform": excess - to_uniform * 1.4}
                | {"nll_diff_stderr": 0.1 * to_uniform, "budget_kind": kind, "budget": budget}
                | {"bit_map": bit_map.name, "nll_diff_to_fp": excess, "nll_diff_to_fp_stderr": 0.1 * to_uniform}
                | extra
            )
    return rows, maps


def make_evaluation(layers: int = 30, kv_heads: int = 3) -> tuple[list[dict], Bundle]:
    """Rows, and the bundle behind them."""
    shape = geometry(layers, kv_heads)
    rows, maps = make_rows(shape)
    curves = {"any": make_curve(0.25, 0.5, True)}
    curves |= {name: make_curve(_OVERHEAD[name], 1.0, True) for name in QUANTIZERS}
    return rows, Bundle(make_calibration(shape), maps, curves)


def make_content(rows: list[dict], bundle: Bundle | None = None) -> Content:
    """What the command makes of an evaluation's two files."""
    files = FileSet()
    files.add_rows(rows)
    if bundle is not None:
        files.add_bundle(bundle, "calibration")
    return files.content()
