"""Calibrates a model from a recorded capture: sends it to a worker that doesn't have the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ratequant.capture.capture_reader import CaptureFileError, CaptureReader
from ratequant.client import Client
from ratequant.progress import CalibrationProgress
from ratequant.quantizer import parse_quantizer
from ratequant.v1 import calibration_pb2, calibration_service_pb2 as worker, model_pb2

_PIECE_BYTES = 1 << 20
# In the order the worker takes the tensors of a layer.
_KINDS = {
    "key": worker.TensorChunk.KEY,
    "value": worker.TensorChunk.VALUE,
    "key_gradient": worker.TensorChunk.KEY_GRADIENT,
    "value_gradient": worker.TensorChunk.VALUE_GRADIENT,
}
# With attention_output, after those.
_ATTENTION_KINDS = {"query": worker.TensorChunk.QUERY, "output_gradient": worker.TensorChunk.OUTPUT_GRADIENT}


def calibrate_capture(
    client: Client,
    capture: CaptureReader,
    *,
    model: str = "",
    quantizers: Sequence[str] = (),
    sink_tokens: int = 4,
    page_tokens: int = 32,
    subtract_means: bool = False,
    attention_output: bool = False,
    timeout: float = 3600.0,
) -> Iterator[CalibrationProgress]:
    """Sends a capture to the client's worker and yields progress, as `Client.calibrate_model` does. The same tensors
    give the same calibration as when the worker captures them itself. One tensor is in memory at a time.

    Args:
      model: the id it is stored under; empty means the capture's.
      quantizers, sink_tokens, page_tokens, subtract_means, attention_output, timeout: as in
        `Client.calibrate_model`.

    Raises:
      CaptureFileError: the capture has no gradients, or with attention_output none of attention's output.
      RateQuantError: the worker refused or failed.
    """
    info = capture.info
    if not info.gradients:
        raise CaptureFileError("the capture has no gradients, which calibration needs: record it with --gradients")
    if attention_output and not info.output_gradients:
        raise CaptureFileError("the capture has no gradients of attention's output, which attention_output needs: record it again")
    options = worker.CalibrateOptions(
        quantizers=[parse_quantizer(q) for q in quantizers],
        sequences=info.sequences,
        sequence_length=info.sequence_length,
        sink_tokens=sink_tokens,
        page_tokens=page_tokens,
        subtract_means=subtract_means,
        attention_output=attention_output,
    )
    return client.calibrate_stream(model or info.model, _chunks(capture, options), timeout)


def _chunks(capture: CaptureReader, options: worker.CalibrateOptions) -> Iterator[worker.CalibrateChunk]:
    info = capture.info
    yield worker.CalibrateChunk(
        header=worker.CalibrateHeader(
            geometry=model_pb2.ModelGeometry(
                layers=info.layers, kv_heads=info.kv_heads, query_heads=info.query_heads, head_dim=info.head_dim
            ),
            options=options,
            capture=calibration_pb2.CaptureInfo(
                device=info.device,
                model_digest=info.model_digest,
                tokenizer_digest=info.tokenizer_digest,
                token_digest=info.token_digest,
                mean_nll=_mean_nll(info.loss_sum, info.sequence_length),
                software=info.software,
            ),
            dtype=info.dtype,
            attention=[worker.LayerAttention(**vars(layer)) for layer in capture.attention if options.attention_output],
        )
    )
    kinds = _KINDS | (_ATTENTION_KINDS if options.attention_output else {})
    for sequence in range(info.sequences):
        for layer in range(info.layers):
            for name, kind in kinds.items():
                data = capture.tensor(sequence, layer, name).contiguous().view(torch.uint8).numpy().tobytes()
                for offset in range(0, len(data), _PIECE_BYTES):
                    piece = worker.TensorChunk(
                        sequence=sequence, layer=layer, kind=kind, offset=offset, data=data[offset : offset + _PIECE_BYTES]
                    )
                    yield worker.CalibrateChunk(tensor=piece)


def _mean_nll(losses: Sequence[float], sequence_length: int) -> float:
    total = 0.0  # In order, as the worker adds them up.
    for loss in losses:
        total += loss
    return total / (len(losses) * (sequence_length - 1))
