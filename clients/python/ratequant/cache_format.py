"""What a cache for a bit map stores: the allocator's message, or a plain
description of one, to a CacheFormat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from ratequant.runtime import CacheFormat, Geometry, Quantizer, load_library
from ratequant.v1 import bit_map_pb2

_DEFAULT_SINK_TOKENS = 4
_DEFAULT_WINDOW = 32
_DEFAULT_PAGE_TOKENS = 32
# Layers whose K and V are kept whole; the attention mask does the rest.
_LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention")


def format_of(
    bit_map: bit_map_pb2.BitMap | Mapping[str, Any],
    *,
    page_tokens: int | None = None,
    sink_tokens: int | None = None,
    window: int | None = None,
) -> CacheFormat:
    """What a cache for `bit_map` stores.

    Args:
      bit_map: the allocator's answer; or a mapping with `geometry` (a mapping
        of `layers`, `kv_heads`, `head_dim`), `quantizers` (texts such as
        "kivi", or runtime.Quantizer), `quantizer_index`, `width`, and
        optionally `sink_tokens`, `window`, `page_tokens` and `means`.
      page_tokens, sink_tokens, window: instead of the bit map's. With another
        page the cache takes other bytes than the bit map says.

    Raises:
      ValueError: a part is missing, or the bit map counts bytes of another
        format version than the runtime's.
    """
    if isinstance(bit_map, bit_map_pb2.BitMap):
        parts = _parts_of_message(bit_map)
    else:
        parts = _parts_of_mapping(bit_map)
    given = {"page_tokens": page_tokens, "sink_tokens": sink_tokens, "window": window}
    return CacheFormat(**(parts | {name: value for name, value in given.items() if value is not None}))


def _parts_of_message(bit_map: bit_map_pb2.BitMap) -> dict[str, Any]:
    version = load_library().format_version
    if bit_map.format_version not in (0, version):
        raise ValueError(
            f"bit map '{bit_map.name}' is for packed format {bit_map.format_version}; the runtime has {version}"
        )
    geometry, cache = bit_map.geometry, bit_map.cache
    return {
        "geometry": Geometry(geometry.layers, geometry.kv_heads, geometry.head_dim),
        "quantizers": [_quantizer_of_message(quantizer) for quantizer in bit_map.quantizers],
        "quantizer_index": list(bit_map.quantizer_index),
        "width": list(bit_map.width),
        "sink_tokens": cache.sink_tokens if cache.HasField("sink_tokens") else _DEFAULT_SINK_TOKENS,
        "window": cache.window if cache.HasField("window") else _DEFAULT_WINDOW,
        "page_tokens": cache.page_tokens or _DEFAULT_PAGE_TOKENS,
        "means": tuple(bit_map.means),
    }


def _quantizer_of_message(message) -> Quantizer:
    default = Quantizer(message.kind)
    return Quantizer(
        message.kind,
        message.group_size or default.group_size,
        message.seed,
        message.key_scale or default.key_scale,
        message.value_scale or default.value_scale,
    )


def _parts_of_mapping(bit_map: Mapping[str, Any]) -> dict[str, Any]:
    needed = ("geometry", "quantizers", "quantizer_index", "width")
    if missing := [name for name in needed if name not in bit_map]:
        raise ValueError(f"the bit map has no {', '.join(missing)}; it needs {', '.join(needed)}")
    geometry = bit_map["geometry"]
    if not isinstance(geometry, Geometry):
        geometry = Geometry(*(geometry[name] for name in ("layers", "kv_heads", "head_dim")))
    return {
        "geometry": geometry,
        "quantizers": [q if isinstance(q, Quantizer) else Quantizer.parse(q) for q in bit_map["quantizers"]],
        "quantizer_index": list(bit_map["quantizer_index"]),
        "width": list(bit_map["width"]),
        "sink_tokens": bit_map.get("sink_tokens", _DEFAULT_SINK_TOKENS),
        "window": bit_map.get("window", _DEFAULT_WINDOW),
        "page_tokens": bit_map.get("page_tokens", _DEFAULT_PAGE_TOKENS),
        "means": bit_map.get("means", ()),
    }


def check_model(geometry: Geometry, config: PretrainedConfig) -> None:
    """Checks that a cache of `geometry` is one for the (text) model of `config`.

    Raises:
      ValueError: says what differs, or what of the model isn't supported.
    """
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    model = (config.num_hidden_layers, kv_heads, head_dim)
    if model != (geometry.layers, geometry.kv_heads, geometry.head_dim):
        raise ValueError(
            f"the bit map is for {geometry.layers} layers, {geometry.kv_heads} KV heads and head_dim "
            f"{geometry.head_dim}; the model has {model[0]}, {model[1]} and {model[2]}"
        )
    types = set(getattr(config, "layer_types", None) or ()) - set(_LAYER_TYPES)
    if types:
        raise ValueError(
            f"the model has layers of type {', '.join(sorted(types))}; supported are {', '.join(_LAYER_TYPES)}"
        )
    if "reuse" in (getattr(config, "kv_sharing_modes", None) or ()):
        raise ValueError("the model shares K and V between layers, which isn't supported")
