"""Writes recorded captures (CAPTURE.md)."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

FORMAT_VERSION = 1

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8  # Of the first tensor in the file.
_TYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class CaptureWriter:
    """Writes a safetensors file whose tensors come one by one, in any order.

    A capture is larger than memory may be, so the tensors go to their places at once; the
    header is written last, into space that is kept for it. The file appears under its name
    when all of it is written and on the disk, replacing what was there; until then, and
    after an error, nothing of it is seen. A context manager, not thread-safe.

        with CaptureWriter(path, {"x": (2, 3)}, torch.float32, metadata_bytes=1000) as writer:
            writer.write("x", tensor)
            writer.finish({"ratequant_capture": "1"})
    """

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, metadata_bytes: int
    ) -> None:
        """Reserves the file's space.

        Args:
          path: where the file will be.
          shapes: the shape of every tensor by its name.
          dtype: of all of them: fp32, fp16 or bf16.
          metadata_bytes: the most that the metadata will take as JSON.

        Raises:
          ValueError: another dtype.
          OSError: the file can't be made, or the disk is full.
        """
        if dtype not in _TYPE_NAMES:
            raise ValueError(f"tensors of {dtype} can't be recorded; supported: {', '.join(map(str, _TYPE_NAMES))}")
        self._path = path
        self._dtype = dtype
        self._shapes = dict(shapes)
        self._header: dict[str, object] = {}
        offset = 0
        for name, shape in self._shapes.items():
            end = offset + dtype.itemsize * torch.Size(shape).numel()
            self._header[name] = {"dtype": _TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        size = len(_json(self._header)) + metadata_bytes
        self._header_bytes = size + -(_LENGTH.size + size) % _ALIGNMENT
        self._missing = set(self._shapes)
        descriptor, self._temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        self._file = os.fdopen(descriptor, "wb")
        try:
            os.posix_fallocate(descriptor, 0, _LENGTH.size + self._header_bytes + offset)
        except BaseException:
            self._discard()
            raise

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Writes one tensor, of the shape and dtype that were announced.

        Raises:
          KeyError: no tensor of that name is missing.
          ValueError: another shape or dtype.
          OSError: it can't be written.
        """
        if name not in self._missing:
            raise KeyError(f"{name} isn't a tensor that is still missing")
        if tuple(tensor.shape) != self._shapes[name] or tensor.dtype != self._dtype:
            raise ValueError(
                f"{name} is {list(tensor.shape)} of {tensor.dtype}, not {list(self._shapes[name])} of {self._dtype}"
            )
        self._file.seek(_LENGTH.size + self._header_bytes + self._header[name]["data_offsets"][0])
        self._file.write(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        self._missing.remove(name)

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Writes the header and puts the file in its place.

        Raises:
          ValueError: a tensor is missing, or the metadata is larger than was announced.
          OSError: it can't be written.
        """
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors are missing, {min(self._missing)} is the first")
        header = _json({"__metadata__": dict(metadata), **self._header})
        if len(header) > self._header_bytes:
            raise ValueError(f"the header has {len(header)} bytes, {self._header_bytes} are kept for it")
        self._file.seek(0)
        self._file.write(_LENGTH.pack(self._header_bytes) + header.ljust(self._header_bytes))
        self._file.flush()
        os.fsync(self._file.fileno())
        # mkstemp's file is for its owner alone.
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(self._file.fileno(), 0o666 & ~mask)
        self._file.close()
        os.replace(self._temporary, self._path)
        self._temporary = None

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        self._file.close()
        if self._temporary is not None:
            os.unlink(self._temporary)
            self._temporary = None


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
