"""On what and with what a capture is made."""

from __future__ import annotations

import platform

import torch
import transformers


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def software() -> list[str]:
    """Names and versions of what computes the tensors."""
    return [
        f"python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"transformers {transformers.__version__}",
    ]
