"""The shared-memory segment captured tensors are handed over in (ENGINE.md, "Segment")."""

from __future__ import annotations

import mmap
import os

import torch

from ratequant.capture.errors import ENGINE_ERROR, CaptureError
from ratequant.capture.geometry import Geometry

_TENSORS = 4  # K, V, gradient of K, gradient of V


def slot_bytes(geometry: Geometry, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of one slot: four tensors [kv_heads, tokens, head_dim] of `dtype`."""
    return _TENSORS * geometry.kv_heads * tokens * geometry.head_dim * dtype.itemsize


class Segment:
    """A mapped segment of `slots` slots. The worker owns the memory; this only writes into it.

    Not thread-safe.
    """

    def __init__(
        self, path: str, slots: int, slot_size: int, geometry: Geometry, tokens: int, dtype: torch.dtype
    ) -> None:
        """Maps the segment at `path` for writing.

        Raises:
          CaptureError: ENGINE_ERROR; it can't be mapped, is too small, or has slots of another size.
        """
        expected = slot_bytes(geometry, tokens, dtype)
        if slots < 1 or slot_size != expected:
            raise CaptureError(
                ENGINE_ERROR,
                f"the segment has {slots} slots of {slot_size} bytes; at least 1 of {expected} is needed",
            )
        self.slots = slots
        self._map = _map(path, slots * slot_size)
        shape = (slots, _TENSORS, geometry.kv_heads, tokens, geometry.head_dim)
        self._slots = torch.frombuffer(self._map, dtype=dtype).view(shape)

    def fill(self, slot: int, tensors: tuple[torch.Tensor, ...]) -> None:
        """Copies K, V and their gradients into `slot`; it is complete when this returns."""
        for target, tensor in zip(self._slots[slot], tensors, strict=True):
            target.copy_(tensor)


def _map(path: str, size: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CaptureError(ENGINE_ERROR, f"can't open the segment {path!r}: {error.strerror}") from error
    try:
        actual = os.fstat(descriptor).st_size
        if actual < size:
            raise CaptureError(ENGINE_ERROR, f"the segment {path!r} has {actual} bytes, not {size}")
        return mmap.mmap(descriptor, size)
    except OSError as error:
        raise CaptureError(ENGINE_ERROR, f"can't map the segment {path!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)
