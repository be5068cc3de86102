"""What can go wrong in a capture, under the reasons of the engine's protocol."""

from __future__ import annotations

MODEL_UNREADABLE = "MODEL_UNREADABLE"
UNSUPPORTED_MODEL = "UNSUPPORTED_MODEL"
ENGINE_OUT_OF_MEMORY = "ENGINE_OUT_OF_MEMORY"
ENGINE_ERROR = "ENGINE_ERROR"


class CaptureError(Exception):
    """A capture that can't be made.

    Attributes:
      reason: one of this module's constants, stable.
      message: the sentence for people; names what is wrong and what is supported.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the CPU or on a GPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator has no exception of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
