"""Where a model's weights are: on one device, or spread as accelerate's device maps say."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ratequant.capture.errors import ENGINE_ERROR, CaptureError

# Maps that transformers and accelerate make from the memory that is there.
AUTOMATIC_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
DeviceMap = str | dict[str, int | str]


def read_device_map(text: str) -> DeviceMap:
    """One of AUTOMATIC_MAPS, or the map in a JSON file: module names to GPU numbers, "cpu" or "disk".

    Raises:
      CaptureError: ENGINE_ERROR, naming the file or the entry.
    """
    if text in AUTOMATIC_MAPS:
        return text
    try:
        content = json.loads(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(f"{text!r} is none of {', '.join(AUTOMATIC_MAPS)}, and no file: {error.strerror}") from error
    except ValueError as error:
        raise _wrong(f"{text} is not JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise _wrong(f"{text} holds no map of module names to devices")
    for module, device in content.items():
        _check_device(text, module, device)
    return content


def compute_devices(model: PreTrainedModel) -> list[torch.device]:
    """What `model` runs on, where it takes its tokens and gives its logits first; weights may be elsewhere."""
    places = getattr(model, "hf_device_map", None)
    if places is None:
        return [model.device]
    # Weights in main memory or on disk go to the first GPU for each use.
    gpus = dict.fromkeys(place for place in places.values() if place not in ("cpu", "disk"))
    return [torch.device(gpu) for gpu in gpus] or [torch.device("cpu")]


def input_device(model: PreTrainedModel) -> torch.device:
    """The first of `compute_devices`."""
    return compute_devices(model)[0]


def is_spread(model: PreTrainedModel) -> bool:
    """Whether weights are on several devices, or come from main memory or disk when they are needed."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1 or any(p.is_meta for p in model.parameters())


def _check_device(text: str, module: str, device: object) -> None:
    if device in ("cpu", "disk"):
        return
    if type(device) is not int or device < 0:
        raise _wrong(f"{text} puts {module!r} on {device!r}; use a GPU's number, \"cpu\" or \"disk\"")
    if device >= torch.cuda.device_count():
        raise _wrong(f"{text} puts {module!r} on GPU {device}; there are {torch.cuda.device_count()}")


def _wrong(message: str) -> CaptureError:
    return CaptureError(ENGINE_ERROR, f"--device-map: {message}")
