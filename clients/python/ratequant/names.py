"""Resource names: `models/{model}`, `models/{model}/calibrations/{id}` and
`models/{model}/bitMaps/{id}`."""

from __future__ import annotations

import re

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def model_name(model: str) -> str:
    """The resource name of a model given as an id ("Qwen--Qwen3-8B"), a hub
    name ("Qwen/Qwen3-8B") or a resource name ("models/Qwen--Qwen3-8B").

    Raises:
      ValueError: the id isn't one.
    """
    model_id = model.removeprefix("models/").replace("/", "--")
    if not _MODEL_ID.match(model_id):
        raise ValueError(
            f"'{model}' isn't a model id: a letter or digit, then at most 127 letters, digits, '.', '_' or '-'"
        )
    return f"models/{model_id}"


def calibration_name(model: str, calibration: str = "latest") -> str:
    """The resource name of a calibration given as its id or its full name;
    "latest" is the newest of the model."""
    if calibration.startswith("models/"):
        return calibration
    if not calibration or "/" in calibration:
        raise ValueError(f"'{calibration}' isn't a calibration id")
    return f"{model_name(model)}/calibrations/{calibration}"


def bit_map_name(model: str, bit_map: str) -> str:
    """The resource name of a bit map given as its id (the etag of an answer) or
    its full name."""
    if bit_map.startswith("models/"):
        return bit_map
    if not bit_map or "/" in bit_map:
        raise ValueError(f"'{bit_map}' isn't a bit map id")
    return f"{model_name(model)}/bitMaps/{bit_map}"
