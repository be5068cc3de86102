"""The requests of the allocator and the worker, from Python arguments: what the
synchronous and the asyncio client share.

Every function raises ValueError for an argument that can't be right.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from ratequant.group_rule import parse_rule
from ratequant.names import bit_map_name, calibration_name, model_name
from ratequant.quantizer import parse_quantizer
from ratequant.v1 import (
    allocation_service_pb2 as allocation,
    bit_map_pb2,
    calibration_pb2,
    calibration_service_pb2 as worker,
)

OBJECTIVES = {
    "loss-projected": bit_map_pb2.Policy.LOSS_PROJECTED,
    "attention-output": bit_map_pb2.Policy.ATTENTION_OUTPUT,
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


def get_model(model: str) -> allocation.GetModelRequest:
    """`model`: an id, hub name or resource name."""
    return allocation.GetModelRequest(name=model_name(model))


def list_calibrations(
    model: str,
    *,
    quantizer: str = "",
    created_from: datetime.datetime | None = None,
    created_before: datetime.datetime | None = None,
) -> allocation.ListCalibrationsRequest:
    """All of a model, or those that measured `quantizer` and were stored in a time."""
    request = allocation.ListCalibrationsRequest(
        parent=model_name(model), quantizer=parse_quantizer(quantizer) if quantizer else None
    )
    for field, time in ((request.create_time_from, created_from), (request.create_time_before, created_before)):
        if time is not None:
            field.FromDatetime(time.astimezone(datetime.timezone.utc))
    return request


def get_calibration(model: str, calibration: str = "latest") -> allocation.GetCalibrationRequest:
    """`calibration`: an id, a full resource name, or "latest"."""
    return allocation.GetCalibrationRequest(name=calibration_name(model, calibration))


def create_calibration(
    model: str, calibration: calibration_pb2.Calibration
) -> allocation.CreateCalibrationRequest:
    """A calibration to be stored."""
    return allocation.CreateCalibrationRequest(parent=model_name(model), calibration=calibration)


def delete_calibration(model: str, calibration: str, *, force: bool = False) -> allocation.DeleteCalibrationRequest:
    """A calibration to be deleted; `force`: its maps' evaluations as well."""
    return allocation.DeleteCalibrationRequest(name=calibration_name(model, calibration), force=force)


def list_evaluations(model: str, bit_map: str = "") -> allocation.ListEvaluationsRequest:
    """Of a model's bit maps, or of one, by name."""
    return allocation.ListEvaluationsRequest(parent=bit_map_name(model, bit_map) if bit_map else model_name(model))


def bit_map(
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
      objective: "loss-projected", "attention-output" (needs a calibration made
        with `attention_output`), "measured" or "paper".
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


def curve(
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
) -> allocation.GetRateDistortionCurveRequest:
    """Returns a query for predicted loss against cost for every budget at once,
    cheapest first. Arguments as for `bit_map`, and:

    Args:
      max_points: thins the answer evenly; 0 returns every breakpoint.
      cost: what maps are compared by, "bytes" or "code-bits" (one quantizer).
      memory_bytes, sequences: only what fits that memory; see `Client.plan`.
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
    return request


def plan(
    model: str, memory_bytes: int, *, sequences: int = 1, context_tokens: int = 0, **options: object
) -> allocation.GetRateDistortionCurveRequest:
    """A `curve` of what fits `memory_bytes`, above 0, for `sequences`, 1 or more."""
    if memory_bytes <= 0 or sequences < 1:
        raise ValueError(f"memory_bytes {memory_bytes} must be above 0, sequences {sequences} 1 or more")
    return curve(model, memory_bytes=memory_bytes, sequences=sequences, context_tokens=context_tokens, **options)


def calibrate_model(
    model: str,
    model_path: str,
    text: str,
    *,
    quantizers: Sequence[str] = (),
    sequences: int = 16,
    sequence_length: int = 512,
    sink_tokens: int = 4,
    page_tokens: int = 32,
    subtract_means: bool = False,
    attention_output: bool = False,
) -> worker.CalibrateModelRequest:
    """Returns a request to calibrate a model that the worker can read.

    Args:
      model: the id it is stored under.
      model_path: Hugging Face folder, inside the worker's model root.
      text: calibration text, at least sequences * sequence_length tokens.
      quantizers: quantizers to measure; empty means all that fit the model.
      page_tokens: tokens in a page of the cache: 16, 32, 64 or 128, a
        multiple of kivi's group_size. Bit maps are for this page.
      subtract_means: take each channel's mean off K and V before they are
        measured; caches of its bit maps store them so too.
      attention_output: also measure what the objective "attention-output" needs.
    """
    return worker.CalibrateModelRequest(
        model=model_name(model),
        model_path=model_path,
        text=text,
        options=worker.CalibrateOptions(
            quantizers=[parse_quantizer(q) for q in quantizers],
            sequences=sequences,
            sequence_length=sequence_length,
            sink_tokens=sink_tokens,
            page_tokens=page_tokens,
            subtract_means=subtract_means,
            attention_output=attention_output,
        ),
    )


def named_chunk(model: str, chunk: worker.CalibrateChunk) -> worker.CalibrateChunk:
    """A chunk of a pushed calibration; a header gets the model's name."""
    if chunk.HasField("header"):
        chunk.header.model = model_name(model)
    return chunk


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

