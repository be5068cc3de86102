"""Measures how well a stored calibration fits new text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import grpc

from ratequant.check.drift import Drift, compare
from ratequant.client import Client
from ratequant.errors import RateQuantError
from ratequant.quantizer import quantizer_name
from ratequant.services import Services
from ratequant.v1 import bit_map_pb2, calibration_pb2


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """What to check.

    Attributes:
      model: Hugging Face model folder.
      text: the new text.
      model_name: id that the calibration is stored under.
      calibration: its id, or "latest".
      effective_bits: the budget of the maps that are compared.
      sequences, sequence_length: new text that is captured; half of the sequences from each half of the text.
    """

    model: Path
    text: str
    model_name: str
    calibration: str = "latest"
    effective_bits: float = 3.0
    sequences: int = 8
    sequence_length: int = 512


def check(client: Client, options: CheckOptions, on_phase: Callable[[str], None] = lambda phase: None) -> Drift:
    """Captures the new text with services of its own, which leave nothing behind, and compares it with the calibration
    that `client`'s allocator has.

    Raises:
      ValueError: an odd or too small number of sequences, or a model that isn't the calibration's.
      RateQuantError: the allocator has no such calibration or map, or capturing failed.
      ServiceError: the services can't be started.
    """
    if options.sequences < 2 or options.sequences % 2:
        raise ValueError(f"{options.sequences} sequences can't be halved; 2, 4, 6, ... can")
    stored = client.get_calibration(options.model_name, options.calibration)
    stored_map = client.get_bit_map(
        options.model_name, calibration=options.calibration, effective_bits=options.effective_bits
    )
    middle = len(options.text) // 2
    halves: list[calibration_pb2.Calibration] = []
    maps: list[bit_map_pb2.BitMap] = []
    with Services(options.model.resolve().parent) as services:
        with Client(services.endpoint, services.worker_endpoint) as own:
            for i, text in enumerate((options.text[:middle], options.text[middle:])):
                on_phase(f"capturing half {i + 1} of the new text")
                name = f"half-{i}"
                _calibrate(own, name, text, stored, options)
                halves.append(own.get_calibration(name))
                maps.append(own.get_bit_map(name, effective_bits=options.effective_bits))
    return compare(stored, stored_map, halves, maps)


def _calibrate(
    client: Client, name: str, text: str, stored: calibration_pb2.Calibration, options: CheckOptions
) -> None:
    last = None
    for last in client.calibrate_model(
        name,
        str(options.model.resolve()),
        text,
        quantizers=[quantizer_name(table.quantizer) for table in stored.tables],
        sequences=options.sequences // 2,
        sequence_length=options.sequence_length,
        sink_tokens=stored.capture.sink_tokens,
        page_tokens=stored.tables[0].page_tokens or 32,
        subtract_means=stored.capture.means_subtracted,
    ):
        pass
    if last is None or not last.published:
        raise RateQuantError(grpc.StatusCode.INTERNAL, "capturing the new text ended without a result")
