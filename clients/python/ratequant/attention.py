"""Decode attention from packed bytes, as an attention implementation of
transformers.

    model.set_attn_implementation("ratequant")
    model.generate(**inputs, past_key_values=RateQuantCache(bit_map, model.config))

Importing this module registers it; `ratequant.RateQuantCache` does. Steps of up
to 8 tokens a row are computed by the runtime's fused kernel, straight from the
packed cache. Longer ones, a prompt's, are computed by torch's attention from
their own K and V as the model made them, and from the older tokens read back.

Padding is neither stored nor seen: a row's sinks and window are its first and
newest real tokens. In a compiled model both the cache and this attention run
outside of the graph (a graph break in each layer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ratequant.cache_rows import MAX_DECODE_QUERIES

if TYPE_CHECKING:
    from ratequant.cache import RateQuantLayer

ATTENTION_NAME = "ratequant"
# Where update leaves its layer for the attention function: an attribute of the keys.
_LAYER = "_ratequant_layer"


def mark(key_states: torch.Tensor, layer: RateQuantLayer) -> torch.Tensor:
    """Keys of new tokens that `attention` is to append to `layer`."""
    setattr(key_states, _LAYER, layer)
    return key_states


@torch.compiler.disable
def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: queries [batch, query_heads, tokens, head_dim] and
    what RateQuantCache.update returned, to [batch, tokens, query_heads,
    head_dim] and no weights.

    Raises:
      TypeError: the keys aren't those of a RateQuantCache made with the model's
        config.
      NotImplementedError: learned sinks or a position bias.
      ValueError: a mask that hides tokens which are stored already.
    """
    layer = getattr(key, _LAYER, None)
    if layer is None:
        raise TypeError(
            f"the attention implementation '{ATTENTION_NAME}' reads a RateQuantCache made with the model's config: "
            "pass one as past_key_values, or model.set_attn_implementation('sdpa')"
        )
    for name in ("s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"the attention implementation '{ATTENTION_NAME}' doesn't support {name}")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if query.shape[2] <= MAX_DECODE_QUERIES and (attention_mask is None or attention_mask.dim() == 2):
        out = layer.attend(
            key,
            value,
            query,
            attention_mask,
            softmax_scale=scaling,
            soft_cap=softcap or 0.0,
            sliding_window=sliding_window or 0,
        )
        return out.to(query.device), None
    keys, values = layer.extend(key, value, _real_tokens(attention_mask, key))
    if softcap:
        return _capped_attention(query, keys, values, attention_mask, scaling, softcap), None
    return sdpa_attention_forward(module, query, keys, values, attention_mask, scaling=scaling, **kwargs)


@torch.compiler.disable
def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """The mask `attention` takes: for a step of real tokens the padding, bool
    [batch, positions], or None without any; else torch's [batch, 1, queries,
    positions]."""
    if q_length <= MAX_DECODE_QUERIES:
        if attention_mask is None or attention_mask.all():
            return None
        if attention_mask[:, q_offset : q_offset + q_length].all():
            return attention_mask[:, :kv_length]
    return sdpa_mask(
        batch_size, q_length, kv_length, q_offset=q_offset, attention_mask=attention_mask, **kwargs
    )


def _real_tokens(mask: torch.Tensor | None, key: torch.Tensor) -> torch.Tensor | None:
    """Which of the new tokens aren't padding, bool [batch, tokens]: those that see
    themselves."""
    if mask is None:
        return None
    batch, _, tokens, _ = key.shape
    own = mask[:, 0, :, -tokens:].diagonal(dim1=1, dim2=2)
    if own.dtype != torch.bool:
        own = own > torch.finfo(own.dtype).min / 2
    return own.expand(batch, tokens).cpu()


def _capped_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    """Attention with capped logits, which torch's fused one doesn't have."""
    groups = query.shape[1] // keys.shape[1]
    scores = torch.matmul(query, repeat_kv(keys, groups).transpose(2, 3)) * scaling
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        tokens, positions = scores.shape[2:]
        mask = torch.ones(tokens, positions, dtype=torch.bool, device=query.device).tril(positions - tokens)
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, repeat_kv(values, groups)).transpose(1, 2).contiguous()


AttentionInterface.register(ATTENTION_NAME, attention)
AttentionMaskInterface.register(ATTENTION_NAME, attention_mask)
