"""Q and the gradient of attention's output, layer by layer."""

from __future__ import annotations

from types import TracebackType

import torch
from transformers import PreTrainedModel

from ratequant.capture.attention_parameters import AttentionParameters
from ratequant.capture.queries import AttentionTap


class OutputTap:
    """While it is entered, keeps every layer's Q from the forward pass and the gradient of its attention's output from
    the backward pass, until `take`. Refuses models as `AttentionTap` does. A context manager, not thread-safe.

    Attributes:
      keeps: whether Q is kept: not in a forward pass whose layers run again.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._tap = AttentionTap(model, self._on_attention, self._on_output_gradient)
        self.keeps = True
        self._layers: dict[int, tuple[AttentionParameters, torch.Tensor]] = {}
        self._gradients: dict[int, torch.Tensor] = {}

    def take(self, layer: int) -> tuple[AttentionParameters, torch.Tensor, torch.Tensor]:
        """What attention of `layer` computes, Q and the gradient of its output, both [query_heads, tokens, head_dim];
        they are forgotten. There once the gradients of the layer's K and V are: theirs is made from the output's."""
        return (*self._layers.pop(layer), self._gradients.pop(layer))

    def __enter__(self) -> OutputTap:
        self._tap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tap.__exit__(kind, error, trace)

    def _on_attention(
        self, layer: int, parameters: AttentionParameters, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        if self.keeps:
            self._layers[layer] = parameters, query

    def _on_output_gradient(self, layer: int, gradient: torch.Tensor) -> None:
        self._gradients[layer] = gradient
