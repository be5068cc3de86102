"""What shape a model's KV cache has, and whether it can be captured at all."""

from __future__ import annotations

import dataclasses
import inspect

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ratequant.capture.cache import TapCache
from ratequant.capture.errors import UNSUPPORTED_MODEL, CaptureError
from ratequant.capture.placement import input_device

_PROBE_TOKENS = 8
_SUPPORTED_LAYER_TYPES = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The shape of a KV cache: the same for every layer."""

    layers: int
    kv_heads: int
    query_heads: int
    head_dim: int


def _unsupported(message: str) -> CaptureError:
    return CaptureError(UNSUPPORTED_MODEL, message)


def check_config(config: PreTrainedConfig) -> None:
    """Refuses what its configuration already shows to be unsupported.

    Raises:
      CaptureError: UNSUPPORTED_MODEL; an encoder-decoder, layers that aren't softmax attention,
        layers that use another layer's K and V, or weights that are quantized.
    """
    kind = config.model_type
    if config.is_encoder_decoder:
        raise _unsupported(f"'{kind}' is an encoder-decoder; only decoder-only language models are supported")
    if getattr(config, "quantization_config", None) is not None:
        raise _unsupported(
            f"the model's weights are quantized (quantization_config in config.json); "
            f"give the folder with its fp32, fp16 or bf16 weights"
        )
    text = config.get_text_config(decoder=True)
    others = sorted(set(getattr(text, "layer_types", None) or ()) - _SUPPORTED_LAYER_TYPES)
    if others:
        raise _unsupported(
            f"'{kind}' has layers of type {', '.join(map(repr, others))}; "
            f"supported are {', '.join(map(repr, sorted(_SUPPORTED_LAYER_TYPES)))}"
        )
    if shared := getattr(text, "num_kv_shared_layers", None):
        raise _unsupported(
            f"{shared} layers of '{kind}' use another layer's K and V (num_kv_shared_layers); "
            "only models whose every layer has its own are supported"
        )


def probe_geometry(model: PreTrainedModel) -> Geometry:
    """Runs a few tokens through `model` and returns the shape of its KV cache.

    Raises:
      CaptureError: UNSUPPORTED_MODEL; a layer keeps no K and V, keeps something else, or
        has another shape than the others. The message says what was found.
    """
    check_config(model.config)
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise _unsupported(
            f"'{model.config.model_type}' doesn't take a key-value cache (past_key_values); "
            "only attention over the transformers cache interface is supported"
        )
    shapes: dict[int, tuple[int, int]] = {}

    def on_update(
        layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shapes[layer] = _layer_shape(layer, keys, values, seen=layer in shapes)
        return keys, values

    ids = torch.arange(_PROBE_TOKENS, device=input_device(model))[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        model(input_ids=ids, past_key_values=TapCache(on_update), use_cache=True)
    return _geometry(model.config, shapes)


def _layer_shape(layer: int, keys: torch.Tensor, values: torch.Tensor, seen: bool) -> tuple[int, int]:
    """(kv_heads, head_dim) of one layer."""
    if seen:
        raise _unsupported(f"layer {layer} stores K and V twice in one pass; only once is supported")
    if keys.dim() != 4 or keys.shape[:3] != values.shape[:3] or keys.shape[2] != _PROBE_TOKENS:
        raise _unsupported(
            f"layer {layer} stores K {list(keys.shape)} and V {list(values.shape)}; "
            "[batch, kv_heads, tokens, head_dim] is supported"
        )
    if keys.shape[3] != values.shape[3]:
        raise _unsupported(
            f"layer {layer} has head_dim {keys.shape[3]} for K and {values.shape[3]} for V; "
            "only equal ones are supported"
        )
    return keys.shape[1], keys.shape[3]


def _geometry(config: PreTrainedConfig, shapes: dict[int, tuple[int, int]]) -> Geometry:
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers
    missing = sorted(set(range(layers)) - set(shapes))
    if missing or len(shapes) != layers:
        raise _unsupported(
            f"{len(shapes)} of {layers} layers of '{config.model_type}' keep K and V of their own"
            + (f" (not {', '.join(map(str, missing[:8]))}{', …' if len(missing) > 8 else ''})" if missing else "")
            + "; only models where all do are supported"
        )
    if len(set(shapes.values())) > 1:
        raise _unsupported(
            f"the layers of '{config.model_type}' differ: {_describe(shapes)}; only models with the same "
            "kv_heads and head_dim in every layer are supported"
        )
    kv_heads, head_dim = shapes[0]
    query_heads = getattr(text, "num_attention_heads", None)
    if not isinstance(query_heads, int) or query_heads % kv_heads:
        raise _unsupported(f"{query_heads} query heads over {kv_heads} KV heads; a multiple is supported")
    return Geometry(layers, kv_heads, query_heads, head_dim)


def _describe(shapes: dict[int, tuple[int, int]]) -> str:
    """'layer 0 has kv_heads 2, head_dim 64; layer 5 has …', the first layer of every shape."""
    first: dict[tuple[int, int], int] = {}
    for layer in sorted(shapes):
        first.setdefault(shapes[layer], layer)
    return "; ".join(f"layer {n} has kv_heads {h}, head_dim {d}" for (h, d), n in first.items())
