"""Errors of the Python client."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class RateQuantError(Exception):
    """An RPC that failed, with everything the service said about it.

    Attributes:
      code: the gRPC status code.
      reason: the stable reason of `google.rpc.ErrorInfo`, for example
        "MODEL_NOT_FOUND"; empty when the error did not come from RateQuant
        itself (a refused connection, a deadline).
      message: the sentence for people.
      metadata: ErrorInfo's metadata.
      violations: (field, description) pairs of `google.rpc.BadRequest`.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        violations: list[tuple[str, str]] | None = None,
    ):
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = list(violations or [])
        super().__init__(code, message)

    def __str__(self) -> str:
        label = f"{self.code.name} {self.reason}".rstrip()
        text = f"{label}: {self.message}"
        for field, description in self.violations:
            if description and description not in self.message:
                text += f"\n  {field}: {description}"
        return text

    @classmethod
    def from_rpc(cls, error: grpc.RpcError, target: str = "") -> RateQuantError:
        """Turns a gRPC error into a RateQuantError. `target` is named when the
        service could not be reached."""
        result = cls._from_details(error.code(), error.details() or "", _details(error))
        if target and not result.reason and result.code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            result.message = f"{result.message} ({target})"
        return result

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> RateQuantError:
        """Turns an error inside of a response into a RateQuantError."""
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        return cls._from_details(code, status.message, status.details)

    @classmethod
    def _from_details(cls, code: grpc.StatusCode, message: str, details) -> RateQuantError:
        reason, metadata, violations = "", {}, []
        for detail in details:
            info = error_details_pb2.ErrorInfo()
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad_request):
                violations = [(v.field, v.description) for v in bad_request.field_violations]
        return cls(code, message, reason=reason, metadata=metadata, violations=violations)


def retry_delay(error: grpc.RpcError) -> float | None:
    """Seconds that a service asks to wait before the next attempt
    (`google.rpc.RetryInfo`), None when it doesn't say."""
    for detail in _details(error):
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.seconds + info.retry_delay.nanos * 1e-9
    return None


def _details(error: grpc.RpcError):
    try:
        status = rpc_status.from_call(error)
    except (ValueError, AttributeError):
        # A status whose details contradict its code carries nothing to trust.
        return []
    return status.details if status is not None else []
