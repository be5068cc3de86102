"""`ratequant replay` on a recorded capture of a real model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from google.protobuf import json_format
from ratequant.capture.record import RecordOptions, record
from ratequant.services import ServiceError, find_binary
from ratequant.v1 import bit_map_pb2, quantizer_pb2

SEQUENCES, LENGTH = 2, 160
LAYERS, KV_HEADS, HEAD_DIM = 30, 3, 64


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return Path(find_binary("ratequant"))
    except ServiceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def capture(smollm2: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 over the README."""
    path = tmp_path_factory.mktemp("capture") / "smollm2.safetensors"
    record(RecordOptions(smollm2, root / "README.md", path, SEQUENCES, LENGTH, gradients=True))
    return path


def replay(program: Path, capture: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), "replay", "--capture", str(capture), "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def results(program: Path, capture: Path, *arguments: str) -> dict[str, dict]:
    done = replay(program, capture, *arguments)
    assert done.returncode == 0, done.stderr
    return {result["map"]: result for result in json.loads(done.stdout)["maps"]}


def make_map(path: Path, layers: int = LAYERS) -> Path:
    """K of every head in kivi with 6 bits, V in turboquant with 3, layer 0 in fp16."""
    bit_map = bit_map_pb2.BitMap(
        geometry={"layers": layers, "kv_heads": KV_HEADS, "query_heads": 9, "head_dim": HEAD_DIM},
        quantizers=[{"kind": quantizer_pb2.Quantizer.KIVI}, {"kind": quantizer_pb2.Quantizer.TURBOQUANT}],
        format_version=1,
    )
    for group in range(layers * KV_HEADS * 2):
        bit_map.quantizer_index.append(group % 2)
        bit_map.width.append(16 if group < KV_HEADS * 2 else (6, 3)[group % 2])
    path.write_text(json_format.MessageToJson(bit_map, preserving_proto_field_name=True))
    return path


def test_error_and_bytes_follow_the_bits(program: Path, capture: Path, tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.json")
    maps = ["fp16", "kivi:8", "kivi:4", "kivi:3", "kivi:2"]
    found = results(program, capture, "--uniform", *maps, "--map", str(path))
    errors = {name: result["error"]["mean"] for name, result in found.items()}
    assert 0 < errors["fp16"] < 1e-3  # fp16's rounding
    for more, fewer in zip(maps, maps[1:]):
        assert 1.5 * errors[more] < errors[fewer]
        assert found[more]["effective_bits"] > found[fewer]["effective_bits"]
    assert errors["kivi:8"] < 0.02 and errors["kivi:2"] < 1

    mixed = found[str(path)]
    assert errors["kivi:8"] < mixed["error"]["mean"] < errors["kivi:2"]
    layers = mixed["error"]["layers"]
    assert len(layers) == LAYERS
    assert layers[0]["mean"] == pytest.approx(found["fp16"]["error"]["layers"][0]["mean"])
    assert layers[1]["mean"] > 10 * layers[0]["mean"]
    for result in found.values():
        elements = LAYERS * KV_HEADS * 2 * HEAD_DIM * LENGTH
        assert result["effective_bits"] == pytest.approx(8 * result["allocated_bytes"] / elements)
        assert result["append_tokens_per_second"] > 0 and result["attend_tokens_per_second"] > 0


def test_a_map_of_another_model_is_refused(program: Path, capture: Path, tmp_path: Path) -> None:
    done = replay(program, capture, "--map", str(make_map(tmp_path / "map.json", layers=28)))
    assert done.returncode == 1 and done.stdout == ""
    assert "the bit map is for 28 layers of 3 KV heads with head_dim 64" in done.stderr
    assert "the capture, of SmolLM2-135M-Instruct, has 30 layers of 3 KV heads" in done.stderr


def test_changed_bytes_of_a_real_capture_never_end_the_reader(program: Path, capture: Path) -> None:
    fuzz = program.parent.parent / "tests" / "capture_file_test"
    if not fuzz.exists():
        pytest.skip(f"{fuzz} is not built")
    done = subprocess.run(
        [fuzz, "--gtest_filter=CaptureFuzzTest.*"],
        env={**os.environ, "RATEQUANT_CAPTURE": str(capture)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[  PASSED  ] 2 tests." in done.stdout
