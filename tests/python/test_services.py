"""The Python client against the real services, and their start and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
import torch
from transformers import AutoModelForCausalLM

from ratequant import Client
from ratequant.errors import RateQuantError
from ratequant.services import ServiceError, Services, find_binary

MODEL = "Tiny"
CALIBRATION = {"sequences": 4, "sequence_length": 64, "quantizers": ("rtn", "turboquant")}


@pytest.fixture(scope="module")
def services(tiny_model):
    with Services(tiny_model.parent) as running:
        yield running


@pytest.fixture
def client(services):
    with Client(services.endpoint, services.worker_endpoint) as client:
        yield client


@pytest.fixture(scope="module")
def calibration(services, tiny_model, tiny_text) -> str:
    """The name of a calibration that is stored and stays."""
    with Client(services.endpoint, services.worker_endpoint) as client:
        *before, last = client.calibrate_model(MODEL, str(tiny_model), tiny_text.read_text(), **CALIBRATION)
    assert last.phase == "DONE" and last.published
    assert "CAPTURING" in {progress.phase for progress in before}
    assert before[-1].tokens_total == 4 * 64
    return last.calibration


def running(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_calibration_is_listed_and_read_back(client, calibration):
    stored = client.get_calibration(MODEL)
    assert stored.name == calibration
    assert len(stored.tables) == 2 and len(stored.tables[0].c2) == 3 * 2 * 2 * 8
    assert [model.name for model in client.list_models()] == [f"models/{MODEL}"]
    assert client.get_model(MODEL).latest_calibration == calibration
    listed = list(client.list_calibrations(MODEL))
    assert [entry.name for entry in listed] == [calibration]
    assert not listed[0].tables[0].c2


def test_storing_the_same_content_again_answers_with_the_stored(client, calibration):
    assert client.create_calibration(MODEL, client.get_calibration(MODEL)).name == calibration


def test_budgets_are_answered_and_a_known_map_is_not_sent_again(client, calibration):
    bit_map = client.get_bit_map(MODEL, effective_bits=6.0)
    assert bit_map.calibration == calibration
    assert bit_map.effective_bits <= 6.0
    assert len(bit_map.width) == 3 * 2 * 2
    etag = bit_map.name.rpartition("/")[2]
    assert client.get_bit_map(MODEL, effective_bits=6.0, known_etag=etag) is None
    assert client.get_bit_map(MODEL, effective_bits=6.0).SerializeToString(deterministic=True) == (
        bit_map.SerializeToString(deterministic=True)
    )


def test_every_kind_of_budget_is_answered(client, calibration):
    by_bytes = client.get_bit_map(MODEL, bytes_per_token=80.0)
    assert by_bytes.bytes_per_token <= 80.0
    by_code = client.get_bit_map(MODEL, code_bits=3.0, quantizers=["rtn"])
    assert by_code.code_bits == 3.0
    loss = by_code.objective_value / 2
    by_loss = client.get_bit_map(MODEL, max_loss_increase=loss, quantizers=["rtn"])
    assert by_loss.objective_value / 2 <= loss


def test_the_curve_falls_with_cost(client, calibration):
    curve = client.get_rate_distortion_curve(MODEL)
    values = [point.objective_value for point in curve.points]
    assert len(values) > 10 and values == sorted(values, reverse=True)


def test_a_plan_has_what_fits_and_says_what_would(client, calibration):
    curve = client.get_rate_distortion_curve(MODEL)
    best = curve.points[len(curve.points) // 2]
    plan = client.plan(MODEL, 3 * best.sequence_bytes, sequences=3)
    assert plan.points[-1].sequence_bytes == best.sequence_bytes
    assert (plan.points[-1].max_sequences, plan.breakpoints) == (3, len(plan.points))
    assert plan.points[0].max_context_tokens > plan.points[-1].max_context_tokens >= 4096
    assert client.plan(MODEL, 3 * best.sequence_bytes, sequences=3, max_points=2).points[-1] == plan.points[-1]
    with pytest.raises(RateQuantError) as failure:
        client.plan(MODEL, 1000, sequences=3)
    assert failure.value.reason == "NOTHING_FITS"
    needed = int(failure.value.metadata["needed_bytes"])
    assert client.plan(MODEL, needed, sequences=3).points[0].sequence_bytes * 3 == needed


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        (lambda c: c.get_model("nobody"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        (lambda c: c.get_calibration(MODEL, "0" * 64), grpc.StatusCode.NOT_FOUND, "CALIBRATION_NOT_FOUND"),
        (lambda c: c.get_bit_map(MODEL, code_bits=0.5, quantizers=["rtn"]), None, "BUDGET"),
        (lambda c: c.get_bit_map(MODEL, effective_bits=0.1), grpc.StatusCode.OUT_OF_RANGE, "BUDGET_BELOW_MINIMUM"),
        (lambda c: c.get_bit_map(MODEL, code_bits=3.0), grpc.StatusCode.INVALID_ARGUMENT, "BUDGET_NEEDS_ONE_QUANTIZER"),
        (
            lambda c: c.get_bit_map(MODEL, code_bits=3.0, quantizers=["quarot"]),
            grpc.StatusCode.FAILED_PRECONDITION,
            "QUANTIZER_NOT_CALIBRATED",
        ),
        (
            lambda c: c.get_bit_map(MODEL, effective_bits=6.0, sink_tokens=0),
            grpc.StatusCode.FAILED_PRECONDITION,
            "CALIBRATION_MISMATCH",
        ),
        (
            lambda c: list(c.calibrate_model(MODEL, "/etc", "text")),
            grpc.StatusCode.PERMISSION_DENIED,
            "MODEL_PATH_OUTSIDE_ROOT",
        ),
        (
            lambda c: list(c.calibrate_model(MODEL, "missing", "text")),
            grpc.StatusCode.NOT_FOUND,
            "MODEL_PATH_NOT_FOUND",
        ),
        (lambda c: list(c.calibrate_model(MODEL, "model", " ")), grpc.StatusCode.INVALID_ARGUMENT, "TEXT_EMPTY"),
        (
            lambda c: list(c.calibrate_model(MODEL, "model", "too short", sequence_length=64)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "TEXT_TOO_SHORT",
        ),
    ],
)
def test_the_services_reasons_reach_the_caller(client, calibration, call, code, reason):
    with pytest.raises(RateQuantError) as caught:
        call(client)
    assert caught.value.reason.startswith(reason)
    if code is not None:
        assert caught.value.code == code


def test_a_deleted_calibration_is_gone(client, calibration, tiny_model, tiny_text):
    *_, last = client.calibrate_model("Short", str(tiny_model), tiny_text.read_text(), **CALIBRATION)
    client.delete_calibration("Short", last.calibration)
    with pytest.raises(RateQuantError) as caught:
        client.get_calibration("Short", last.calibration)
    assert caught.value.code == grpc.StatusCode.NOT_FOUND


def pids(data_dir: Path) -> list[int]:
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(data_dir).encode() in words and b"ratequant-" in words.split(b"\0")[0] and running(int(entry.name)):
            found.append(int(entry.name))
    return found


def test_nothing_is_left_running_afterwards(tmp_path):
    with Services(tmp_path, tmp_path / "data") as started:
        folder = started.data_dir
        assert len(pids(folder)) == 2
    assert not pids(folder)


def test_an_exception_stops_the_services_too(tmp_path):
    with pytest.raises(KeyError):
        with Services(tmp_path, tmp_path / "data"):
            raise KeyError
    assert not pids(tmp_path / "data")


def test_data_is_kept_in_a_given_folder_and_removed_from_a_temporary_one(tmp_path):
    with Services(tmp_path) as started:
        temporary = started.data_dir
        assert temporary.is_dir()
    assert not temporary.exists()
    with Services(tmp_path, tmp_path / "data"):
        pass
    assert (tmp_path / "data" / "allocator").is_dir()


def test_a_data_folder_in_use_is_told_with_the_log(tmp_path):
    with Services(tmp_path, tmp_path / "data"):
        with pytest.raises(ServiceError, match="ratequant-allocator ended with exit status 4") as caught:
            with Services(tmp_path, tmp_path / "data"):
                pass
        assert "end of its log" in str(caught.value)


def test_a_service_that_dies_is_told(tmp_path):
    with Services(tmp_path, tmp_path / "data") as started:
        started.check()
        for pid in pids(tmp_path / "data"):
            os.kill(pid, signal.SIGKILL)
        # A killed process can be waited for only when its last thread is gone.
        with pytest.raises(ServiceError, match="ended with signal 9"):
            wait_until(lambda: started.check())


def test_a_worker_that_cannot_start_takes_the_allocator_with_it(tmp_path):
    with pytest.raises(ServiceError, match="ratequant-worker"):
        with Services(tmp_path / "missing", tmp_path / "data"):
            pass
    assert not pids(tmp_path / "data")


_HOLDER = """
import signal, sys, time
from ratequant.services import Services
# A shell's background jobs ignore it, and what they start does, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Services(sys.argv[1], sys.argv[1] + "/data"):
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_services_end_with_the_process_that_started_them(tmp_path, end):
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"started\n"
        assert len(pids(tmp_path / "data")) == 2
        holder.send_signal(end)
        holder.wait(30)
    assert wait_until(lambda: not pids(tmp_path / "data"))


def test_a_missing_program_is_named_with_the_places(tmp_path, monkeypatch):
    monkeypatch.setenv("RATEQUANT_BIN_DIR", str(tmp_path))
    with pytest.raises(ServiceError, match=f"ratequant-allocator isn't in {tmp_path}"):
        find_binary("ratequant-allocator")


def test_the_readme_lines_for_python_run(root, services, calibration, tiny_model):
    """As they are there, but for the address, the model, and a budget that heads so small can keep."""
    (lines,) = re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    assert len(lines.splitlines()) <= 20
    for written, here in (
        ("127.0.0.1:50061", services.endpoint),
        ("Qwen3-0.6B", MODEL),
        ("effective_bits=3", "effective_bits=9"),
    ):
        assert lines.count(written) == 1
        lines = lines.replace(written, here)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    names = {"model": model, "inputs": inputs | {"max_new_tokens": 4, "do_sample": False}}
    exec(lines, names)
    assert names["cache"].get_seq_length() == 7  # the last token wasn't fed back
