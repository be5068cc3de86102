"""What the synchronous and the asyncio client are made of: endpoints, channels,
stubs, errors, and how a watch goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import grpc

from ratequant import requests
from ratequant.errors import RateQuantError
from ratequant.retry import RetryPolicy
from ratequant.transport import Transport, TransportChannel
from ratequant.v1 import (
    allocation_service_pb2 as allocation,
    allocation_service_pb2_grpc as allocation_grpc,
    bit_map_pb2,
    calibration_service_pb2_grpc as worker_grpc,
)

ENDPOINT_VARIABLE = "RATEQUANT_ENDPOINT"
WORKER_ENDPOINT_VARIABLE = "RATEQUANT_WORKER_ENDPOINT"

_CHANNEL_OPTIONS = [
    # Calibrations of large models are a few MiB; calibration texts too.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # One retry mechanism: RetryPolicy.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Connections:
    """Channels to the allocator and the worker, which connect on the first call."""

    # grpc or grpc.aio: where channels come from.
    _grpc: Any = grpc

    def __init__(
        self,
        endpoint: str | None = None,
        worker_endpoint: str | None = None,
        *,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        tls: bool | None = None,
        tls_ca: str | os.PathLike | None = None,
        tls_cert: str | os.PathLike | None = None,
        tls_key: str | os.PathLike | None = None,
        token_file: str | os.PathLike | None = None,
        insecure: bool | None = None,
    ):
        """
        Args:
          endpoint: the allocator as host:port; default $RATEQUANT_ENDPOINT.
          worker_endpoint: the worker as host:port; default
            $RATEQUANT_WORKER_ENDPOINT. Needed only to calibrate.
          timeout: deadline of each method in seconds, retries included.
          retry: how reads are retried.
          credentials: TLS credentials in place of the files below.
          tls, tls_ca, tls_cert, tls_key, token_file, insecure: see
            `ratequant.transport.Transport`; default $RATEQUANT_TLS,
            $RATEQUANT_TLS_CA and so on. Without TLS only a service on this
            machine is called, unless `insecure`.

        Raises:
          ValueError: plaintext to another machine, or a certificate without its
            key.
          OSError: a file can't be read.
        """
        self._endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
        self._worker_endpoint = worker_endpoint or os.environ.get(WORKER_ENDPOINT_VARIABLE, "")
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._credentials = credentials
        self._transport = Transport.from_environment(
            tls=tls, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, token_file=token_file, insecure=insecure
        )
        self._channels: list[Any] = []
        self._registry_stub = self._allocation_stub = self._worker_stub = None
        if self._endpoint:
            channel = self._open(self._endpoint)
            self._registry_stub = allocation_grpc.RegistryServiceStub(channel)
            self._allocation_stub = allocation_grpc.AllocationServiceStub(channel)
        if self._worker_endpoint:
            self._worker_stub = worker_grpc.CalibrationServiceStub(self._open(self._worker_endpoint))

    @staticmethod
    def bit_map_request(model: str, **query: Any) -> allocation.GetBitMapRequest:
        """Returns a query for the best bit map within one budget; arguments as
        for `ratequant.requests.bit_map`."""
        return requests.bit_map(model, **query)

    def _open(self, endpoint: str) -> Any:
        """A channel, or what stands for one."""
        if self._credentials is not None:
            return self._open_channel(endpoint, self._credentials)
        if self._transport.encrypted or self._transport.token_file:
            return TransportChannel(self._transport, endpoint, lambda made: self._open_channel(endpoint, made))
        return self._open_channel(endpoint, self._transport.credentials(endpoint))

    def _open_channel(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> Any:
        if credentials is None:
            channel = self._grpc.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        else:
            channel = self._grpc.secure_channel(endpoint, credentials, options=_CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel

    @property
    def _registry(self) -> allocation_grpc.RegistryServiceStub:
        return self._connected(self._registry_stub, "endpoint", ENDPOINT_VARIABLE, "allocator")

    @property
    def _allocation(self) -> allocation_grpc.AllocationServiceStub:
        return self._connected(self._allocation_stub, "endpoint", ENDPOINT_VARIABLE, "allocator")

    @property
    def _worker(self) -> worker_grpc.CalibrationServiceStub:
        return self._connected(self._worker_stub, "worker_endpoint", WORKER_ENDPOINT_VARIABLE, "worker")

    @staticmethod
    def _connected(stub: Any, argument: str, variable: str, service: str) -> Any:
        if stub is None:
            raise ValueError(f"no {service} endpoint: pass {argument} or set {variable}")
        return stub

    def _allocator_error(self, error: grpc.RpcError) -> RateQuantError:
        return RateQuantError.from_rpc(error, f"allocator {self._endpoint}")

    def _worker_error(self, error: grpc.RpcError) -> RateQuantError:
        return RateQuantError.from_rpc(error, f"worker {self._worker_endpoint}")


class Watch:
    """Where a watch of a bit map is, over calls that fail."""

    def __init__(self, request: allocation.GetBitMapRequest):
        self.request = request
        self._failures, self._resumed = 0, False

    def is_news(self, response: allocation.GetBitMapResponse) -> bool:
        """Takes an answer, and says whether the caller doesn't have it yet."""
        self._failures = 0
        self.request.known_etag = response.etag
        return not (self._resumed and response.unchanged)

    def pause_after(self, error: grpc.RpcError, retry: RetryPolicy) -> float | None:
        """Seconds until the next call, None when the error is final."""
        self._failures += 1
        self._resumed = True
        return retry.next_pause(error, self._failures)


def bit_map_of(response: allocation.GetBitMapResponse) -> bit_map_pb2.BitMap | None:
    """The answer's bit map; None when the known one still is the answer."""
    return response.bit_map if response.WhichOneof("result") == "bit_map" else None


def results_of(
    response: allocation.BatchGetBitMapsResponse,
) -> Sequence[allocation.GetBitMapResponse | RateQuantError]:
    """The answers to a batch, in place of one that failed its error."""
    return [
        result.response if result.WhichOneof("result") == "response" else RateQuantError.from_status(result.error)
        for result in response.results
    ]
