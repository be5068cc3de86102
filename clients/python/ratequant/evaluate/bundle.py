"""Everything behind an evaluation in one JSON file, so that a report can be
drawn without an allocator."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from google.protobuf import json_format

from ratequant.v1 import allocation_service_pb2, bit_map_pb2, calibration_pb2

VERSION = 1


@dataclasses.dataclass
class Bundle:
    """A calibration, bit maps by resource name, and rate-distortion curves by
    quantizer ("any" is the one across quantizers)."""

    calibration: calibration_pb2.Calibration
    bit_maps: dict[str, bit_map_pb2.BitMap]
    curves: dict[str, allocation_service_pb2.RateDistortionCurve]

    def write(self, path: str | os.PathLike) -> None:
        """Writes the bundle; messages are in protobuf's JSON form."""
        write_json(
            path,
            {
                "ratequant_bundle": VERSION,
                "calibration": _to_json(self.calibration),
                "bit_maps": [_to_json(bit_map) for bit_map in self.bit_maps.values()],
                "curves": {name: _to_json(curve) for name, curve in self.curves.items()},
            },
            indent=None,
        )

    @classmethod
    def read(cls, path: str | os.PathLike) -> Bundle:
        """Reads a bundle.

        Raises:
          ValueError: the file isn't a bundle, or of another version.
          OSError: it can't be read.
        """
        try:
            data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise _no_bundle(path, error) from error
        return cls.parse(data, path)

    @classmethod
    def parse(cls, data: Any, path: str | os.PathLike) -> Bundle:
        """A bundle from the JSON value of the file at `path`, which only names
        it in errors.

        Raises:
          ValueError: it isn't a bundle, or of another version.
        """
        try:
            version = data["ratequant_bundle"]
            if version != VERSION:
                raise ValueError(f"version {version}; supported: {VERSION}")
            maps = [json_format.ParseDict(item, bit_map_pb2.BitMap()) for item in data["bit_maps"]]
            return cls(
                json_format.ParseDict(data["calibration"], calibration_pb2.Calibration()),
                {bit_map.name: bit_map for bit_map in maps},
                {
                    name: json_format.ParseDict(item, allocation_service_pb2.RateDistortionCurve())
                    for name, item in data["curves"].items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
            raise _no_bundle(path, error) from error


def _no_bundle(path: str | os.PathLike, error: Exception) -> ValueError:
    return ValueError(f"'{path}' isn't a bundle that `evaluate --bundle` wrote: {error}")


def write_json(path: str | os.PathLike, value, indent: int | None = 1) -> None:
    """Writes a JSON file by rename, so that no half file is ever left."""
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(value, indent=indent, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _to_json(message) -> dict:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
