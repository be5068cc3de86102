"""The Python client of the allocator and the calibration worker."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from ratequant.errors import RateQuantError
from ratequant.group_rule import parse_rule
from ratequant.names import bit_map_name, calibration_name, model_name
from ratequant.progress import CalibrationProgress
from ratequant.quantizer import parse_quantizer
from ratequant.retry import RetryPolicy
from ratequant.v1 import (
    allocation_service_pb2 as allocation,
    allocation_service_pb2_grpc as allocation_grpc,
    bit_map_pb2,
    calibration_pb2,
    calibration_service_pb2 as worker,
    calibration_service_pb2_grpc as worker_grpc,
    evaluation_pb2,
    model_pb2,
)

ENDPOINT_VARIABLE = "RATEQUANT_ENDPOINT"
WORKER_ENDPOINT_VARIABLE = "RATEQUANT_WORKER_ENDPOINT"

OBJECTIVES = {
    "loss-projected": bit_map_pb2.Policy.LOSS_PROJECTED,
    "measured": bit_map_pb2.Policy.MEASURED,
    "paper": bit_map_pb2.Policy.PAPER,
}
STRATEGIES = {
    "allocated": bit_map_pb2.Policy.ALLOCATED,
    "uniform": bit_map_pb2.Policy.UNIFORM,
    "k-ceil-v-floor": bit_map_pb2.Policy.K_CEIL_V_FLOOR,
    "layer-wise": bit_map_pb2.Policy.LAYER_WISE,
}

COSTS = {
    "bytes": allocation.GetRateDistortionCurveRequest.BYTES,
    "code-bits": allocation.GetRateDistortionCurveRequest.CODE_BITS,
}

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


class Client:
    """Synchronous client of `ratequant-allocator` and `ratequant-worker`.

    Channels connect on the first call. Reads are retried with backoff while a
    service is UNAVAILABLE; calls that change something are made once.

    Every method raises RateQuantError when a call fails and ValueError for an
    argument that can't be right (no call is made then). Thread-safe. Use as a
    context manager, or call `close`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        worker_endpoint: str | None = None,
        *,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ):
        """
        Args:
          endpoint: the allocator as host:port; default $RATEQUANT_ENDPOINT.
          worker_endpoint: the worker as host:port; default
            $RATEQUANT_WORKER_ENDPOINT. Needed only to calibrate.
          timeout: deadline of each method in seconds, retries included.
          retry: how reads are retried.
          credentials: TLS credentials; plain text without.
        """
        self._endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
        self._worker_endpoint = worker_endpoint or os.environ.get(WORKER_ENDPOINT_VARIABLE, "")
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._credentials = credentials
        self._channels: list[grpc.Channel] = []
        self._registry = self._allocation = self._worker = None
        if self._endpoint:
            channel = self._open(self._endpoint)
            self._registry = allocation_grpc.RegistryServiceStub(channel)
            self._allocation = allocation_grpc.AllocationServiceStub(channel)
        if self._worker_endpoint:
            self._worker = worker_grpc.CalibrationServiceStub(self._open(self._worker_endpoint))

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
        while True:
            page = self._read(self._need_registry().ListModels, request)
            yield from page.models
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def get_model(self, model: str) -> model_pb2.Model:
        """Returns one model, by id, hub name or resource name."""
        request = allocation.GetModelRequest(name=model_name(model))
        return self._read(self._need_registry().GetModel, request)

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
        request = allocation.ListCalibrationsRequest(
            parent=model_name(model), quantizer=parse_quantizer(quantizer) if quantizer else None
        )
        for field, time in ((request.create_time_from, created_from), (request.create_time_before, created_before)):
            if time is not None:
                field.FromDatetime(time.astimezone(datetime.timezone.utc))
        while True:
            page = self._read(self._need_registry().ListCalibrations, request)
            yield from page.calibrations
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def get_calibration(self, model: str, calibration: str = "latest") -> calibration_pb2.Calibration:
        """Returns one calibration with its tables. `calibration` is an id, a
        full resource name, or "latest"."""
        request = allocation.GetCalibrationRequest(name=calibration_name(model, calibration))
        return self._read(self._need_registry().GetCalibration, request)

    def create_calibration(
        self, model: str, calibration: calibration_pb2.Calibration
    ) -> calibration_pb2.Calibration:
        """Stores a calibration and returns it under its name. Storing the same
        content again returns the stored one."""
        request = allocation.CreateCalibrationRequest(parent=model_name(model), calibration=calibration)
        return self._once(self._need_registry().CreateCalibration, request)

    def delete_calibration(self, model: str, calibration: str, *, force: bool = False) -> None:
        """Deletes a calibration and the bit maps solved from it. With
        evaluations of those it needs `force`, which deletes them too."""
        request = allocation.DeleteCalibrationRequest(name=calibration_name(model, calibration), force=force)
        self._once(self._need_registry().DeleteCalibration, request)

    def list_evaluations(self, model: str, bit_map: str = "") -> Iterator[evaluation_pb2.Evaluation]:
        """Yields the evaluations of a model's bit maps, or of one, by name."""
        parent = bit_map_name(model, bit_map) if bit_map else model_name(model)
        request = allocation.ListEvaluationsRequest(parent=parent)
        while True:
            page = self._read(self._need_registry().ListEvaluations, request)
            yield from page.evaluations
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def delete_evaluation(self, name: str) -> None:
        """Deletes an evaluation by its resource name."""
        self._once(self._need_registry().DeleteEvaluation, allocation.DeleteEvaluationRequest(name=name))

    # Allocation

    @staticmethod
    def bit_map_request(
        model: str,
        *,
        effective_bits: float | None = None,
        code_bits: float | None = None,
        bytes_per_token: float | None = None,
        max_loss_increase: float | None = None,
        quantizers: Sequence[str] = (),
        objective: str = "loss-projected",
        strategy: str = "allocated",
        separate_key_value: bool = False,
        min_width: int = 0,
        max_width: int = 0,
        allowed_widths: Sequence[int] = (),
        key_min_width: int = 0,
        value_min_width: int = 0,
        rules: Sequence[str] = (),
        max_formats_per_layer: int = 0,
        policy: str = "",
        include_continuous: bool = False,
        calibration: str = "",
        sink_tokens: int | None = None,
        window: int | None = None,
        context_tokens: int = 0,
        known_etag: str = "",
        require_evaluated: bool = False,
        max_perplexity_increase: float | None = None,
        keep_measured_worse: bool = False,
    ) -> allocation.GetBitMapRequest:
        """Returns a query for the best bit map within one budget.

        Exactly one budget is given: `effective_bits` (stored bits per element,
        everything counted), `code_bits` (average code width; one quantizer),
        `bytes_per_token`, or `max_loss_increase` (nats per token).

        Args:
          quantizers: the quantizers the map may use, as "kivi" or
            "turboquant:seed=7"; empty allows all that were calibrated.
          objective: "loss-projected", "measured" or "paper".
          strategy: "allocated", "uniform", "k-ceil-v-floor" or "layer-wise".
          separate_key_value: K and V each get the budget.
          min_width, max_width: bounds of every group's width; 0 is the default.
          allowed_widths: the only widths in use, as (2, 4, 8); empty allows all.
          key_min_width, value_min_width: floors of K's and V's groups; 0 is none.
          rules: bounds of some groups, as "layer=0,width=8" or
            "layer=3,head=1,tensor=key,min=4,max=8"; width=16 keeps fp16.
          max_formats_per_layer: most different pairs of quantizer and width in
            one layer, 1 to 4; 0 is any number.
          policy: the name of a stored policy, in place of everything from
            `objective` to here and of the arguments about measurements.
          include_continuous: also return the continuous solution.
          calibration: an id or full name; empty means the newest.
          sink_tokens: must equal the calibration's; None takes the calibration's.
          window: newest tokens kept in fp16; None means 32.
          context_tokens: context at which bytes are counted; 0 means 4096.
          known_etag: the id of a map already held.
          require_evaluated: only a map whose perplexity was measured.
          max_perplexity_increase: only one that measured at most this share
            above full precision: 0.02 is 2%.
          keep_measured_worse: the map even when it measured worse than uniform,
            which else takes its place.
        """
        budgets = {
            "effective_bits": effective_bits,
            "code_bits": code_bits,
            "bytes_per_token": bytes_per_token,
            "max_loss_increase": max_loss_increase,
        }
        given = {key: value for key, value in budgets.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(budgets)}; got {', '.join(given) or 'none'}")
        request = allocation.GetBitMapRequest(
            model=model_name(model),
            calibration=calibration_name(model, calibration) if calibration else "",
            quantizers=[parse_quantizer(q) for q in quantizers],
            budget=bit_map_pb2.Budget(**given),
            policy=_policy(
                objective, strategy, separate_key_value, min_width, max_width, include_continuous,
                allowed_widths, key_min_width, value_min_width, rules, max_formats_per_layer,
            ),  # fmt: skip
            cache=_cache_config(sink_tokens, window, context_tokens),
            known_etag=known_etag,
        )
        request.policy.require_evaluated = require_evaluated
        request.policy.keep_measured_worse = keep_measured_worse
        if max_perplexity_increase is not None:
            request.policy.max_perplexity_increase = max_perplexity_increase
        if policy:
            _name_policy(request, policy)
        return request

    def get_bit_map(self, model: str, **query: Any) -> bit_map_pb2.BitMap | None:
        """Returns the best bit map within one budget; None when the map named
        by `known_etag` still is the answer. Arguments as for
        `bit_map_request`."""
        response = self.query_bit_map(model, **query)
        return response.bit_map if response.WhichOneof("result") == "bit_map" else None

    def query_bit_map(self, model: str, **query: Any) -> allocation.GetBitMapResponse:
        """Like `get_bit_map`, with what was measured of the map, and why it
        isn't the one that was solved."""
        return self._read(self._need_allocation().GetBitMap, self.bit_map_request(model, **query))

    def batch_get_bit_maps(
        self, requests: Sequence[allocation.GetBitMapRequest]
    ) -> list[allocation.GetBitMapResponse | RateQuantError]:
        """Returns the answers to 1 to 1000 queries, made by `bit_map_request`,
        in their order; in place of one that failed its error."""
        request = allocation.BatchGetBitMapsRequest(requests=requests)
        results = self._read(self._need_allocation().BatchGetBitMaps, request).results
        return [
            result.response if result.WhichOneof("result") == "response" else RateQuantError.from_status(result.error)
            for result in results
        ]

    def watch_bit_map(self, model: str, **query: Any) -> Iterator[allocation.GetBitMapResponse]:
        """Yields the answer to a query, and each other one that takes its
        place. Arguments as for `bit_map_request`; with `known_etag` the first
        may be `unchanged`.

        Goes on by itself when the allocator was away, without repeating an
        answer, and gives up after as many failures in a row as reads do. Waits
        without a deadline: close the iterator to end it.
        """
        request = self.bit_map_request(model, **query)
        failures, resumed = 0, False
        while True:
            call = self._need_allocation().WatchBitMap(request)
            try:
                for response in call:
                    failures = 0
                    request.known_etag = response.etag
                    if not (resumed and response.unchanged):
                        yield response
                return
            except grpc.RpcError as error:
                failures += 1
                if error.code() != grpc.StatusCode.UNAVAILABLE or failures == self._retry.attempts:
                    raise RateQuantError.from_rpc(error, f"allocator {self._endpoint}") from error
            finally:
                call.cancel()
            resumed = True
            self._retry.sleep(self._retry.pause(failures))

    def record_evaluation(self, bit_map: str, evaluation: evaluation_pb2.Evaluation) -> evaluation_pb2.Evaluation:
        """Attaches a measurement to a bit map, given by its resource name, and
        returns it as it is stored. Recording the same again returns the stored
        one."""
        request = allocation.RecordEvaluationRequest(bit_map=bit_map, evaluation=evaluation)
        return self._read(self._need_allocation().RecordEvaluation, request)

    def get_rate_distortion_curve(
        self,
        model: str,
        *,
        quantizers: Sequence[str] = (),
        objective: str = "loss-projected",
        separate_key_value: bool = False,
        min_width: int = 0,
        max_width: int = 0,
        allowed_widths: Sequence[int] = (),
        key_min_width: int = 0,
        value_min_width: int = 0,
        rules: Sequence[str] = (),
        policy: str = "",
        calibration: str = "",
        sink_tokens: int | None = None,
        window: int | None = None,
        context_tokens: int = 0,
        max_points: int = 0,
        cost: str = "bytes",
        memory_bytes: int | None = None,
        sequences: int = 1,
    ) -> allocation.RateDistortionCurve:
        """Returns predicted loss against cost for every budget at once, cheapest
        first. Arguments as for `bit_map_request`, and:

        Args:
          max_points: thins the answer evenly; 0 returns every breakpoint.
          cost: what maps are compared by, "bytes" or "code-bits" (one quantizer).
          memory_bytes, sequences: see `plan`.
        """
        request = allocation.GetRateDistortionCurveRequest(
            model=model_name(model),
            calibration=calibration_name(model, calibration) if calibration else "",
            quantizers=[parse_quantizer(q) for q in quantizers],
            policy=_policy(
                objective, "allocated", separate_key_value, min_width, max_width, False,
                allowed_widths, key_min_width, value_min_width, rules, 0,
            ),  # fmt: skip
            cache=_cache_config(sink_tokens, window, context_tokens),
            max_points=max_points,
            cost=_choice("cost", cost, COSTS),
        )
        if memory_bytes is not None:
            request.capacity.memory_bytes = memory_bytes
            request.capacity.sequences = sequences
        if policy:
            _name_policy(request, policy)
        return self._read(self._need_allocation().GetRateDistortionCurve, request)

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
        if memory_bytes <= 0 or sequences < 1:
            raise ValueError(f"memory_bytes {memory_bytes} must be above 0, sequences {sequences} 1 or more")
        return self.get_rate_distortion_curve(
            model, memory_bytes=memory_bytes, sequences=sequences, context_tokens=context_tokens, **options
        )

    # Calibration

    def calibrate_model(
        self,
        model: str,
        model_path: str,
        text: str,
        *,
        quantizers: Sequence[str] = (),
        sequences: int = 16,
        sequence_length: int = 512,
        sink_tokens: int = 4,
        page_tokens: int = 32,
        timeout: float = 3600.0,
    ) -> Iterator[CalibrationProgress]:
        """Calibrates a model the worker can read and yields progress; the last
        item has phase DONE and names the calibration. Closing the iterator
        cancels the work.

        Args:
          model: the id it is stored under.
          model_path: Hugging Face folder, inside the worker's model root.
          text: calibration text, at least sequences * sequence_length tokens.
          quantizers: quantizers to measure; empty means all that fit the model.
          page_tokens: tokens in a page of the cache: 16, 32, 64 or 128, a
            multiple of kivi's group_size. Bit maps are for this page.
          timeout: deadline of the whole calibration in seconds.
        """
        request = worker.CalibrateModelRequest(
            model=model_name(model),
            model_path=model_path,
            text=text,
            options=worker.CalibrateOptions(
                quantizers=[parse_quantizer(q) for q in quantizers],
                sequences=sequences,
                sequence_length=sequence_length,
                sink_tokens=sink_tokens,
                page_tokens=page_tokens,
            ),
        )
        return self._stream(self._worker_stub().CalibrateModel, request, timeout)

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

        def named() -> Iterator[worker.CalibrateChunk]:
            for chunk in chunks:
                if chunk.HasField("header"):
                    chunk.header.model = model_name(model)
                yield chunk

        return self._stream(self._worker_stub().CalibrateStream, named(), timeout)

    def _worker_stub(self) -> worker_grpc.CalibrationServiceStub:
        if self._worker is None:
            raise ValueError(f"no worker endpoint: pass worker_endpoint or set {WORKER_ENDPOINT_VARIABLE}")
        return self._worker

    def _stream(self, method, request, timeout: float) -> Iterator[CalibrationProgress]:
        call = method(request, timeout=timeout)
        try:
            for message in call:
                yield CalibrationProgress.from_message(message)
        except grpc.RpcError as error:
            raise RateQuantError.from_rpc(error, f"worker {self._worker_endpoint}") from error
        finally:
            call.cancel()

    # Channels and calls

    def _open(self, endpoint: str) -> grpc.Channel:
        if self._credentials is None:
            channel = grpc.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        else:
            channel = grpc.secure_channel(endpoint, self._credentials, options=_CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel

    def _need_registry(self) -> allocation_grpc.RegistryServiceStub:
        self._need_allocation()
        return self._registry

    def _need_allocation(self) -> allocation_grpc.AllocationServiceStub:
        if self._allocation is None:
            raise ValueError(f"no allocator endpoint: pass endpoint or set {ENDPOINT_VARIABLE}")
        return self._allocation

    def _read(self, method, request):
        return self._guard(
            lambda: self._retry.call(lambda left: method(request, timeout=left), self._timeout)
        )

    def _once(self, method, request):
        return self._guard(lambda: method(request, timeout=self._timeout))

    def _guard(self, call):
        try:
            return call()
        except grpc.RpcError as error:
            raise RateQuantError.from_rpc(error, f"allocator {self._endpoint}") from error


def _choice(what: str, value: str, choices: dict[str, int]) -> int:
    if value not in choices:
        raise ValueError(f"unknown {what} '{value}'; supported: {', '.join(choices)}")
    return choices[value]


def _policy(
    objective: str,
    strategy: str,
    separate: bool,
    min_width: int,
    max_width: int,
    continuous: bool,
    allowed_widths: Sequence[int],
    key_min_width: int,
    value_min_width: int,
    rules: Sequence[str],
    max_formats: int,
) -> bit_map_pb2.Policy:
    return bit_map_pb2.Policy(
        objective=_choice("objective", objective, OBJECTIVES),
        strategy=_choice("strategy", strategy, STRATEGIES),
        separate_key_value=separate,
        min_width=min_width,
        max_width=max_width,
        include_continuous=continuous,
        allowed_widths=allowed_widths,
        key_min_width=key_min_width,
        value_min_width=value_min_width,
        rules=[parse_rule(rule) for rule in rules],
        max_formats_per_layer=max_formats,
    )


def _name_policy(
    request: allocation.GetBitMapRequest | allocation.GetRateDistortionCurveRequest, name: str
) -> None:
    """Puts a stored policy in the place of the request's, which must be the default one."""
    if request.policy != _policy("loss-projected", "allocated", False, 0, 0, False, (), 0, 0, (), 0):
        raise ValueError(f"policy '{name}' can't be given together with arguments that make another one")
    request.ClearField("policy")
    request.policy_name = f"policies/{name.removeprefix('policies/')}"


def _cache_config(sink_tokens: int | None, window: int | None, context_tokens: int) -> bit_map_pb2.CacheConfig:
    return bit_map_pb2.CacheConfig(sink_tokens=sink_tokens, window=window, context_tokens=context_tokens)

