"""Waiting for services that tests start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]


def wait_until_serving(port_file: Path, check: Callable[[], None], seconds: float = 120) -> str:
    """Waits until a service on this machine answers SERVING; returns its host:port.

    Args:
      port_file: what its --port-file names.
      check: raises when the service has ended.
      seconds: how long a loaded machine may take.

    Raises:
      TimeoutError: it doesn't serve.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        if port_file.exists():
            address = f"127.0.0.1:{port_file.read_text().strip()}"
            if _serving(address):
                return address
        time.sleep(0.05)
    raise TimeoutError(f"no server answered SERVING within {seconds:g} s")


def _serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
