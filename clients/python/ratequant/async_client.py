"""The asyncio client of the allocator and the calibration worker."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from ratequant import requests
from ratequant.connections import Connections, Watch, bit_map_of, results_of
from ratequant.errors import RateQuantError
from ratequant.progress import CalibrationProgress
from ratequant.v1 import (
    allocation_service_pb2 as allocation,
    bit_map_pb2,
    calibration_pb2,
    calibration_service_pb2 as worker,
    evaluation_pb2,
    model_pb2,
)


class AsyncClient(Connections):
    """`ratequant.Client` for asyncio: the same methods with the same arguments,
    errors and retries, as coroutines and asynchronous iterators.

        async with AsyncClient(endpoint="127.0.0.1:50061") as client:
            bit_map = await client.get_bit_map("Qwen3-0.6B", effective_bits=3)

    Made and used in one running event loop. Cancelling a task cancels its call;
    closing an iterator (`aclose`) ends its stream.
    """

    _grpc = grpc.aio

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channels; calls still running are cancelled."""
        for channel in self._channels:
            await channel.close()

    # Registry

    def list_models(self, id_prefix: str = "") -> AsyncIterator[model_pb2.Model]:
        """As Client.list_models."""
        request = allocation.ListModelsRequest(id_prefix=id_prefix)
        return self._pages(self._registry.ListModels, request, "models")

    async def get_model(self, model: str) -> model_pb2.Model:
        """As Client.get_model."""
        return await self._read(self._registry.GetModel, requests.get_model(model))

    def list_calibrations(
        self,
        model: str,
        *,
        quantizer: str = "",
        created_from: datetime.datetime | None = None,
        created_before: datetime.datetime | None = None,
    ) -> AsyncIterator[calibration_pb2.Calibration]:
        """As Client.list_calibrations."""
        request = requests.list_calibrations(
            model, quantizer=quantizer, created_from=created_from, created_before=created_before
        )
        return self._pages(self._registry.ListCalibrations, request, "calibrations")

    async def get_calibration(self, model: str, calibration: str = "latest") -> calibration_pb2.Calibration:
        """As Client.get_calibration."""
        return await self._read(self._registry.GetCalibration, requests.get_calibration(model, calibration))

    async def create_calibration(
        self, model: str, calibration: calibration_pb2.Calibration
    ) -> calibration_pb2.Calibration:
        """As Client.create_calibration."""
        return await self._once(self._registry.CreateCalibration, requests.create_calibration(model, calibration))

    async def delete_calibration(self, model: str, calibration: str, *, force: bool = False) -> None:
        """As Client.delete_calibration."""
        request = requests.delete_calibration(model, calibration, force=force)
        await self._once(self._registry.DeleteCalibration, request)

    def list_evaluations(self, model: str, bit_map: str = "") -> AsyncIterator[evaluation_pb2.Evaluation]:
        """As Client.list_evaluations."""
        request = requests.list_evaluations(model, bit_map)
        return self._pages(self._registry.ListEvaluations, request, "evaluations")

    async def delete_evaluation(self, name: str) -> None:
        """As Client.delete_evaluation."""
        await self._once(self._registry.DeleteEvaluation, allocation.DeleteEvaluationRequest(name=name))

    # Allocation

    async def get_bit_map(self, model: str, **query: Any) -> bit_map_pb2.BitMap | None:
        """As Client.get_bit_map."""
        return bit_map_of(await self.query_bit_map(model, **query))

    async def query_bit_map(self, model: str, **query: Any) -> allocation.GetBitMapResponse:
        """As Client.query_bit_map."""
        return await self._read(self._allocation.GetBitMap, self.bit_map_request(model, **query))

    async def batch_get_bit_maps(
        self, queries: Sequence[allocation.GetBitMapRequest]
    ) -> Sequence[allocation.GetBitMapResponse | RateQuantError]:
        """As Client.batch_get_bit_maps."""
        request = allocation.BatchGetBitMapsRequest(requests=queries)
        return results_of(await self._read(self._allocation.BatchGetBitMaps, request))

    async def watch_bit_map(self, model: str, **query: Any) -> AsyncIterator[allocation.GetBitMapResponse]:
        """As Client.watch_bit_map."""
        watch = Watch(self.bit_map_request(model, **query))
        while True:
            call = self._allocation.WatchBitMap(watch.request)
            try:
                async for response in call:
                    if watch.is_news(response):
                        yield response
                return
            except grpc.RpcError as error:
                pause = watch.pause_after(error, self._retry)
                if pause is None:
                    raise self._allocator_error(error) from error
            finally:
                call.cancel()
            await self._retry.async_sleep(pause)

    async def record_evaluation(
        self, bit_map: str, evaluation: evaluation_pb2.Evaluation
    ) -> evaluation_pb2.Evaluation:
        """As Client.record_evaluation."""
        request = allocation.RecordEvaluationRequest(bit_map=bit_map, evaluation=evaluation)
        return await self._read(self._allocation.RecordEvaluation, request)

    async def get_rate_distortion_curve(self, model: str, **options: Any) -> allocation.RateDistortionCurve:
        """As Client.get_rate_distortion_curve."""
        return await self._read(self._allocation.GetRateDistortionCurve, requests.curve(model, **options))

    async def plan(
        self, model: str, memory_bytes: int, *, sequences: int = 1, context_tokens: int = 0, **options: Any
    ) -> allocation.RateDistortionCurve:
        """As Client.plan."""
        request = requests.plan(
            model, memory_bytes, sequences=sequences, context_tokens=context_tokens, **options
        )
        return await self._read(self._allocation.GetRateDistortionCurve, request)

    # Calibration

    def calibrate_model(
        self, model: str, model_path: str, text: str, *, timeout: float = 3600.0, **options: Any
    ) -> AsyncIterator[CalibrationProgress]:
        """As Client.calibrate_model."""
        request = requests.calibrate_model(model, model_path, text, **options)
        return self._progress(self._worker.CalibrateModel, request, timeout)

    def calibrate_stream(
        self, model: str, chunks: AsyncIterable[worker.CalibrateChunk], timeout: float = 3600.0
    ) -> AsyncIterator[CalibrationProgress]:
        """As Client.calibrate_stream, from an asynchronous iterable."""
        named = (requests.named_chunk(model, chunk) async for chunk in chunks)
        return self._progress(self._worker.CalibrateStream, named, timeout)

    # Calls

    async def _read(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return await self._retry.call_async(lambda left: method(request, timeout=left), self._timeout)
        except grpc.RpcError as error:
            raise self._allocator_error(error) from error

    async def _once(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._allocator_error(error) from error

    async def _pages(self, method: Callable[..., Any], request: Any, items: str) -> AsyncIterator[Any]:
        while True:
            page = await self._read(method, request)
            for item in getattr(page, items):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _progress(
        self, method: Callable[..., Any], request: Any, timeout: float
    ) -> AsyncIterator[CalibrationProgress]:
        call = method(request, timeout=timeout)
        try:
            async for message in call:
                yield CalibrationProgress.from_message(message)
        except grpc.RpcError as error:
            raise self._worker_error(error) from error
        finally:
            call.cancel()
