"""RateQuant's cache and those of transformers, made alike for one model."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

import torch
from transformers import DynamicCache, PreTrainedModel, QuantizedCache
from transformers.cache_utils import Cache

from ratequant import BitMap, RateQuantCache

_GROUP = 64  # of the quantized caches, and their default
_AXES = {"quanto": 0, "hqq": 1}  # what transformers' manual gives for each
_MODULES = {"quanto": "optimum.quanto", "hqq": "hqq"}
_PACKAGES = {"quanto": "optimum-quanto", "hqq": "hqq"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of cache: its name, how the model attends, and how to make one."""

    name: str
    attention: str
    make: Callable[[], Cache]


def missing_packages() -> list[str]:
    """What has to be installed to measure transformers' quantized caches."""
    return [_PACKAGES[backend] for backend, module in _MODULES.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the parent
        return False


def stock(model: PreTrainedModel) -> Kind:
    """transformers' own cache, whole values."""
    return Kind("DynamicCache", "sdpa", lambda: DynamicCache(config=model.config))


def quantized(model: PreTrainedModel, backend: str, bits: int) -> Kind:
    """transformers' QuantizedCache: `bits` + 0.5 effective bits, a scale and a zero
    point of 16 bits for every 64 values; the 128 newest tokens at most, which it
    keeps whole, aren't counted."""
    axis = _AXES[backend]
    return Kind(
        f"{backend} {bits}",
        "sdpa",
        lambda: QuantizedCache(backend, model.config, nbits=bits, axis_key=axis, axis_value=axis, q_group_size=_GROUP),
    )


def packed(model: PreTrainedModel, name: str, bit_map: BitMap | dict) -> Kind:
    """RateQuantCache with attention from the packed bytes."""
    return Kind(name, "ratequant", lambda: RateQuantCache(bit_map, model.config))


def uniform(model: PreTrainedModel, quantizer: str, bits: int) -> dict:
    """A bit map with the same width everywhere."""
    config = model.config
    groups = config.num_hidden_layers * config.num_key_value_heads * 2
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "geometry": {"layers": config.num_hidden_layers, "kv_heads": config.num_key_value_heads, "head_dim": head_dim},
        "quantizers": [quantizer],
        "quantizer_index": [0] * groups,
        "width": [bits] * groups,
    }


@torch.inference_mode()
def filled(model: PreTrainedModel, kind: Kind, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> Cache:
    """A cache of `tokens` tokens: K and V, [layers, 1, kv_heads, some, head_dim],
    again and again."""
    model.set_attn_implementation("sdpa")  # appends at once
    cache = kind.make()
    times = -(-tokens // keys.shape[3])
    for layer, (k, v) in enumerate(zip(keys, values)):
        cache.update(k.repeat(1, 1, times, 1)[:, :, :tokens], v.repeat(1, 1, times, 1)[:, :, :tokens], layer)
    return cache
