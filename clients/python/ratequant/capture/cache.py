"""The place in a transformers model where K and V go into the cache."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ratequant.capture.errors import UNSUPPORTED_MODEL, CaptureError


class OnUpdate(Protocol):
    """What attention layer `layer` does instead of storing K and V.

    `keys` and `values` are [1, kv_heads, tokens, head_dim], K after rotary embedding;
    attention goes on with what is returned.
    """

    def __call__(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


class TapCache(Cache):
    """A cache that stores nothing: attention sees just the K and V that `on_update` returns.

    It always looks empty, so masks are those of a first call over the whole sequence,
    sliding windows included, and every layer sees all tokens. Good for one forward call.
    """

    def __init__(self, on_update: OnUpdate) -> None:
        # The layer class is required; no layer is ever made, which is what "empty" is.
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self._on_update = on_update

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._on_update(layer_idx, key_states, value_states)

    # State that isn't K and V: linear attention and state-space layers, sparse indexers.

    def update_conv_state(self, conv_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(layer_idx, "a convolution state")

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> NoReturn:
        _refuse(layer_idx, "a recurrent state")

    def get_conv_state(self, layer_idx: int, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(layer_idx, "a convolution state")

    def get_recurrent_state(self, layer_idx: int, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(layer_idx, "a recurrent state")

    def has_previous_state(self, layer_idx: int | None = None, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(layer_idx, "a recurrent state")

    def update_indexer(self, indexer_key_states: torch.Tensor, layer_idx: int) -> NoReturn:
        _refuse(layer_idx, "an indexer's keys")


def _refuse(layer: int | None, state: str) -> NoReturn:
    where = "a layer" if layer is None else f"layer {layer}"
    raise CaptureError(
        UNSUPPORTED_MODEL,
        f"{where} keeps {state} in its cache; only models whose every layer keeps K and V are supported",
    )
