"""AsyncClient as if it were Client, so that one set of tests holds for both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from ratequant import AsyncClient

TIMEOUT = 120


class BlockingClient:
    """An AsyncClient on a loop in a thread of its own; its methods wait for their results."""

    def __init__(self, *args: Any, **options: Any):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = self._wait(self._make(*args, **options))

    @staticmethod
    async def _make(*args: Any, **options: Any) -> AsyncClient:
        return AsyncClient(*args, **options)

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc) -> None:
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

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
                return self._wait(result)
            return self._iterate(result) if hasattr(result, "__anext__") else result

        return call

    def _iterate(self, items: Any) -> Any:
        try:
            while True:
                try:
                    yield self._wait(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(items.aclose())

    def _wait(self, awaitable: Any) -> Any:
        async def waited() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(waited(), self._loop).result(TIMEOUT)
