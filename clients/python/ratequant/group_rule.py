"""The text form of a policy's rules: "layer=0,head=1,tensor=key,min=4,max=8".

The same form the `ratequant` command takes.
"""

from __future__ import annotations

from ratequant.v1 import bit_map_pb2

_PARTS = ("layer", "head", "tensor", "min", "max", "width")
_BITS = ("min", "max", "width")


def parse_rule(text: str) -> bit_map_pb2.GroupRule:
    """Parses a rule: each part at most once, in any order; width=N is both
    min=N and max=N. Whether layers, heads and widths exist is the service's to
    say.

    Raises:
      ValueError: names the part that isn't understood and what is.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in _PARTS:
            raise ValueError(f"'{part}' in rule '{text}' isn't known; supported: {', '.join(_PARTS)}")
        if key in given:
            raise ValueError(f"'{key}' is given twice in rule '{text}'")
        given[key] = value
    if "width" in given and ("min" in given or "max" in given):
        raise ValueError(f"rule '{text}' gives width and min or max; give one or the other")
    if not any(key in given for key in _BITS):
        raise ValueError(f"rule '{text}' bounds nothing; give min, max or width")
    rule = bit_map_pb2.GroupRule()
    for key, value in given.items():
        if key == "tensor":
            if value not in ("key", "value"):
                raise ValueError(f"tensor '{value}' in rule '{text}' isn't known; supported: key, value")
            rule.tensor = bit_map_pb2.GroupRule.Tensor.Value(value.upper())
            continue
        number = _number(key, value, text)
        if key == "layer":
            rule.layer = number
        elif key == "head":
            rule.kv_head = number
        if key in ("min", "width"):
            rule.min_width = number
        if key in ("max", "width"):
            rule.max_width = number
    return rule


def _number(key: str, value: str, text: str) -> int:
    least = 1 if key in _BITS else 0
    if not value.isascii() or not value.isdigit() or not least <= int(value) < 2**32:
        raise ValueError(f"{key} '{value}' in rule '{text}' isn't a whole number, {least} or more")
    return int(value)
