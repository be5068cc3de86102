#!/usr/bin/env python3
"""Records what a build writes and says, for later builds to be tested against:

    build/venv/bin/python tests/upgrade/record.py BIN_DIR tests/upgrade/golden/COMMIT

BIN_DIR has the programs of the commit that is checked out. Writes into the folder:
  api.pb         the API (FileDescriptorSet, with what it imports)
  store.tar.xz   an allocator's data folder
  spool.tar.xz   a worker's spool with a calibration that waits for an allocator
  exchange.json  calls on that store: method, request and answer in base64
"""

from __future__ import annotations

import base64
import json
import math
import sys
import tarfile
import tempfile
from pathlib import Path

import conftest  # noqa: F401
import grpc
from api import call, current_api
from processes import ENGINE, command, running
from sample import calibration
from tiny_models import TEXT, save_tiny_model

from ratequant import Client
from ratequant.v1 import allocation_service_pb2 as service
from ratequant.v1 import bit_map_pb2, evaluation_pb2, quantizer_pb2

MODELS = ("Tiny", "Other--Tiny")
RTN = quantizer_pb2.Quantizer(kind="RTN")
UNIFORM = bit_map_pb2.Policy(strategy="UNIFORM")


def query(model: str, bits: float, **fields) -> service.GetBitMapRequest:
    """A query with a budget in effective bits."""
    budget = bit_map_pb2.Budget(effective_bits=bits)
    return service.GetBitMapRequest(model=f"models/{model}", budget=budget, **fields)


def fill(endpoint: str) -> None:
    """Something in every table of the store."""
    with Client(endpoint) as client:
        for seed, model in enumerate(MODELS):
            client.create_calibration(model, calibration(seed))
        client.create_calibration(MODELS[0], calibration(7))
    with grpc.insecure_channel(endpoint) as channel:
        policy = service.CreatePolicyRequest(policy_id="narrow", policy=bit_map_pb2.Policy(max_width=4))
        call(channel, "RegistryService/CreatePolicy", policy.SerializeToString())
        best, uniform = (
            service.GetBitMapResponse.FromString(
                call(channel, "AllocationService/GetBitMap", query(MODELS[0], 4, **more).SerializeToString())
            ).bit_map
            for more in ({}, {"policy": UNIFORM, "quantizers": [RTN]})
        )
        request = service.RecordEvaluationRequest(bit_map=best.name, evaluation=evaluation(uniform.name))
        call(channel, "AllocationService/RecordEvaluation", request.SerializeToString())


def evaluation(uniform: str) -> evaluation_pb2.Evaluation:
    """A measurement of a map that beats uniform."""
    return evaluation_pb2.Evaluation(
        uniform_bit_map=uniform,
        text_digest="ab" * 32,
        text="made up",
        tokens=1000,
        fp_perplexity=20.0,
        uniform_perplexity=24.0,
        perplexity=21.0,
        loss_minus_uniform=math.log(21 / 24),
        loss_minus_fp=math.log(21 / 20),
    )


def calls() -> list[tuple[str, object]]:
    """Reads of every kind."""
    name = f"models/{MODELS[0]}"
    latest = f"{name}/calibrations/latest"
    budget = bit_map_pb2.Budget(effective_bits=5)
    batch = service.BatchGetBitMapsRequest(requests=[query(MODELS[0], bits) for bits in (3, 6)])
    return [
        ("RegistryService/ListModels", service.ListModelsRequest()),
        ("RegistryService/GetModel", service.GetModelRequest(name=name)),
        ("RegistryService/GetCalibration", service.GetCalibrationRequest(name=latest)),
        ("RegistryService/ListCalibrations", service.ListCalibrationsRequest(parent=name)),
        ("RegistryService/ListEvaluations", service.ListEvaluationsRequest(parent=name)),
        ("RegistryService/ListPolicies", service.ListPoliciesRequest()),
        ("AllocationService/GetBitMap", query(MODELS[0], 4)),
        ("AllocationService/GetBitMap", query(MODELS[0], 4, policy=UNIFORM, quantizers=[RTN])),
        ("AllocationService/GetBitMap", query(MODELS[1], 2.5, policy_name="policies/narrow")),
        ("AllocationService/BatchGetBitMaps", batch),
        (
            "AllocationService/GetRateDistortionCurve",
            service.GetRateDistortionCurveRequest(model=name, quantizers=[RTN], cost="CODE_BITS"),
        ),
        ("AllocationService/GetBitMap", service.GetBitMapRequest(model=name, budget=budget, quantizers=[RTN])),
    ]


def exchange(endpoint: str) -> list[dict[str, str]]:
    """The calls and their answers."""
    encode = lambda content: base64.b64encode(content).decode()  # noqa: E731
    rows = []
    with grpc.insecure_channel(endpoint) as channel:
        for method, request in calls():
            sent = request.SerializeToString(deterministic=True)
            rows.append({"method": method, "request": encode(sent), "answer": encode(call(channel, method, sent))})
    return rows


def record_spool(bin_dir: Path, folder: Path) -> None:
    """A calibration made by a worker that publishes nothing."""
    save_tiny_model(folder / "models/tiny")
    (folder / "text").write_text(TEXT)
    arguments = ["--model-root", folder / "models", "--spool-dir", folder / "spool", "--no-publish", "--engine", ENGINE]
    with running(bin_dir / "ratequant-worker", folder, *arguments) as worker:
        options = ["--model", "Spooled", "--model-path", "tiny", "--text", folder / "text", "--quantizer", "rtn"]
        options += ["--sequences", "2", "--sequence-length", "64"]
        command(bin_dir, "127.0.0.1:1", "calibrate", *options, worker=worker)


def pack(folder: Path, archive: Path) -> None:
    """A folder's content without RocksDB's logs for people."""
    keep = lambda entry: None if Path(entry.name).name.startswith("LOG") else entry  # noqa: E731
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(folder, arcname=".", filter=keep)


def main() -> None:
    bin_dir, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True)
    (out / "api.pb").write_bytes(current_api().SerializeToString(deterministic=True))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running(bin_dir / "ratequant-allocator", folder, "--data-dir", folder / "data") as endpoint:
            fill(endpoint)
        # Opened again, the store has tables and a log.
        with running(bin_dir / "ratequant-allocator", folder, "--data-dir", folder / "data") as endpoint:
            rows = exchange(endpoint)
        (out / "exchange.json").write_text(json.dumps(rows, indent=1) + "\n")
        pack(folder / "data", out / "store.tar.xz")
        record_spool(bin_dir, folder)
        pack(folder / "spool", out / "spool.tar.xz")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
