"""The client's side of the API: requests, answers, errors, retries, cancelling;
for the synchronous and the asyncio client alike.

A real gRPC server with scripted answers shows what no healthy service does on
demand; test_services.py talks to the real services.
"""

from __future__ import annotations

import datetime
import inspect
import threading
from concurrent import futures

import grpc
import pytest
from blocking_client import BlockingClient
from google.protobuf import any_pb2, empty_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from ratequant.async_client import AsyncClient
from ratequant.client import Client
from ratequant.errors import RateQuantError
from ratequant.retry import RetryPolicy
from ratequant.v1 import (
    allocation_service_pb2 as allocation,
    allocation_service_pb2_grpc as allocation_grpc,
    bit_map_pb2,
    calibration_pb2,
    calibration_service_pb2 as worker,
    calibration_service_pb2_grpc as worker_grpc,
    model_pb2,
)

Phase = worker.CalibrateProgress


class ScriptedServer(
    allocation_grpc.RegistryServiceServicer,
    allocation_grpc.AllocationServiceServicer,
    worker_grpc.CalibrationServiceServicer,
):
    """Answers each call with the next scripted reply: a message, an exception
    to abort with, or a function of the context."""

    def __init__(self):
        self.requests = []
        self.replies = []

    def _answer(self, request, context):
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, grpc.StatusCode):
            context.abort(reply, "scripted")
        if isinstance(reply, status_pb2.Status):
            context.abort_with_status(rpc_status.to_status(reply))
        return reply(context) if callable(reply) else reply

    GetModel = ListModels = GetCalibration = ListCalibrations = _answer
    CreateCalibration = DeleteCalibration = GetBitMap = GetRateDistortionCurve = _answer
    BatchGetBitMaps = RecordEvaluation = ListEvaluations = DeleteEvaluation = _answer

    def WatchBitMap(self, request, context):
        self.requests.append(allocation.GetBitMapRequest.FromString(request.SerializeToString()))
        yield from self.replies.pop(0)(context)

    def CalibrateModel(self, request, context):
        self.requests.append(request)
        yield from self.replies.pop(0)(context)

    def CalibrateStream(self, chunks, context):
        self.requests += chunks
        yield from self.replies.pop(0)(context)


@pytest.fixture
def server():
    scripted = ScriptedServer()
    running = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    allocation_grpc.add_RegistryServiceServicer_to_server(scripted, running)
    allocation_grpc.add_AllocationServiceServicer_to_server(scripted, running)
    worker_grpc.add_CalibrationServiceServicer_to_server(scripted, running)
    scripted.endpoint = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    yield scripted
    running.stop(grace=None).wait()


class Sleeper:
    """Records pauses and moves its own clock instead of waiting."""

    def __init__(self):
        self.now = 0.0
        self.pauses = []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    async def async_sleep(self, seconds):
        self.sleep(seconds)

    def policy(self, **values):
        # The longest pause of each step, so that pauses can be compared.
        return RetryPolicy(
            sleep=self.sleep,
            async_sleep=self.async_sleep,
            clock=lambda: self.now,
            uniform=lambda low, high: high,
            **values,
        )


@pytest.fixture
def sleeper():
    return Sleeper()


@pytest.fixture(params=[Client, BlockingClient], ids=["synchronous", "asyncio"])
def make_client(request):
    return request.param


@pytest.fixture
def client(server, sleeper, make_client):
    with make_client(server.endpoint, server.endpoint, timeout=20, retry=sleeper.policy()) as client:
        yield client


def refusal(code=code_pb2.NOT_FOUND, reason="MODEL_NOT_FOUND", violations=()) -> status_pb2.Status:
    """A status as the services send it."""
    status = status_pb2.Status(code=code, message="no model 'x'")
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="ratequant", metadata={"model": "x"})]
    if violations:
        bad_request = error_details_pb2.BadRequest()
        for field, description in violations:
            bad_request.field_violations.add(field=field, description=description)
        details.append(bad_request)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def test_a_refusal_carries_code_reason_message_and_metadata(server, client):
    server.replies = [refusal()]
    with pytest.raises(RateQuantError) as caught:
        client.get_model("x")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert error.message == "no model 'x'"
    assert error.metadata == {"model": "x"}
    assert str(error) == "NOT_FOUND MODEL_NOT_FOUND: no model 'x'"


def test_a_refusal_names_the_fields_that_are_wrong(server, client):
    server.replies = [refusal(code_pb2.INVALID_ARGUMENT, "BUDGET_INVALID", [("budget.code_bits", "17 is above 16")])]
    with pytest.raises(RateQuantError, match="budget.code_bits: 17 is above 16") as caught:
        client.get_bit_map("x", code_bits=17)
    assert caught.value.violations == [("budget.code_bits", "17 is above 16")]


def test_reads_are_retried_with_growing_pauses_until_they_succeed(server, client, sleeper):
    server.replies = [grpc.StatusCode.UNAVAILABLE] * 3 + [model_pb2.Model(name="models/x")]
    assert client.get_model("x").name == "models/x"
    assert sleeper.pauses == [0.1, 0.2, 0.4]


def test_retries_end_after_the_last_attempt(server, sleeper, make_client):
    server.replies = [grpc.StatusCode.UNAVAILABLE] * 9
    with make_client(server.endpoint, retry=sleeper.policy(attempts=3)) as client:
        with pytest.raises(RateQuantError) as caught:
            client.get_model("x")
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert server.endpoint in caught.value.message
    assert len(server.requests) == 3


def test_retries_end_at_the_deadline(server, sleeper, make_client):
    server.replies = [grpc.StatusCode.UNAVAILABLE] * 99
    with make_client(server.endpoint, timeout=5, retry=sleeper.policy(attempts=99)) as client:
        with pytest.raises(RateQuantError):
            client.get_model("x")
    assert 3 < sleeper.now < 5


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_other_errors_are_final(server, client, code):
    server.replies = [code]
    with pytest.raises(RateQuantError) as caught:
        client.get_model("x")
    assert caught.value.code == code
    assert len(server.requests) == 1


def test_changes_are_made_once(server, client):
    server.replies = [grpc.StatusCode.UNAVAILABLE] * 2
    with pytest.raises(RateQuantError):
        client.create_calibration("x", calibration_pb2.Calibration())
    with pytest.raises(RateQuantError):
        client.delete_calibration("x", "abc")
    assert len(server.requests) == 2


def test_a_call_ends_at_its_deadline(server, make_client):
    released = threading.Event()
    server.replies = [lambda context: released.wait(30) and model_pb2.Model()]
    with make_client(server.endpoint, timeout=0.2) as client:
        with pytest.raises(RateQuantError) as caught:
            client.get_model("x")
    released.set()
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_nobody_listening_is_an_error_that_names_the_endpoint(make_client):
    with make_client("127.0.0.1:1", retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(RateQuantError, match="127.0.0.1:1") as caught:
            client.get_model("x")
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert caught.value.reason == ""


def test_lists_follow_pages_to_the_end(server, client):
    server.replies = [
        allocation.ListModelsResponse(models=[model_pb2.Model(name="models/a")], next_page_token="t"),
        allocation.ListModelsResponse(models=[model_pb2.Model(name="models/b")]),
        allocation.ListCalibrationsResponse(calibrations=[calibration_pb2.Calibration(name="c")], next_page_token="u"),
        allocation.ListCalibrationsResponse(),
    ]
    assert [model.name for model in client.list_models()] == ["models/a", "models/b"]
    assert [calibration.name for calibration in client.list_calibrations("a")] == ["c"]
    assert [request.page_token for request in server.requests] == ["", "t", "", "u"]


def test_a_query_says_everything_it_was_given(server, client):
    server.replies = [allocation.GetBitMapResponse(bit_map=bit_map_pb2.BitMap(name="m"), etag="m")]
    answer = client.get_bit_map(
        "Qwen/Qwen3-8B", effective_bits=2.5, quantizers=["kivi:group_size=64", "rtn"], objective="measured",
        strategy="layer-wise", separate_key_value=True, min_width=2, max_width=6, include_continuous=True,
        calibration="abc", sink_tokens=0, window=0, context_tokens=1024, known_etag="old",
    )  # fmt: skip
    assert answer.name == "m"
    (request,) = server.requests
    assert request.model == "models/Qwen--Qwen3-8B"
    assert request.calibration == "models/Qwen--Qwen3-8B/calibrations/abc"
    assert [quantizer.group_size for quantizer in request.quantizers] == [64, 0]
    assert request.budget == bit_map_pb2.Budget(effective_bits=2.5)
    assert request.policy == bit_map_pb2.Policy(
        objective=bit_map_pb2.Policy.MEASURED, strategy=bit_map_pb2.Policy.LAYER_WISE, separate_key_value=True,
        min_width=2, max_width=6, include_continuous=True,
    )  # fmt: skip
    # Zero sinks and no window are said, not left out.
    assert request.cache.HasField("sink_tokens") and request.cache.HasField("window")
    assert request.cache.context_tokens == 1024
    assert request.known_etag == "old"


def test_bounds_of_single_groups_are_said(server, client):
    server.replies = [
        allocation.GetBitMapResponse(bit_map=bit_map_pb2.BitMap()),
        allocation.RateDistortionCurve(calibration="c"),
    ]
    bounds = dict(
        allowed_widths=[2, 4, 8], key_min_width=4, value_min_width=2,
        rules=["layer=0,width=8", "max=6,tensor=value,head=1,min=3"],
    )  # fmt: skip
    client.get_bit_map("x", effective_bits=4, **bounds)
    client.get_rate_distortion_curve("x", **bounds)
    rules = [
        bit_map_pb2.GroupRule(layer=0, min_width=8, max_width=8),
        bit_map_pb2.GroupRule(kv_head=1, tensor=bit_map_pb2.GroupRule.VALUE, min_width=3, max_width=6),
    ]
    for request in server.requests:
        assert request.policy == bit_map_pb2.Policy(
            objective=bit_map_pb2.Policy.LOSS_PROJECTED, strategy=bit_map_pb2.Policy.ALLOCATED,
            allowed_widths=[2, 4, 8], key_min_width=4, value_min_width=2, rules=rules,
        )  # fmt: skip
        assert request.policy.rules[0].HasField("layer") and not request.policy.rules[1].HasField("layer")


def test_a_stored_policy_is_named_in_place_of_another(server, client):
    server.replies = [allocation.GetBitMapResponse(bit_map=bit_map_pb2.BitMap()), allocation.RateDistortionCurve()]
    client.get_bit_map("x", effective_bits=4, policy="engine-a")
    client.get_rate_distortion_curve("x", policy="policies/engine-a")
    for request in server.requests:
        assert request.policy_name == "policies/engine-a" and not request.HasField("policy")
    for more in ({"rules": ["layer=0,width=8"]}, {"strategy": "uniform"}, {"require_evaluated": True}):
        with pytest.raises(ValueError, match="'engine-a' can't be given together"):
            client.get_bit_map("x", effective_bits=4, policy="engine-a", **more)


def test_what_is_not_given_is_left_to_the_service(server, client):
    server.replies = [allocation.GetBitMapResponse(bit_map=bit_map_pb2.BitMap())]
    client.get_bit_map("x", max_loss_increase=0.01)
    (request,) = server.requests
    assert request.budget == bit_map_pb2.Budget(max_loss_increase=0.01)
    assert not request.cache.HasField("sink_tokens") and not request.cache.HasField("window")
    assert not request.quantizers and not request.calibration


def test_an_unchanged_map_is_none(server, client):
    server.replies = [allocation.GetBitMapResponse(unchanged=True, etag="m")]
    assert client.get_bit_map("x", code_bits=3, known_etag="m") is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "exactly one of"),
        ({"code_bits": 2, "effective_bits": 3}, "code_bits"),
        ({"code_bits": 2, "objective": "best"}, "loss-projected, attention-output, measured, paper"),
        ({"code_bits": 2, "strategy": "best"}, "allocated, uniform"),
        ({"code_bits": 2, "quantizers": ["gptq"]}, "gptq"),
        ({"code_bits": 2, "rules": ["row=1,min=2"]}, "'row=1'.*layer, head, tensor, min, max, width"),
        ({"code_bits": 2, "rules": ["layer,min=2"]}, "'layer' in rule"),
        ({"code_bits": 2, "rules": ["layer=1,layer=2,min=2"]}, "'layer' is given twice"),
        ({"code_bits": 2, "rules": ["layer=1"]}, "give min, max or width"),
        ({"code_bits": 2, "rules": ["min=2,width=4"]}, "one or the other"),
        ({"code_bits": 2, "rules": ["tensor=query,min=2"]}, "'query'.*key, value"),
        ({"code_bits": 2, "rules": ["layer=-1,min=2"]}, "layer '-1'.*0 or more"),
        ({"code_bits": 2, "rules": ["layer=1,min=0"]}, "min '0'.*1 or more"),
    ],
)
def test_arguments_that_cannot_be_right_make_no_call(server, client, arguments, named):
    with pytest.raises(ValueError, match=named):
        client.get_bit_map("x", **arguments)
    assert not server.requests


def test_what_was_measured_decides_when_asked(server, client):
    server.replies = [allocation.GetBitMapResponse(worse_than_uniform=True)] * 2
    assert client.query_bit_map("x", code_bits=3, max_perplexity_increase=0.0, keep_measured_worse=True).worse_than_uniform
    client.query_bit_map("x", code_bits=3, require_evaluated=True)
    limited, evaluated = (request.policy for request in server.requests)
    assert limited.HasField("max_perplexity_increase") and limited.keep_measured_worse
    assert evaluated.require_evaluated and not evaluated.HasField("max_perplexity_increase")


def test_a_batch_has_an_error_in_place_of_each_answer_that_failed(server, client):
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="ratequant"))
    error = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no model 'y'", details=[info])
    server.replies = [
        allocation.BatchGetBitMapsResponse(
            results=[
                allocation.BatchGetBitMapsResponse.Result(response=allocation.GetBitMapResponse(etag="m")),
                allocation.BatchGetBitMapsResponse.Result(error=error),
            ]
        )
    ]
    queries = [client.bit_map_request(model, code_bits=3) for model in ("x", "y")]
    answer, failure = client.batch_get_bit_maps(queries)
    assert answer.etag == "m"
    assert isinstance(failure, RateQuantError)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert list(server.requests[0].requests) == queries


def _answers(*etags, end=None):
    def stream(context):
        for etag in etags:
            yield allocation.GetBitMapResponse(etag=etag, unchanged=etag == "same")
        if end is not None:
            context.abort(end, "scripted")

    return stream


def test_a_watch_goes_on_where_it_was(server, client):
    unavailable = grpc.StatusCode.UNAVAILABLE
    server.replies = [
        _answers("a", "b", end=unavailable),
        _answers(end=unavailable),
        _answers("same", "c", end=grpc.StatusCode.NOT_FOUND),
    ]
    seen = []
    with pytest.raises(RateQuantError) as failure:
        for response in client.watch_bit_map("x", code_bits=3):
            seen.append(response.etag)
    assert failure.value.code == grpc.StatusCode.NOT_FOUND
    assert seen == ["a", "b", "c"]
    assert [request.known_etag for request in server.requests] == ["", "b", "b"]


def test_a_watch_gives_up_after_failures_in_a_row(server, client):
    server.replies = [_answers(end=grpc.StatusCode.UNAVAILABLE)] * 20
    with pytest.raises(RateQuantError) as failure:
        next(client.watch_bit_map("x", code_bits=3, known_etag="k"))
    assert failure.value.code == grpc.StatusCode.UNAVAILABLE
    assert len(server.requests) == RetryPolicy().attempts
    assert {request.known_etag for request in server.requests} == {"k"}


def test_an_unchanged_answer_is_said_to_who_knew_it(server, client):
    server.replies = [_answers("same")]
    assert [response.unchanged for response in client.watch_bit_map("x", code_bits=3, known_etag="same")] == [True]


def test_lists_are_narrowed_by_the_service(server, client):
    server.replies = [allocation.ListModelsResponse(), allocation.ListCalibrationsResponse()]
    assert list(client.list_models("Qwen--")) == []
    morning = datetime.datetime(2026, 1, 2, 8, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert list(client.list_calibrations("x", quantizer="kivi:group_size=64", created_from=morning)) == []
    models, calibrations = server.requests
    assert models.id_prefix == "Qwen--"
    assert calibrations.quantizer.group_size == 64
    assert calibrations.create_time_from.ToDatetime() == datetime.datetime(2026, 1, 2, 6)
    assert not calibrations.HasField("create_time_before")


def test_deleting_and_curves(server, client):
    server.replies = [empty_pb2.Empty(), allocation.RateDistortionCurve(calibration="c")]
    client.delete_calibration("x", "abc")
    assert client.get_rate_distortion_curve("x", max_points=7, sink_tokens=4).calibration == "c"
    assert server.requests[0].name == "models/x/calibrations/abc"
    assert server.requests[1].max_points == 7
    assert not server.requests[1].HasField("capacity")


def test_a_plan_asks_with_memory_and_sequences(server, client):
    server.replies = [allocation.RateDistortionCurve()]
    client.plan("x", 64 << 30, sequences=64, context_tokens=32768, cost="code-bits", quantizers=["kivi"])
    (request,) = server.requests
    assert request.capacity == allocation.Capacity(memory_bytes=64 << 30, sequences=64)
    assert request.cache.context_tokens == 32768
    assert request.cost == allocation.GetRateDistortionCurveRequest.CODE_BITS
    for wrong in ({"memory_bytes": -1}, {"memory_bytes": 0}, {"memory_bytes": 1, "sequences": 0}):
        with pytest.raises(ValueError, match="above 0"):
            client.plan("x", **wrong)
    with pytest.raises(ValueError, match="bytes, code-bits"):
        client.plan("x", 1, cost="tokens")
    assert len(server.requests) == 1


def test_progress_is_told_in_python_types(server, client):
    def progress(context):
        running = Phase(phase=Phase.CAPTURING, tokens_done=512, tokens_total=1024)
        running.elapsed.FromMilliseconds(1500)
        running.remaining.FromSeconds(2)
        yield running
        yield Phase(phase=Phase.DONE, calibration="c", published=True, warnings=["w"])

    server.replies = [progress]
    first, last = client.calibrate_model("x", "dir", "text", quantizers=["kivi"], sink_tokens=0)
    assert (first.phase, first.tokens_done, first.tokens_total) == ("CAPTURING", 512, 1024)
    assert (first.elapsed, first.remaining) == (1.5, 2.0)
    assert (last.phase, last.calibration, last.published, last.warnings) == ("DONE", "c", True, ("w",))
    assert last.remaining is None
    options = server.requests[0].options
    assert options.HasField("sink_tokens") and options.sink_tokens == 0


def test_an_error_in_the_middle_of_a_calibration_is_raised(server, client):
    def progress(context):
        yield Phase(phase=Phase.LOADING)
        context.abort_with_status(rpc_status.to_status(refusal(code_pb2.ABORTED, "ENGINE_CRASHED")))

    server.replies = [progress]
    calls = client.calibrate_model("x", "dir", "text")
    assert next(calls).phase == "LOADING"
    with pytest.raises(RateQuantError) as caught:
        next(calls)
    assert caught.value.reason == "ENGINE_CRASHED"


def test_pushed_chunks_get_the_models_name(server, client):
    server.replies = [lambda context: iter([Phase(phase=Phase.DONE, calibration="c")])]
    chunks = [worker.CalibrateChunk(header=worker.CalibrateHeader(model="other")), worker.CalibrateChunk()]
    (last,) = client.calibrate_stream("Qwen/Qwen3-8B", iter(chunks))
    assert last.calibration == "c"
    header, other = server.requests
    assert header.header.model == "models/Qwen--Qwen3-8B" and not other.HasField("header")


def test_leaving_a_calibration_cancels_it(server, client):
    cancelled = threading.Event()

    def progress(context):
        context.add_callback(cancelled.set)
        yield Phase(phase=Phase.LOADING)
        cancelled.wait(30)

    server.replies = [progress]
    calls = client.calibrate_model("x", "dir", "text")
    next(calls)
    calls.close()
    assert cancelled.wait(10)


def test_endpoints_come_from_the_environment(server, monkeypatch, make_client):
    monkeypatch.setenv("RATEQUANT_ENDPOINT", server.endpoint)
    server.replies = [model_pb2.Model(name="models/x")]
    with make_client() as client:
        assert client.get_model("x").name == "models/x"


def test_a_missing_endpoint_is_named(monkeypatch, make_client):
    monkeypatch.delenv("RATEQUANT_ENDPOINT", raising=False)
    monkeypatch.delenv("RATEQUANT_WORKER_ENDPOINT", raising=False)
    with make_client() as client:
        with pytest.raises(ValueError, match="RATEQUANT_ENDPOINT"):
            client.get_model("x")
        with pytest.raises(ValueError, match="RATEQUANT_WORKER_ENDPOINT"):
            client.calibrate_model("x", "dir", "text")


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def methods(client):
        public = (name for name in dir(client) if not name.startswith("_"))
        return {name: list(inspect.signature(getattr(client, name)).parameters) for name in public}

    assert methods(AsyncClient) == methods(Client)
