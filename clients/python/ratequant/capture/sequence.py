"""One sequence forward and backward, K, V and their gradients handed out on the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from ratequant.capture.cache import TapCache
from ratequant.capture.checkpointing import checkpointed
from ratequant.capture.errors import ENGINE_ERROR, UNSUPPORTED_MODEL, CaptureError
from ratequant.capture.geometry import Geometry
from ratequant.capture.loss import summed_nll_to_gradient_
from ratequant.capture.output_tap import OutputTap

# Called with layer, K, V, gradient of K, gradient of V, each [kv_heads, tokens, head_dim]
# in the model's dtype and on its device, not necessarily contiguous; with an OutputTap also
# with Q and the gradient of attention's output, [query_heads, tokens, head_dim], and
# `attention`, what it computes. The tensors may be released when it returns.
OnLayer = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class SequenceLoss:
    """Loss of one sequence: `sum` in nats over `tokens` predictions."""

    sum: float
    tokens: int


class _Tap:
    """K and V of every layer until their gradients have come.

    With `again` every layer stores twice: in the forward pass, where K and V are let go, and when it runs
    again before its backward pass.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], again: bool, on_layer: OnLayer, output_tap: OutputTap | None
    ) -> None:
        self._shape = shape
        self._output_tap = output_tap
        self._again = again
        self._on_layer = on_layer
        self._tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._gradients: dict[int, dict[str, torch.Tensor]] = {}
        self.delivered: set[int] = set()
        self.backward = False

    def on_update(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        runs_again = self._again and self.backward and layer in self._gradients
        if keys.shape != self._shape or values.shape != self._shape or (
            layer in self._gradients and not runs_again
        ):
            raise CaptureError(
                UNSUPPORTED_MODEL,
                f"layer {layer} stores K {list(keys.shape)} and V {list(values.shape)}, not once "
                f"{list(self._shape)} as in its first pass",
            )
        if runs_again or not self._again:
            self._tensors[layer] = keys.detach()[0], values.detach()[0]
        self._gradients.setdefault(layer, {})
        return self._watched(layer, "k", keys), self._watched(layer, "v", values)

    def _watched(self, layer: int, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` as attention is to use it: its gradient is that of this use alone."""
        if tensor.requires_grad:
            tensor = tensor.view_as(tensor)
        else:
            # Nothing before it needs a gradient (weights are frozen): the graph begins here.
            tensor = tensor.detach().requires_grad_()
        tensor.register_hook(lambda gradient: self._on_gradient(layer, name, gradient))
        return tensor

    def _on_gradient(self, layer: int, name: str, gradient: torch.Tensor) -> None:
        gradients = self._gradients[layer]
        gradients[name] = gradient.detach()[0]
        if len(gradients) == 2:
            keys, values = self._tensors.pop(layer)
            self.delivered.add(layer)
            tensors = keys, values, gradients.pop("k"), gradients.pop("v")
            if self._output_tap is None:
                self._on_layer(layer, *tensors)
            else:
                attention, *others = self._output_tap.take(layer)
                self._on_layer(layer, *tensors, *others, attention=attention)


def capture_sequence(
    model: PreTrainedModel,
    geometry: Geometry,
    ids: torch.Tensor,
    on_layer: OnLayer,
    checkpoint: bool = False,
    output_tap: OutputTap | None = None,
) -> SequenceLoss:
    """Captures one sequence.

    Runs `model` over `ids`, then backward from the summed next-token negative
    log-likelihood; `on_layer` is called during the backward pass, once a layer, the last
    layer first. K is taken after rotary embedding, as attention gets it (method.md,
    "Groups and captures"). A layer's tensors live until its call returns, and nothing of
    the sequence lives on after this function.

    Args:
      model: from `load_model`: evaluation mode, weights that need no gradient.
      geometry: from `probe_geometry`.
      ids: int64 [tokens], on the model's device.
      on_layer: may block; what it raises ends the capture and is raised here.
      checkpoint: keep only each layer's input and run the layer again on the way back: activations, K, V
        and gradients of one layer at a time are in memory then, for a forward pass more.
      output_tap: entered, of the same model; the layers then come with what it has.

    Raises:
      CaptureError: UNSUPPORTED_MODEL; K and V don't have the probed shape. ENGINE_ERROR; the
        loss isn't finite, or a layer's gradient never came.
    """
    tokens = ids.shape[0]
    tap = _Tap((1, geometry.kv_heads, tokens, geometry.head_dim), checkpoint, on_layer, output_tap)
    layers = checkpointed(model, geometry.layers) if checkpoint else contextlib.nullcontext()
    if output_tap is not None:
        output_tap.keeps = not checkpoint
    with torch.enable_grad(), layers:
        cache = TapCache(tap.on_update)
        logits = model(input_ids=ids[None], past_key_values=cache, use_cache=True).logits
        loss = summed_nll_to_gradient_(logits.detach()[0], ids)
        if not math.isfinite(loss):
            raise CaptureError(ENGINE_ERROR, f"the model's loss is {loss}: its weights or activations are not finite")
        tap.backward = True
        if output_tap is not None:
            output_tap.keeps = True
        logits.backward(logits.detach())
    missing = sorted(set(range(geometry.layers)) - tap.delivered)
    if missing:
        raise CaptureError(ENGINE_ERROR, f"no gradient came for K and V of layers {missing}")
    return SequenceLoss(loss, tokens - 1)
