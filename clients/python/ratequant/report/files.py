"""JSON files, told apart by what is in them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from google.protobuf import json_format

from ratequant.evaluate.bundle import Bundle
from ratequant.report.content import Content
from ratequant.report.evaluations import rows_of_evaluations
from ratequant.report.source import check_rows, map_label, read_json, shown_maps
from ratequant.v1 import allocation_service_pb2, bit_map_pb2, calibration_pb2, evaluation_pb2

# A kind, the fields only it has, and the command that writes it.
_KINDS = (
    (calibration_pb2.Calibration, {"tables"}, "ratequant calibrations get"),
    (bit_map_pb2.BitMap, {"quantizer_index", "width"}, "ratequant bitmap get"),
    (allocation_service_pb2.RateDistortionCurve, {"points"}, "ratequant curve"),
    (allocation_service_pb2.ListEvaluationsResponse, {"evaluations"}, "ratequant evaluations list"),
)
_SUPPORTED = f"`evaluate --json`, `evaluate --bundle`, {', '.join(f'`{command}`' for *_, command in _KINDS)}"


class FileSet:
    """Collects files until a page's content is complete."""

    def __init__(self) -> None:
        self._rows: list[dict] = []
        self._bundle_maps: dict[str, bit_map_pb2.BitMap] = {}
        self._calibrations: dict[str, calibration_pb2.Calibration] = {}
        self._bit_maps: dict[str, bit_map_pb2.BitMap] = {}
        self._curves: dict[str, allocation_service_pb2.RateDistortionCurve] = {}
        self._evaluations: list[evaluation_pb2.Evaluation] = []

    def add_file(self, path: str | os.PathLike) -> None:
        """Adds a JSON file of any kind; calibrations, maps and curves are
        labelled by its name.

        Raises:
          ValueError: it isn't of a known kind; names what is.
          OSError: it can't be read.
        """
        data = read_json(path)
        if isinstance(data, list):
            self.add_rows(check_rows(data, path))
        elif isinstance(data, dict) and "ratequant_bundle" in data:
            self.add_bundle(Bundle.parse(data, path), pathlib.Path(path).stem)
        else:
            self._add_message(_parse(data, path), path)

    def add_rows(self, rows: Sequence[dict]) -> None:
        """Adds rows of an evaluation.

        Raises:
          ValueError: there are rows already: those of two evaluations aren't
            paired.
        """
        if self._rows:
            raise ValueError("two evaluations: a page shows one")
        self._rows = list(rows)

    def add_bundle(self, bundle: Bundle, label: str) -> None:
        """Adds what is behind an evaluation."""
        self._calibrations[_free(label, self._calibrations)] = bundle.calibration
        self._bundle_maps |= bundle.bit_maps
        for name, curve in bundle.curves.items():
            self._curves.setdefault(name, curve)

    def content(self) -> Content:
        """What there is to show.

        Raises:
          ValueError: see Content, and evaluations whose maps are missing.
        """
        shown = shown_maps(self._rows, self._bundle_maps)
        bit_maps = {map_label(row): bit_map for row, bit_map in shown} | self._bit_maps
        rows = self._rows
        if self._evaluations:
            if rows:
                raise ValueError("rows and recorded evaluations: a page shows one of them")
            rows = rows_of_evaluations(self._evaluations, list(self._bit_maps.values()))
        return Content(rows, self._calibrations, bit_maps, self._curves)

    def _add_message(self, message, path: str | os.PathLike) -> None:
        if isinstance(message, allocation_service_pb2.ListEvaluationsResponse):
            self._evaluations.extend(message.evaluations)
            return
        labelled = {
            calibration_pb2.Calibration: self._calibrations,
            bit_map_pb2.BitMap: self._bit_maps,
            allocation_service_pb2.RateDistortionCurve: self._curves,
        }[type(message)]
        labelled[_free(pathlib.Path(path).stem, labelled)] = message


def _parse(data, path: str | os.PathLike):
    for kind, fields, command in _KINDS:
        if isinstance(data, dict) and fields <= data.keys():
            try:
                return json_format.ParseDict(data, kind())
            except json_format.ParseError as error:
                raise ValueError(f"'{path}' isn't what `{command}` writes as JSON: {error}") from error
    raise ValueError(f"'{path}' is nothing that a report can show; supported is the JSON of {_SUPPORTED}")


def _free(label: str, taken: dict) -> str:
    """The label, numbered when another file has it."""
    number = 2
    free = label
    while free in taken:
        free, number = f"{label} ({number})", number + 1
    return free
