"""Sizes of memory as people write them."""

from __future__ import annotations

import argparse
import re

_UNITS = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}


def memory_size(text: str) -> int:
    """Bytes of a size such as "512MiB", "1.5GiB" or "4096"; for argparse.

    Raises:
      argparse.ArgumentTypeError: it is none, or less than a byte.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGT]iB)?", text)
    size = int(float(match[1]) * 2 ** _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; use a number and KiB, MiB, GiB or TiB, such as 8GiB")
    return size
