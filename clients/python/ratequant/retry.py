"""Retries of calls that may safely be made again."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from ratequant.errors import retry_delay

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter for UNAVAILABLE, and for
    RESOURCE_EXHAUSTED from an overloaded service that says when to come back.

    Attributes:
      attempts: calls in all; 1 never retries.
      first_delay: longest pause after the first failure, in seconds.
      multiplier: growth of the pause from one failure to the next.
      longest_delay: the pause never grows beyond this, in seconds.
      sleep, async_sleep, uniform, clock: injected by tests.
    """

    attempts: int = 6
    first_delay: float = 0.1
    multiplier: float = 2.0
    longest_delay: float = 2.0
    sleep: Callable[[float], None] = time.sleep
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more: at least
        half of the step, so that attempts don't bunch up."""
        delay = min(self.first_delay * self.multiplier ** (failures - 1), self.longest_delay)
        return self.uniform(delay / 2, delay)

    def next_pause(self, error: grpc.RpcError, failures: int, deadline: float = math.inf) -> float | None:
        """Seconds to wait before the next attempt after `failures` in a row, the
        last with `error`. None when that is final: anything but UNAVAILABLE, a
        call that a stopping service reset, and RESOURCE_EXHAUSTED with a time to
        wait, which comes on top; all `attempts` used up; or a pause that would
        pass the deadline."""
        asked = retry_delay(error)
        busy = error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and asked is not None
        # What a service resets before it begins arrives as CANCELLED.
        reset = error.code() == grpc.StatusCode.CANCELLED and error.details() != "Channel closed!"
        unavailable = error.code() == grpc.StatusCode.UNAVAILABLE
        if not (busy or reset or unavailable) or failures == self.attempts:
            return None
        pause = self.pause(failures) + (asked or 0.0)
        return pause if self.clock() + pause < deadline else None

    def call(self, attempt: Callable[[float], T], timeout: float) -> T:
        """Calls `attempt(seconds left)` until it succeeds or its error is final
        for a deadline `timeout` seconds from now; raises the error then."""
        deadline = self.clock() + timeout
        for failures in itertools.count(1):
            try:
                return attempt(self._left(deadline))
            except grpc.RpcError as error:
                pause = self.next_pause(error, failures, deadline)
                if pause is None:
                    raise
            self.sleep(pause)
        raise AssertionError("counts for ever")

    async def call_async(self, attempt: Callable[[float], Awaitable[T]], timeout: float) -> T:
        """`call` for asyncio."""
        deadline = self.clock() + timeout
        for failures in itertools.count(1):
            try:
                return await attempt(self._left(deadline))
            except grpc.RpcError as error:
                pause = self.next_pause(error, failures, deadline)
                if pause is None:
                    raise
            await self.async_sleep(pause)
        raise AssertionError("counts for ever")

    def _left(self, deadline: float) -> float:
        return max(deadline - self.clock(), 0.001)
