"""The text form of quantizers: "kivi", "kivi:group_size=64", "turboquant:seed=7".

The same form the C++ library and the `ratequant` command use
(kernels/include/ratequant/kv/quantizer.h).
"""

from __future__ import annotations

from ratequant.v1 import quantizer_pb2

QUANTIZER_IDS = ("rtn", "kivi", "quarot", "turboquant", "tcq")

_KIND = {name: quantizer_pb2.Quantizer.Kind.Value(name.upper()) for name in QUANTIZER_IDS}
_PARAMETERS = {
    "rtn": (),
    "kivi": ("group_size",),
    "quarot": ("seed",),
    "turboquant": ("seed", "key_scale", "value_scale"),
    "tcq": ("seed", "key_scale", "value_scale"),
}
_SCALES = {"l2": quantizer_pb2.Quantizer.L2, "unbiased": quantizer_pb2.Quantizer.UNBIASED}
_LARGEST = {"group_size": 2**31 - 1, "seed": 2**64 - 1}
# What a parameter is when the text doesn't say it.
_DEFAULTS = {"group_size": 32, "seed": 0, "key_scale": "l2", "value_scale": "unbiased"}


def parse_quantizer(text: str) -> quantizer_pb2.Quantizer:
    """Parses an id with optional parameters into a canonical Quantizer, every
    parameter of its kind filled in.

    Raises:
      ValueError: names what isn't known and what is supported.
    """
    name, colon, rest = text.strip().partition(":")
    if name not in _KIND:
        raise ValueError(f"unknown quantizer '{text}'; supported: {', '.join(QUANTIZER_IDS)}")
    given: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not equals or key not in _PARAMETERS[name]:
            known = ", ".join(_PARAMETERS[name]) or "none"
            raise ValueError(f"'{part}' in '{text}' isn't a parameter of {name}; supported: {known}")
        if key in given:
            raise ValueError(f"'{key}' is set twice in '{text}'")
        given[key] = value
    quantizer = quantizer_pb2.Quantizer(kind=_KIND[name])
    for key in _PARAMETERS[name]:
        value = given.get(key, str(_DEFAULTS[key]))
        setattr(quantizer, key, _parse_value(key, value, text))
    return quantizer


def quantizer_name(quantizer: quantizer_pb2.Quantizer) -> str:
    """The shortest text that `parse_quantizer` turns into `quantizer`; fields
    at zero count as defaults."""
    if quantizer.kind not in _KIND.values():
        raise ValueError(f"quantizer of unknown kind {quantizer.kind}; supported: {', '.join(QUANTIZER_IDS)}")
    name = quantizer_pb2.Quantizer.Kind.Name(quantizer.kind).lower()
    scale_names = {number: scale for scale, number in _SCALES.items()}
    parts = []
    for key in _PARAMETERS[name]:
        value = getattr(quantizer, key)
        if key.endswith("_scale"):
            value = scale_names.get(value, value)
        if value not in (0, _DEFAULTS[key]):
            parts.append(f"{key}={value}")
    return name + (":" + ",".join(parts) if parts else "")


def split_quantizers(texts: list[str]) -> list[str]:
    """Splits command-line words into quantizer texts. Words may be separated
    by commas too: "kivi,quarot:seed=1,turboquant" is three quantizers; a comma
    before `key=` continues the parameters of the quantizer before it."""
    names: list[str] = []
    for text in texts:
        open_parameters = False
        for part in text.split(","):
            if open_parameters and "=" in part and ":" not in part:
                names[-1] += "," + part
                continue
            names.append(part)
            open_parameters = ":" in part
    return [name for name in (n.strip() for n in names) if name]


def _parse_value(key: str, value: str, text: str) -> int:
    if key.endswith("_scale"):
        if value not in _SCALES:
            raise ValueError(f"{key} '{value}' in '{text}' isn't supported; supported: {', '.join(_SCALES)}")
        return _SCALES[value]
    if not value.isascii() or not value.isdigit() or int(value) > _LARGEST[key]:
        raise ValueError(f"{key} '{value}' in '{text}' isn't a number from 0 to {_LARGEST[key]}")
    if key == "group_size" and int(value) == 0:
        raise ValueError(f"group_size 0 in '{text}' isn't supported; it is at least 1")
    return int(value)
