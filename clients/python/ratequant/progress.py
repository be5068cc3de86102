"""Progress of a running calibration."""

from __future__ import annotations

import dataclasses

from ratequant.v1 import calibration_service_pb2


@dataclasses.dataclass(frozen=True)
class CalibrationProgress:
    """One sign of life of a running calibration.

    Attributes:
      phase: "QUEUED", "LOADING", "CAPTURING", "FITTING", "PUBLISHING" or "DONE".
      tokens_done, tokens_total: tokens swept and in all; total 0 while unknown.
      elapsed, sweep_time: seconds.
      remaining: estimated seconds left, None while unknown.
      queue_position, expected_wait: with QUEUED, 1 for the next to run, and
        estimated seconds until then, None while unknown.
      calibration: resource name of the calibration; only with DONE.
      published: with DONE, False when the worker keeps the calibration on its
        disk because the allocator could not be reached.
      warnings: with DONE, what to know before trusting the calibration.
    """

    phase: str
    tokens_done: int
    tokens_total: int
    elapsed: float
    remaining: float | None
    sweep_time: float
    calibration: str
    published: bool
    warnings: tuple[str, ...]
    queue_position: int = 0
    expected_wait: float | None = None

    @classmethod
    def from_message(cls, message: calibration_service_pb2.CalibrateProgress) -> CalibrationProgress:
        """The Python form of one message of the stream."""
        remaining = message.remaining.ToTimedelta().total_seconds()
        expected = message.expected_wait.ToTimedelta().total_seconds()
        return cls(
            phase=calibration_service_pb2.CalibrateProgress.Phase.Name(message.phase),
            tokens_done=message.tokens_done,
            tokens_total=message.tokens_total,
            elapsed=message.elapsed.ToTimedelta().total_seconds(),
            remaining=remaining if message.HasField("remaining") else None,
            sweep_time=message.sweep_time.ToTimedelta().total_seconds(),
            calibration=message.calibration,
            published=message.published,
            warnings=tuple(message.warnings),
            queue_position=message.queue_position,
            expected_wait=expected if message.HasField("expected_wait") else None,
        )
