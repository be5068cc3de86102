"""Every way the engine can fail ends in one `error` message with its reason, and exit status 1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_worker import EngineRun
from ratequant.capture import CaptureError, Geometry
from ratequant.capture.engine import _describe
from ratequant.capture.errors import is_out_of_memory
from ratequant.capture.segment import Segment
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model

LENGTH = 32


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    return path


# --- Text -------------------------------------------------------------------------------


def test_empty_text(tiny_model: Path, tmp_path: Path) -> None:
    with EngineRun(tiny_model, write(tmp_path, b"\n \n"), 1, LENGTH) as run:
        reason, message = run.failure()
    assert reason == "TEXT_EMPTY" and "own.txt" in message


def test_text_too_short(tiny_model: Path, tmp_path: Path) -> None:
    with EngineRun(tiny_model, write(tmp_path, b"the quick brown fox"), 4, LENGTH) as run:
        reason, message = run.failure()
    assert reason == "TEXT_TOO_SHORT" and "4 sequences of 32 need 128" in message


@pytest.mark.parametrize(("content", "found"), [(b"a\xff", "not UTF-8: byte 1"), (None, "No such file")])
def test_text_that_cannot_be_read(tiny_model: Path, tmp_path: Path, content: bytes | None, found: str) -> None:
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    with EngineRun(tiny_model, path, 1, LENGTH) as run:
        reason, message = run.failure()
    assert reason == "ENGINE_ERROR" and found in message and "own.txt" in message


# --- Model ------------------------------------------------------------------------------


def test_no_model_folder(tiny_text: Path, tmp_path: Path) -> None:
    with EngineRun(tmp_path / "none", tiny_text, 1, LENGTH) as run:
        reason, message = run.failure()
    assert reason == "MODEL_UNREADABLE" and str(tmp_path / "none") in message


def test_truncated_weights(folder: Path, tiny_text: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 100)
    with EngineRun(folder, tiny_text, 1, LENGTH) as run:
        reason, message = run.failure()
    assert reason == "MODEL_UNREADABLE" and f"{path} is truncated" in message


def test_unsupported_model(folder: Path, tiny_text: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with EngineRun(folder, tiny_text, 1, LENGTH) as run:
        reason, message = run.failure()
    assert reason == "UNSUPPORTED_MODEL" and "encoder-decoder" in message


def test_weights_that_are_not_numbers(folder: Path, tiny_text: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    with EngineRun(folder, tiny_text, 1, LENGTH) as run:
        run.start(run.receive("hello"), 4)
        reason, message = run.failure()
    assert reason == "ENGINE_ERROR" and "loss is nan" in message


# --- Memory -----------------------------------------------------------------------------


def test_out_of_memory(tiny_text: Path, tmp_path: Path) -> None:
    """One activation of this model is 17 GB, in an address space of 12."""
    folder = save_tiny_model(
        tmp_path / "wide", hidden_size=8, head_dim=4, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=1 << 20, num_hidden_layers=1,
    )  # fmt: skip
    text = write(tmp_path, tiny_text.read_bytes() * 10)
    script = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30));"
        "runpy.run_module('ratequant.capture.engine', run_name='__main__', alter_sys=True)"
    )
    with EngineRun(folder, text, 1, 4096, launcher=["-c", script], OMP_NUM_THREADS="2", MALLOC_ARENA_MAX="2") as run:
        run.start(run.receive("hello"), 1)
        reason, message = run.failure()
    assert reason == "ENGINE_OUT_OF_MEMORY" and "out of memory" in message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_every_kind_of_out_of_memory_is_known(error: Exception) -> None:
    assert is_out_of_memory(error) and _describe(error)[0] == "ENGINE_OUT_OF_MEMORY"


def test_other_errors_are_not_out_of_memory() -> None:
    assert _describe(RuntimeError("shapes differ")) == ("ENGINE_ERROR", "RuntimeError: shapes differ")


# --- A worker that breaks the protocol --------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("no json", "'no json', not a JSON object"),
        ("[1]", "'[1]', not a JSON object"),
        ('{"type": "release", "slot": 0}', "expected 'start'"),
        ('{"type": "start", "slots": 1}', "start is incomplete"),
        ('{"type": "start", "segment": "/nowhere", "slots": 1, "slot_bytes": 8192}', "'/nowhere': No such file"),
    ],
)
def test_bad_start(tiny_model: Path, tiny_text: Path, line: str, found: str) -> None:
    with EngineRun(tiny_model, tiny_text, 1, LENGTH) as run:
        run.receive("hello")
        run.send_line(line)
        reason, message = run.failure()
    assert reason == "ENGINE_ERROR" and found in message


@pytest.mark.parametrize(
    ("path", "slots", "slot_bytes", "found"),
    [
        ("/nowhere", 1, 8192, "'/nowhere': No such file"),
        ("/nowhere", 1, 8191, "at least 1 of 8192"),
        ("/nowhere", 0, 8192, "0 slots"),
        ("/dev/null", 1, 8192, "has 0 bytes, not 8192"),
    ],
)
def test_bad_segment(path: str, slots: int, slot_bytes: int, found: str) -> None:
    with pytest.raises(CaptureError, match=found) as caught:
        Segment(path, slots, slot_bytes, Geometry(3, 2, 4, 8), LENGTH, torch.float32)
    assert caught.value.reason == "ENGINE_ERROR"


@pytest.mark.parametrize("slot", [1, None])
def test_bad_release(tiny_model: Path, tiny_text: Path, slot: object) -> None:
    with EngineRun(tiny_model, tiny_text, 1, LENGTH) as run:
        run.start(run.receive("hello"), 1)
        run.receive("layer")
        run.send("release", slot=slot)
        reason, message = run.failure()
    assert reason == "ENGINE_ERROR" and f"released slot {slot!r}" in message


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--sequences", "0", "--sequence-length", "32"], "--sequences is 0"),
        (["--sequences", "1", "--sequence-length", "1"], "--sequence-length is 1"),
        (["--sequences", "1"], "--sequence-length"),
    ],
)
def test_bad_arguments(arguments: list[str], found: str) -> None:
    command = [sys.executable, "-m", "ratequant.capture.engine", "--model", "m", "--text", "t", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and found in ended.stderr and ended.stdout == ""
