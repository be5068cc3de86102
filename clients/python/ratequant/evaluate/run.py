"""The evaluation itself: calibration, bit maps, losses, rows."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, MutableMapping, Sequence

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ratequant.cache import RateQuantCache
from ratequant.capture.digest import model_digest, token_digest
from ratequant.client import Client
from ratequant.errors import RateQuantError
from ratequant.evaluate.bundle import Bundle
from ratequant.evaluate.calibrating import Provenance, calibrate, find_calibration
from ratequant.evaluate.configurations import Configuration, configurations, fetch_maps
from ratequant.evaluate.map_source import MapSource
from ratequant.evaluate.options import BASELINE, EvaluateOptions
from ratequant.evaluate.perplexity import load_model, streaming_losses
from ratequant.evaluate.recording import record
from ratequant.evaluate.rows import FP32_MAP, RowBuilder
from ratequant.evaluate.status import Status
from ratequant.services import Services
from ratequant.text import TextError, load_tokenizer, read_text, token_sequences
from ratequant.v1 import bit_map_pb2

# Sequences that run at once: more gain nothing on a CPU and cost memory.
_BATCH_SIZE = 8


@dataclasses.dataclass
class Evaluation:
    """What an evaluation found.

    Attributes:
      rows: one dict for each configuration that has a map, fp32 first.
      skipped: why the other configurations have no map.
      bundle: the calibration, maps and curves behind the rows.
      losses: by a row's "bit_map" ("" is fp32), negative log-likelihoods of the
        scored tokens in nats, float64 [sequences, seq_len - 1].
    """

    rows: list[dict]
    skipped: dict[str, str]
    bundle: Bundle
    losses: dict[str, np.ndarray]


def evaluate(
    options: EvaluateOptions,
    status: Status | None = None,
    *,
    tokens: np.ndarray | None = None,
    wanted: Sequence[Configuration] | None = None,
    known: MutableMapping[str, np.ndarray] | None = None,
) -> Evaluation:
    """Measures the perplexity of a model whose KV cache is packed as bit maps
    say, for every quantizer, budget and strategy.

    Calibrates first unless the allocator has a calibration that fits; starts
    the services when `options.endpoint` is empty. Every token older than the
    window is read back from packed bytes (streaming form).

    Args:
      tokens: token ids to score, int [sequences, seq_len], instead of those of
        `options.eval_text`, whose name the rows still carry; `options.tokens`
        and `options.seq_len` don't count then.
      wanted: what to measure, instead of everything that the options' budgets,
        quantizers and strategies make.
      known: losses of the same model and tokens by what was stored, from an
        earlier evaluation. They aren't measured again; new ones are added as
        soon as they are there, so that an evaluation which is cut short can go
        on where it was.

    Raises:
      ValueError: a text or the model can't be used.
      RateQuantError: a service answered with an error.
      ServiceError: a service could not be started, or died.
    """
    status = status or Status()
    calibration_text = read_text(options.calibrate_text)
    tokenizer = _load_tokenizer(options.model)
    calibration_tokens = _tokens(
        tokenizer, calibration_text, options.calibrate_text, "calibration",
        options.calibration_sequences, options.calibration_sequence_length,
    )  # fmt: skip
    if tokens is None:
        eval_text = read_text(options.eval_text)
        tokens = _tokens(tokenizer, eval_text, options.eval_text, "evaluation", options.sequences, options.seq_len)
    with _connect(options) as client:
        provenance = Provenance(model_digest(pathlib.Path(options.model)), token_digest(calibration_tokens))
        calibration = find_calibration(client, options, provenance)
        if calibration is None:
            calibration = calibrate(client, options, calibration_text, status)
        source = MapSource(
            client, options.model_name, calibration, options.quantizers,
            options.sinks, options.window, options.context_tokens,
        )  # fmt: skip
        maps = fetch_maps(source, configurations(options) if wanted is None else list(wanted), status.note)
        bundle = Bundle(source.full_calibration(), maps.distinct, source.curves())
    known = {} if known is None else known
    losses = _measure(options, maps.distinct, torch.from_numpy(tokens).long(), known, status)
    builder = RowBuilder(options, bundle.calibration, token_digest(tokens), losses)
    rows = [builder.baseline()]
    for configuration, bit_map in maps.maps.items():
        rows.append(builder.row(configuration, bit_map, maps.maps.get(configuration.uniform)))
    if options.record:
        with _connect(options) as client:
            record(client, rows)
    skipped = {str(configuration): reason for configuration, reason in maps.skipped.items()}
    return Evaluation(rows, skipped, bundle, losses)


def _load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        return load_tokenizer(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"can't load the tokenizer in '{model}': {error}") from error


def _tokens(
    tokenizer: PreTrainedTokenizerBase, text: str, path: str, what: str, sequences: int, length: int
) -> np.ndarray:
    try:
        return token_sequences(tokenizer, text, sequences, length)
    except TextError as error:
        raise TextError(f"the {what} text '{path}' can't be used: {error}", reason=error.reason) from error


@contextlib.contextmanager
def _connect(options: EvaluateOptions) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        services = None
        endpoint, worker_endpoint = options.endpoint, options.worker_endpoint
        if not endpoint:
            root = pathlib.Path(options.model).parent
            services = stack.enter_context(Services(root, options.data_dir or None))
            endpoint, worker_endpoint = services.endpoint, services.worker_endpoint
        client = stack.enter_context(Client(endpoint, worker_endpoint))
        try:
            yield client
        except RateQuantError:
            if services is not None:
                services.check()  # a service that died says more than its client
            raise


def _measure(
    options: EvaluateOptions,
    bit_maps: dict[str, bit_map_pb2.BitMap],
    tokens: torch.Tensor,
    known: MutableMapping[str, np.ndarray],
    status: Status,
) -> dict[str, np.ndarray]:
    """Losses by map name, and those of fp32 under FP32_MAP. Maps that store
    the same bytes run once; what is not yet in `known` is put there."""
    forms = {FP32_MAP: _stored_form(None)} | {name: _stored_form(bit_map) for name, bit_map in bit_maps.items()}
    missing = {form: bit_maps.get(name) for name, form in forms.items() if form not in known}
    if missing:
        _run_all(options, missing, tokens, known, status)
    return {name: known[form] for name, form in forms.items()}


def _run_all(
    options: EvaluateOptions,
    bit_maps: dict[str, bit_map_pb2.BitMap | None],
    tokens: torch.Tensor,
    losses: MutableMapping[str, np.ndarray],
    status: Status,
) -> None:
    """Puts the losses of bit maps (None is fp32) into `losses`, by their keys."""
    status.phase("loading the model")
    model = load_model(options.model)
    batch_size = options.batch_size or min(_BATCH_SIZE, len(tokens))
    runs = len(bit_maps)
    status.phase(f"measuring {runs} caches over {tokens.numel():,} tokens", runs * (tokens.numel() - len(tokens)))

    def run(bit_map: bit_map_pb2.BitMap | None) -> np.ndarray:
        losses = streaming_losses(model, tokens, lambda n: _cache(model, bit_map), batch_size, status.advance)
        if not np.isfinite(losses).all():
            raise ValueError(f"the model gives losses that aren't finite with {bit_map.name if bit_map else 'fp32'}")
        return losses

    for form, bit_map in bit_maps.items():
        losses[form] = run(bit_map)
    status.clear()


def _cache(model: PreTrainedModel, bit_map: bit_map_pb2.BitMap | None) -> Cache:
    return DynamicCache(config=model.config) if bit_map is None else RateQuantCache(bit_map, model.config)


def _stored_form(bit_map: bit_map_pb2.BitMap | None) -> str:
    """SHA-256 of what decides the bytes a cache stores, in which two queries may
    meet; "fp32" for None."""
    if bit_map is None:
        return BASELINE
    form = bit_map_pb2.BitMap(
        geometry=bit_map.geometry,
        quantizers=bit_map.quantizers,
        quantizer_index=bit_map.quantizer_index,
        width=bit_map.width,
        cache=bit_map.cache,
        means=bit_map.means,
    )
    return hashlib.sha256(form.SerializeToString(deterministic=True)).hexdigest()


def check_writable(path: str | os.PathLike) -> None:
    """Raises ValueError when a file can't be written there: better before the
    work than after it."""
    folder = pathlib.Path(path).resolve().parent
    if not folder.is_dir():
        raise ValueError(f"can't write '{path}': there is no folder '{folder}'")
    if not os.access(folder, os.W_OK) or pathlib.Path(path).is_dir():
        raise ValueError(f"can't write '{path}'")
