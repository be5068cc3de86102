"""The allocator against maps that an independent implementation made from the same measurements.

The reference has distortion tables of SmolLM2-135M (30 layers, 3 KV heads) and, for several strategies
and budgets, the widths it chose. The tables go into a real allocator over gRPC, and what comes back
must be the same widths, group by group; or better ones: the reference is greedy, one bit at a time, which
is not optimal where a measured curve isn't convex.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from ratequant.v1 import allocation_service_pb2 as service
from ratequant.v1 import allocation_service_pb2_grpc as service_grpc
from ratequant.v1 import bit_map_pb2, calibration_pb2, quantizer_pb2

ROOT = Path(__file__).resolve().parents[3]
LAYERS, KV_HEADS, HEAD_DIM = 30, 3, 64
HEADS = LAYERS * KV_HEADS
KINDS = {
    "kivi": quantizer_pb2.Quantizer(kind="KIVI", group_size=32),
    "quarot": quantizer_pb2.Quantizer(kind="QUAROT"),
    "turbo": quantizer_pb2.Quantizer(kind="TURBOQUANT", key_scale="L2", value_scale="UNBIASED"),
}
# Bytes of scales, zero points and norms in a page of 32 tokens.
OVERHEAD = {"kivi": 256, "quarot": 128, "turbo": 64}
Policy = bit_map_pb2.Policy
STRATEGIES = {
    "uniform": dict(strategy=Policy.UNIFORM),
    "k-ceil-v-floor": dict(strategy=Policy.K_CEIL_V_FLOOR),
    "measured": dict(objective=Policy.MEASURED, min_width=1),
    "loss-projected": dict(objective=Policy.LOSS_PROJECTED, min_width=1),
}


def reference() -> Path:
    """The folder with the reference figures; skips where it is missing."""
    folder = Path(os.environ.get("RATEQUANT_SHARED", ROOT.parent / "shared")) / "reference"
    if not (folder / "distortion_tables.npz").exists():
        pytest.skip(f"no reference figures at {folder} (RATEQUANT_SHARED)")
    return folder


def interleave(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Group order from two arrays over heads: K and V of each head in turn."""
    return np.stack([keys, values], axis=1).reshape(2 * HEADS, *keys.shape[1:])


def calibration() -> calibration_pb2.Calibration:
    """The reference's tables as a calibration."""
    tables = np.load(reference() / "distortion_tables.npz")
    fits = json.loads((reference() / "reference.json").read_text())["distortion_fits"]
    result = calibration_pb2.Calibration()
    result.geometry.layers, result.geometry.kv_heads = LAYERS, KV_HEADS
    result.geometry.query_heads, result.geometry.head_dim = 9, HEAD_DIM
    result.capture.sequences, result.capture.sequence_length, result.capture.dtype = 8, 256, "float32"
    for g2, x2 in zip(interleave(tables["g2_k"], tables["g2_v"]), interleave(tables["x2_k"], tables["x2_v"])):
        result.groups.add(g2=g2, x2=x2)
    for name, quantizer in KINDS.items():
        table = result.tables.add(widths=range(1, 9), page_tokens=32, format_version=1)
        table.quantizer.CopyFrom(quantizer)
        for statistic in ("mse", "c1", "c2"):
            keys, values = tables[f"{statistic}_{name}_k"], tables[f"{statistic}_{name}_v"]
            getattr(table, statistic).extend(interleave(keys[:, 1:], values[:, 1:]).ravel())
        for fit, tensor in ((table.key_fit, "k"), (table.value_fit, "v")):
            found = fits[f"{name}_{tensor}"]["2-6"]
            fit.alpha, fit.beta, fit.r2 = found["alpha"], found["beta"], found["r2"]
            fit.max_residual = found["max_ln_resid"]
        for group in range(2 * HEADS):
            table.group_fits.add().CopyFrom(table.key_fit if group % 2 == 0 else table.value_fit)
        page = [32 * HEAD_DIM * width // 8 + OVERHEAD[name] for width in range(1, 9)]
        table.key_page_bytes.extend(page)
        table.value_page_bytes.extend(page)
    return result


@pytest.fixture(scope="module")
def allocator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[service_grpc.AllocationServiceStub]:
    """A real allocator that has the reference's calibration as models/smollm2."""
    content = calibration()
    program = Path(os.environ.get("RATEQUANT_BIN_DIR", ROOT / "build" / "bin")) / "ratequant-allocator"
    assert program.exists(), f"{program} isn't built"
    folder = tmp_path_factory.mktemp("allocator")
    port_file = folder / "port"
    process = subprocess.Popen(
        [program, "--data-dir", folder / "data", "--address", "127.0.0.1:0", "--port-file", port_file])
    try:
        deadline = time.monotonic() + 30
        while not port_file.exists():
            assert process.poll() is None, f"the allocator ended with {process.returncode}"
            assert time.monotonic() < deadline, "the allocator did not start within 30 s"
            time.sleep(0.01)
        with grpc.insecure_channel(f"127.0.0.1:{int(port_file.read_text())}") as channel:
            service_grpc.RegistryServiceStub(channel).CreateCalibration(
                service.CreateCalibrationRequest(parent="models/smollm2", calibration=content), timeout=60)
            yield service_grpc.AllocationServiceStub(channel)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def rows() -> list[dict]:
    """The reference's maps of strategies the allocator has."""
    path = Path(os.environ.get("RATEQUANT_SHARED", ROOT.parent / "shared")) / "reference" / "reference.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())["perplexity_no_sinks_no_window"]
    return [row for row in found if row["strategy"] in STRATEGIES and row.get("bits")]


def objective(strategy: str, name: str, widths: np.ndarray) -> float:
    """The sum that a strategy minimises, from the reference's tables."""
    tables = np.load(reference() / "distortion_tables.npz")
    if strategy == "loss-projected":
        values = interleave(tables[f"c2_{name}_k"], tables[f"c2_{name}_v"])
    else:
        values = interleave(tables[f"mse_{name}_k"] * tables["g2_k"][:, None],
                            tables[f"mse_{name}_v"] * tables["g2_v"][:, None])
    return float(values[np.arange(2 * HEADS), widths].sum())


@pytest.mark.parametrize(
    "row", rows() or [None], ids=lambda r: f"{r['quantizer']}-{r['code_bits']}-{r['strategy']}" if r else "missing")
def test_widths_are_the_references(row: dict | None, request: pytest.FixtureRequest) -> None:
    reference()  # skips
    allocator = request.getfixturevalue("allocator")
    answer = allocator.GetBitMap(
        service.GetBitMapRequest(
            model="models/smollm2", quantizers=[KINDS[row["quantizer"]]],
            budget=bit_map_pb2.Budget(code_bits=row["code_bits"]), policy=Policy(**STRATEGIES[row["strategy"]])),
        timeout=60).bit_map
    bits = np.array(row["bits"])
    expected = interleave(bits[:HEADS], bits[HEADS:])
    assert answer.budget_left == pytest.approx(0, abs=1e-12)
    widths = np.array(answer.width)
    if "objective" in STRATEGIES[row["strategy"]]:
        theirs = objective(row["strategy"], row["quantizer"], expected)
        assert answer.objective_value == pytest.approx(objective(row["strategy"], row["quantizer"], widths), rel=1e-12)
        if answer.objective_value < theirs * (1 - 1e-12):
            assert np.count_nonzero(widths != expected) <= 4
            return
    np.testing.assert_array_equal(widths, expected)


def test_mixing_quantizers_beats_each_of_them_at_the_same_bytes(request: pytest.FixtureRequest) -> None:
    reference()  # skips
    allocator = request.getfixturevalue("allocator")

    def ask(bits: float, quantizers: list[quantizer_pb2.Quantizer]) -> bit_map_pb2.BitMap:
        return allocator.GetBitMap(
            service.GetBitMapRequest(model="models/smollm2", quantizers=quantizers,
                                     budget=bit_map_pb2.Budget(effective_bits=bits)), timeout=60).bit_map

    for bits in (3.2, 3.5, 4.0):
        mixed = ask(bits, [])
        assert len(mixed.quantizers) > 1
        assert mixed.effective_bits <= bits
        best = min(ask(bits, [quantizer]).objective_value for quantizer in KINDS.values())
        assert mixed.objective_value < best
        assert mixed.objective_value < mixed.uniform_objective_value


def least_values(statistic: str) -> np.ndarray:
    """The least objective over all mixes, for every sum of page bytes in units of 64, by dynamic programming."""
    tables = np.load(reference() / "distortion_tables.npz")
    best = np.zeros(1)
    for group in range(2 * HEADS):
        head, tensor = group // 2, "kv"[group % 2]
        weight = tables[f"g2_{tensor}"][head] if statistic == "mse" else 1.0
        longer = np.full(len(best) + 8 * 4 + 4, np.inf)
        for name in KINDS:
            for width in range(1 if name == "turbo" else 2, 9):
                cost = width * 4 + OVERHEAD[name] // 64
                ends = slice(cost, cost + len(best))
                value = weight * tables[f"{statistic}_{name}_{tensor}"][head, width]
                longer[ends] = np.minimum(longer[ends], best + value)
        best = longer
    return np.minimum.accumulate(best)


@pytest.mark.parametrize(("objective", "statistic"), [("LOSS_PROJECTED", "c2"), ("MEASURED", "mse")])
def test_mixes_within_bytes_and_loss_are_the_oracles(
    objective: str, statistic: str, request: pytest.FixtureRequest
) -> None:
    best = least_values(statistic)
    allocator = request.getfixturevalue("allocator")

    def ask(**budget: float) -> bit_map_pb2.BitMap:
        return allocator.GetBitMap(
            service.GetBitMapRequest(model="models/smollm2", budget=bit_map_pb2.Budget(**budget),
                                     policy=Policy(objective=objective)), timeout=60).bit_map

    # 127 pages of 32 tokens behind a window of 32, which is fp16; no sinks.
    fp16 = 32 * 2 * HEADS * HEAD_DIM * 2
    for bits in np.linspace(2, 8, 120):
        answer = ask(effective_bits=bits)
        units = int((bits * 4096 * 2 * HEADS * HEAD_DIM / 8 - fp16) / 127 + 1e-9) // 64
        assert answer.optimality_gap == 0
        assert answer.objective_value == pytest.approx(best[min(units, len(best) - 1)], rel=1e-12)
        limit = answer.objective_value / 2 * 1.37
        cheapest = ask(max_loss_increase=limit)
        assert cheapest.optimality_gap == 0
        assert (cheapest.bytes_per_token * 4096 - fp16) / 127 / 64 == pytest.approx(np.argmax(best <= 2 * limit))
