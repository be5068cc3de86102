"""AsyncClient as if it were Client, so that one set of tests holds for both."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import Any

from ratequant import AsyncClient

TIMEOUT = 120


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one loop of this process: grpc.aio takes no second one well."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _wait(awaitable: Any) -> Any:
    async def waited() -> Any:
        return await awaitable

    return asyncio.run_coroutine_threadsafe(waited(), _loop()).result(TIMEOUT)


class BlockingClient:
    """An AsyncClient whose methods wait for their results, on a loop in a thread of its own."""

    def __init__(self, *args: Any, **options: Any):
        self._client = _wait(self._make(*args, **options))

    @staticmethod
    async def _make(*args: Any, **options: Any) -> AsyncClient:
        return AsyncClient(*args, **options)

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc) -> None:
        _wait(self._client.close())

    def calibrate_stream(self, model: str, chunks: Any, **options: Any) -> Any:
        async def asynchronous() -> Any:
            for chunk in chunks:
                yield chunk

        return self._iterate(self._client.calibrate_stream(model, asynchronous(), **options))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if inspect.iscoroutine(result):
                return _wait(result)
            return self._iterate(result) if hasattr(result, "__anext__") else result

        return call

    def _iterate(self, items: Any) -> Any:
        try:
            while True:
                try:
                    yield _wait(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            _wait(items.aclose())
