"""Errors of the Python client."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
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
        code, message = error.code(), error.details() or ""
        reason, metadata, violations = "", {}, []
        for detail in _details(error):
            info = error_details_pb2.ErrorInfo()
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad_request):
                violations = [(v.field, v.description) for v in bad_request.field_violations]
        if target and not reason and code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            message = f"{message} ({target})"
        return cls(code, message, reason=reason, metadata=metadata, violations=violations)


def _details(error: grpc.RpcError):
    try:
        status = rpc_status.from_call(error)
    except (ValueError, AttributeError):
        # A status whose details contradict its code carries nothing to trust.
        return []
    return status.details if status is not None else []
