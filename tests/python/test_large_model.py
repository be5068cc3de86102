"""A model of many layers, captured and calibrated within the memory that was configured (ENGINE.md, "Memory")."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from ratequant.client import Client
from ratequant.errors import RateQuantError
from ratequant.services import Services
from tiny_models import TEXT, save_tiny_model

LAYERS, KV_HEADS, HEAD_DIM = 126, 8, 128
SEQUENCES, LENGTH = 2, 128
MIB = 1 << 20
LAYER_BYTES = 4 * KV_HEADS * LENGTH * HEAD_DIM * 4  # K, V and their gradients in fp32.
WORKER_LIMIT, WORKER_PROCESS = 27 * MIB, 64 * MIB
# Well below what the activations of all layers take.
SAVED = 200 * MIB


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama as deep as the largest and with as many KV heads, narrow everywhere else."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv (util-linux), which ties the services to this process")
    return save_tiny_model(
        tmp_path_factory.mktemp("large") / "model",
        hidden_size=64, intermediate_size=512, num_hidden_layers=LAYERS, initializer_range=0.05,
        num_attention_heads=KV_HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
    )  # fmt: skip


def calibrate(services: Services, model: Path) -> str:
    with Client(services.endpoint, worker_endpoint=services.worker_endpoint) as client:
        *_, done = client.calibrate_model(
            "large", str(model), TEXT, sequences=SEQUENCES, sequence_length=LENGTH, timeout=600
        )
    return done.calibration


def worker_peak() -> int:
    """The most bytes that the worker, a child of this process, has had resident."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue  # Ended meanwhile.
        if fields["Name"].strip() == "ratequant-worke" and int(fields["PPid"]) == os.getpid():
            return int(fields["VmHWM"].split()[0]) << 10
    raise AssertionError("no worker")


def engine_peak(services: Services) -> int:
    """What the last engine said of itself in the worker's log."""
    log = (services.data_dir / "ratequant-worker.log").read_text()
    return int(re.findall(r"had at most (\d+) MiB in memory", log)[-1]) * MIB


def engine_need(model: Path) -> int:
    """Bytes that the engine says it needs, when it is refused them."""
    with Services(model.parent, engine_arguments=("--memory-limit", "64MiB")) as services:
        with pytest.raises(RateQuantError, match="more than --memory-limit 64 MiB") as error:
            calibrate(services, model)
    assert error.value.reason == "ENGINE_OUT_OF_MEMORY"
    numbers = re.search(r"the model takes ([\d,]+) MiB and a sequence ([\d,]+) MiB", str(error.value))
    return sum(int(number.replace(",", "")) * MIB for number in numbers.groups())


def test_memory_stays_within_what_is_configured(large_model: Path) -> None:
    engine_limit = engine_need(large_model) + 32 * MIB  # Not every run has the same to the byte.
    with Services(
        large_model.parent,
        worker_arguments=("--memory-limit", str(WORKER_LIMIT)),
        engine_arguments=("--memory-limit", str(engine_limit)),
    ) as services:
        begin = time.monotonic()
        calibration = calibrate(services, large_model)
        seconds = time.monotonic() - begin
        worker, engine = worker_peak(), engine_peak(services)
    passed = SEQUENCES * LAYERS * LAYER_BYTES
    print(f"worker {worker / MIB:.0f} MiB of {WORKER_LIMIT / MIB:.0f} and {WORKER_PROCESS / MIB:.0f}")
    print(f"engine {engine / MIB:.0f} MiB of {engine_limit / MIB:.0f} and the segment")
    print(f"{passed / MIB:.0f} MiB of tensors in shared memory, {passed / 1e6 / seconds:.0f} MB/s from call to answer")
    assert worker <= WORKER_LIMIT + WORKER_PROCESS < passed / 5
    assert engine <= engine_limit + WORKER_LIMIT  # The segment is the worker's.

    # The limits change nothing but the memory.
    with Services(large_model.parent) as services:
        assert calibrate(services, large_model) == calibration
        print(f"without limits: worker {worker_peak() / MIB:.0f} MiB, engine {engine_peak(services) / MIB:.0f} MiB")
        assert engine_peak(services) > engine_limit + WORKER_LIMIT + SAVED
