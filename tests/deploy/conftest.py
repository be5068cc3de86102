"""What the tests of deployments share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The tiny model of the Python tests.
sys.path.insert(0, str(ROOT / "tests/python"))


def wait_until_serving(endpoint: Callable[[], str | None], check: Callable[[], None], seconds: float = 120) -> str:
    """Waits until a server answers SERVING and returns its host:port.

    Args:
      endpoint: gives host:port, or None while it isn't known.
      check: fails the test when the server has ended.
      seconds: how long a loaded machine may take.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        address = endpoint()
        if address and _serving(address):
            return address
        time.sleep(0.05)
    pytest.fail(f"no server answered SERVING within {seconds:g} s")


def port_in(file: Path) -> str | None:
    """host:port from a file that --port-file made; None before it is there."""
    return f"127.0.0.1:{file.read_text().strip()}" if file.exists() else None


def _serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
