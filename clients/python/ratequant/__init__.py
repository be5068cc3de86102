"""RateQuant: mixed-precision KV-cache quantization.

`Client` and, for asyncio, `AsyncClient` talk to the services, `BitMap` is what
they answer, and `RateQuantCache` is a transformers cache that stores K and V in
a bit map's widths. They are imported on first use: `import ratequant` needs neither
torch nor gRPC.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

# The generated protocol modules, ratequant.v1, may lie in another folder.
__path__ = pkgutil.extend_path(__path__, __name__)

__version__ = "0.1.0"

__all__ = ["AsyncClient", "BitMap", "Client", "RateQuantCache", "__version__"]

if TYPE_CHECKING:
    from ratequant.async_client import AsyncClient
    from ratequant.cache import RateQuantCache
    from ratequant.client import Client
    from ratequant.v1.bit_map_pb2 import BitMap

_HOME = {
    "AsyncClient": "ratequant.async_client",
    "BitMap": "ratequant.v1.bit_map_pb2",
    "Client": "ratequant.client",
    "RateQuantCache": "ratequant.cache",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ratequant' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
