"""Takes post-RoPE K, V and their loss gradients out of a Hugging Face model.

`load_model` reads a model folder, `probe_geometry` says whether its attention can be
captured and with which shapes, `capture_sequence` runs one sequence forward and
backward and hands each layer's tensors to a callback. `python -m
ratequant.capture.engine` does that for a calibration worker
(services/calibration/ENGINE.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratequant.capture.errors import CaptureError as CaptureError
    from ratequant.capture.geometry import Geometry as Geometry
    from ratequant.capture.geometry import probe_geometry as probe_geometry
    from ratequant.capture.loading import load_model as load_model
    from ratequant.capture.sequence import SequenceLoss as SequenceLoss
    from ratequant.capture.sequence import capture_sequence as capture_sequence

_HOMES = {
    "CaptureError": "errors",
    "Geometry": "geometry",
    "probe_geometry": "geometry",
    "load_model": "loading",
    "SequenceLoss": "sequence",
    "capture_sequence": "sequence",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Loaded on first use: the engine has work to start before it imports torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
