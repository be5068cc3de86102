"""The synchronous Python client of the allocator and the calibration worker."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from ratequant import requests
from ratequant.connections import (
    ENDPOINT_VARIABLE,
    WORKER_ENDPOINT_VARIABLE,
    Connections,
    Watch,
    bit_map_of,
    results_of,
)
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

__all__ = ["ENDPOINT_VARIABLE", "WORKER_ENDPOINT_VARIABLE", "Client"]


class Client(Connections):
    """Synchronous client of `ratequant-allocator` and `ratequant-worker`;
    `ratequant.AsyncClient` is the same for asyncio.

    Channels connect on the first call. Reads are retried with backoff while a
    service is UNAVAILABLE; calls that change something are made once.

    Every method raises RateQuantError when a call fails and ValueError for an
    argument that can't be right (no call is made then). Thread-safe. Use as a
    context manager, or call `close`.
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channels; calls still running are cancelled."""
        for channel in self._channels:
            channel.close()

    # Registry

    def list_models(self, id_prefix: str = "") -> Iterator[model_pb2.Model]:
        """Yields models in the order of their ids, page by page: all, or those
        whose id begins with `id_prefix`."""
        request = allocation.ListModelsRequest(id_prefix=id_prefix)
        return self._pages(self._registry.ListModels, request, "models")

    def get_model(self, model: str) -> model_pb2.Model:
        """Returns one model, by id, hub name or resource name."""
        return self._read(self._registry.GetModel, requests.get_model(model))

    def list_calibrations(
        self,
        model: str,
        *,
        quantizer: str = "",
        created_from: datetime.datetime | None = None,
        created_before: datetime.datetime | None = None,
    ) -> Iterator[calibration_pb2.Calibration]:
        """Yields a model's calibrations, newest first, without their tables:
        all, or those that measured `quantizer` and were stored in a time."""
        request = requests.list_calibrations(
            model, quantizer=quantizer, created_from=created_from, created_before=created_before
        )
        return self._pages(self._registry.ListCalibrations, request, "calibrations")

    def get_calibration(self, model: str, calibration: str = "latest") -> calibration_pb2.Calibration:
        """Returns one calibration with its tables. `calibration` is an id, a
        full resource name, or "latest"."""
        return self._read(self._registry.GetCalibration, requests.get_calibration(model, calibration))

    def create_calibration(
        self, model: str, calibration: calibration_pb2.Calibration
    ) -> calibration_pb2.Calibration:
        """Stores a calibration and returns it under its name. Storing the same
        content again returns the stored one."""
        return self._once(self._registry.CreateCalibration, requests.create_calibration(model, calibration))

    def delete_calibration(self, model: str, calibration: str, *, force: bool = False) -> None:
        """Deletes a calibration and the bit maps solved from it. With
        evaluations of those it needs `force`, which deletes them too."""
        request = requests.delete_calibration(model, calibration, force=force)
        self._once(self._registry.DeleteCalibration, request)

    def list_evaluations(self, model: str, bit_map: str = "") -> Iterator[evaluation_pb2.Evaluation]:
        """Yields the evaluations of a model's bit maps, or of one, by name."""
        request = requests.list_evaluations(model, bit_map)
        return self._pages(self._registry.ListEvaluations, request, "evaluations")

    def delete_evaluation(self, name: str) -> None:
        """Deletes an evaluation by its resource name."""
        self._once(self._registry.DeleteEvaluation, allocation.DeleteEvaluationRequest(name=name))

    # Allocation

    def get_bit_map(self, model: str, **query: Any) -> bit_map_pb2.BitMap | None:
        """Returns the best bit map within one budget; None when the map named
        by `known_etag` still is the answer. Arguments as for
        `ratequant.requests.bit_map`."""
        return bit_map_of(self.query_bit_map(model, **query))

    def query_bit_map(self, model: str, **query: Any) -> allocation.GetBitMapResponse:
        """Like `get_bit_map`, with what was measured of the map, and why it
        isn't the one that was solved."""
        return self._read(self._allocation.GetBitMap, self.bit_map_request(model, **query))

    def batch_get_bit_maps(
        self, queries: Sequence[allocation.GetBitMapRequest]
    ) -> Sequence[allocation.GetBitMapResponse | RateQuantError]:
        """Returns the answers to 1 to 1000 queries, made by `bit_map_request`,
        in their order; in place of one that failed its error."""
        request = allocation.BatchGetBitMapsRequest(requests=queries)
        return results_of(self._read(self._allocation.BatchGetBitMaps, request))

    def watch_bit_map(self, model: str, **query: Any) -> Iterator[allocation.GetBitMapResponse]:
        """Yields the answer to a query, and each other one that takes its
        place. Arguments as for `get_bit_map`; with `known_etag` the first may
        be `unchanged`.

        Goes on by itself when the allocator was away, without repeating an
        answer, and gives up after as many failures in a row as reads do. Waits
        without a deadline: close the iterator to end it.
        """
        watch = Watch(self.bit_map_request(model, **query))
        while True:
            call = self._allocation.WatchBitMap(watch.request)
            try:
                yield from filter(watch.is_news, call)
                return
            except grpc.RpcError as error:
                pause = watch.pause_after(error, self._retry)
                if pause is None:
                    raise self._allocator_error(error) from error
            finally:
                call.cancel()
            self._retry.sleep(pause)

    def record_evaluation(self, bit_map: str, evaluation: evaluation_pb2.Evaluation) -> evaluation_pb2.Evaluation:
        """Attaches a measurement to a bit map, given by its resource name, and
        returns it as it is stored. Recording the same again returns the stored
        one."""
        request = allocation.RecordEvaluationRequest(bit_map=bit_map, evaluation=evaluation)
        return self._read(self._allocation.RecordEvaluation, request)

    def get_rate_distortion_curve(self, model: str, **options: Any) -> allocation.RateDistortionCurve:
        """Returns predicted loss against cost for every budget at once, cheapest
        first. Arguments as for `ratequant.requests.curve`."""
        return self._read(self._allocation.GetRateDistortionCurve, requests.curve(model, **options))

    def plan(
        self, model: str, memory_bytes: int, *, sequences: int = 1, context_tokens: int = 0, **options: Any
    ) -> allocation.RateDistortionCurve:
        """Returns the budgets that fit a memory, cheapest first, and what each
        costs: the points of a curve up to the best one that fits, each with
        `max_sequences` and `max_context_tokens`.

        Args:
          memory_bytes: for KV caches alone, without weights and activations.
          sequences: sequences of `context_tokens` tokens (0 means 4096) that
            must fit at once, 1 or more.
          options: as for `get_rate_distortion_curve`.

        Raises:
          RateQuantError: with reason NOTHING_FITS, whose metadata say what would.
        """
        request = requests.plan(
            model, memory_bytes, sequences=sequences, context_tokens=context_tokens, **options
        )
        return self._read(self._allocation.GetRateDistortionCurve, request)

    # Calibration

    def calibrate_model(
        self, model: str, model_path: str, text: str, *, timeout: float = 3600.0, **options: Any
    ) -> Iterator[CalibrationProgress]:
        """Calibrates a model the worker can read and yields progress; the last
        item has phase DONE and names the calibration. Closing the iterator
        cancels the work.

        Args:
          model: the id it is stored under.
          model_path: Hugging Face folder, inside the worker's model root.
          text: calibration text, at least sequences * sequence_length tokens.
          timeout: deadline of the whole calibration in seconds.
          options: as for `ratequant.requests.calibrate_model`.
        """
        request = requests.calibrate_model(model, model_path, text, **options)
        return self._progress(self._worker.CalibrateModel, request, timeout)

    def calibrate_stream(
        self, model: str, chunks: Iterator[worker.CalibrateChunk], timeout: float = 3600.0
    ) -> Iterator[CalibrationProgress]:
        """Calibrates from tensors that this program has, and yields progress as
        `calibrate_model` does.

        Args:
          model: the id it is stored under.
          chunks: the header, whose model is filled in here, and then every
            layer's K, V and their gradients, in pieces of up to some MiB;
            calibration_service.proto has the order. Asked for as the worker
            takes them, from another thread.
          timeout: deadline of the whole calibration in seconds.
        """
        named = (requests.named_chunk(model, chunk) for chunk in chunks)
        return self._progress(self._worker.CalibrateStream, named, timeout)

    # Calls

    def _read(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return self._retry.call(lambda left: method(request, timeout=left), self._timeout)
        except grpc.RpcError as error:
            raise self._allocator_error(error) from error

    def _once(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._allocator_error(error) from error

    def _pages(self, method: Callable[..., Any], request: Any, items: str) -> Iterator[Any]:
        while True:
            page = self._read(method, request)
            yield from getattr(page, items)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _progress(self, method: Callable[..., Any], request: Any, timeout: float) -> Iterator[CalibrationProgress]:
        call = method(request, timeout=timeout)
        try:
            yield from map(CalibrationProgress.from_message, call)
        except grpc.RpcError as error:
            raise self._worker_error(error) from error
        finally:
            call.cancel()
