"""The calibration an evaluation takes its bit maps from: a stored one that
fits, or a new one."""

from __future__ import annotations

import dataclasses

import grpc

from ratequant.client import Client
from ratequant.errors import RateQuantError
from ratequant.evaluate.options import EvaluateOptions
from ratequant.evaluate.status import Status
from ratequant.quantizer import quantizer_name
from ratequant.v1 import calibration_pb2


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a calibration was made from: SHA-256 of the model's files and of the
    calibration tokens, as the capture engine makes them."""

    model_digest: str
    token_digest: str


def find_calibration(client: Client, options: EvaluateOptions, provenance: Provenance) -> str | None:
    """Resource name of the newest stored calibration that was made from the
    same model and tokens with the same options and knows all quantizers; else
    None."""
    try:
        for calibration in client.list_calibrations(options.model_name):
            if _fits(calibration, options, provenance):
                return calibration.name
    except RateQuantError as error:
        if error.code != grpc.StatusCode.NOT_FOUND:
            raise
    return None


def _fits(calibration: calibration_pb2.Calibration, options: EvaluateOptions, provenance: Provenance) -> bool:
    capture = calibration.capture
    measured = {quantizer_name(table.quantizer) for table in calibration.tables}
    pages = {table.page_tokens for table in calibration.tables}
    return (
        capture.sequences == options.calibration_sequences
        and capture.sequence_length == options.calibration_sequence_length
        and capture.sink_tokens == options.sinks
        and pages == {options.page_tokens}
        and capture.means_subtracted == options.subtract_means
        and Provenance(capture.model_digest, capture.token_digest) == provenance
        and measured.issuperset(options.quantizers)
        and (capture.attention_output or not options.attention_output)
    )


def calibrate(client: Client, options: EvaluateOptions, text: str, status: Status) -> str:
    """Calibrates the model with the worker and returns the calibration's
    resource name.

    Raises:
      RateQuantError: the calibration failed or could not be published.
    """
    status.phase(f"calibrating {options.model_name.removeprefix('models/')}")
    last = None
    for last in client.calibrate_model(
        options.model_name,
        options.model,
        text,
        quantizers=options.quantizers,
        sequences=options.calibration_sequences,
        sequence_length=options.calibration_sequence_length,
        sink_tokens=options.sinks,
        page_tokens=options.page_tokens,
        subtract_means=options.subtract_means,
        attention_output=options.attention_output,
    ):
        status.update(last.tokens_done, last.tokens_total, f"calibrating: {last.phase.lower()}")
    if last is None or last.phase != "DONE":
        raise RateQuantError(grpc.StatusCode.INTERNAL, "the worker ended the calibration without a result")
    if not last.published:
        raise RateQuantError(
            grpc.StatusCode.UNAVAILABLE,
            f"the worker made {last.calibration} but could not publish it to the allocator; it keeps it on disk",
        )
    for warning in last.warnings:
        status.note(f"calibration: {warning}")
    return last.calibration
