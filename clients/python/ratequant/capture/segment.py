"""The shared-memory segment captured tensors are handed over in (ENGINE.md, "Segment")."""

from __future__ import annotations

import math
import mmap
import os

import torch

from ratequant.capture.errors import ENGINE_ERROR, CaptureError
from ratequant.capture.geometry import Geometry



def slot_shapes(geometry: Geometry, tokens: int, attention_output: bool = False) -> list[tuple[int, int, int]]:
    """Shapes of a slot's tensors: K, V, gradient of K, gradient of V, and with `attention_output` Q and the gradient of
    attention's output."""
    heads = [geometry.kv_heads] * 4 + [geometry.query_heads] * (2 if attention_output else 0)
    return [(count, tokens, geometry.head_dim) for count in heads]


def slot_bytes(geometry: Geometry, tokens: int, dtype: torch.dtype, attention_output: bool = False) -> int:
    """Bytes of one slot, its tensors of `dtype`."""
    return sum(map(math.prod, slot_shapes(geometry, tokens, attention_output))) * dtype.itemsize


class Segment:
    """A mapped segment of `slots` slots. The worker owns the memory; this only writes into it.

    Not thread-safe.
    """

    def __init__(
        self,
        path: str,
        slots: int,
        slot_size: int,
        geometry: Geometry,
        tokens: int,
        dtype: torch.dtype,
        attention_output: bool = False,
    ) -> None:
        """Maps the segment at `path` for writing.

        Raises:
          CaptureError: ENGINE_ERROR; it can't be mapped, is too small, or has slots of another size.
        """
        expected = slot_bytes(geometry, tokens, dtype, attention_output)
        if slots < 1 or slot_size != expected:
            raise CaptureError(
                ENGINE_ERROR,
                f"the segment has {slots} slots of {slot_size} bytes; at least 1 of {expected} is needed",
            )
        self.slots = slots
        self._map = _map(path, slots * slot_size)
        self._shapes = slot_shapes(geometry, tokens, attention_output)
        self._slots = torch.frombuffer(self._map, dtype=dtype).view(slots, -1)

    def fill(self, slot: int, tensors: tuple[torch.Tensor, ...]) -> None:
        """Copies tensors of `slot_shapes` into `slot`; it is complete when this returns."""
        targets = self._slots[slot].split([math.prod(shape) for shape in self._shapes])
        for target, shape, tensor in zip(targets, self._shapes, tensors, strict=True):
            target.view(shape).copy_(tensor)


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
