"""Retries of calls that may safely be made again."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter for UNAVAILABLE.

    Attributes:
      attempts: calls in all; 1 never retries.
      first_delay: longest pause after the first failure, in seconds.
      multiplier: growth of the pause from one failure to the next.
      longest_delay: the pause never grows beyond this, in seconds.
      sleep, uniform, clock: injected by tests.
    """

    attempts: int = 6
    first_delay: float = 0.1
    multiplier: float = 2.0
    longest_delay: float = 2.0
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more: at least
        half of the step, so that attempts don't bunch up."""
        delay = min(self.first_delay * self.multiplier ** (failures - 1), self.longest_delay)
        return self.uniform(delay / 2, delay)

    def call(self, attempt: Callable[[float], T], timeout: float) -> T:
        """Calls `attempt(seconds left)` until it succeeds, fails with anything
        but UNAVAILABLE, `attempts` are used up, or the next pause would pass
        the deadline `timeout` seconds from now; raises the last error then."""
        deadline = self.clock() + timeout
        for number in range(1, self.attempts + 1):
            try:
                return attempt(max(deadline - self.clock(), 0.001))
            except grpc.RpcError as error:
                pause = self.pause(number)
                if (
                    error.code() != grpc.StatusCode.UNAVAILABLE
                    or number == self.attempts
                    or self.clock() + pause >= deadline
                ):
                    raise
            self.sleep(pause)
        raise AssertionError("attempts is at least 1")
