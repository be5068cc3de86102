"""The place in a transformers model where Q, K and V meet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ratequant.capture.attention_parameters import AttentionParameters
from ratequant.capture.errors import UNSUPPORTED_MODEL, CaptureError

_NAME = "ratequant_tap"
# How far a model's attention may be from the formula: its own rounding, and that of the
# probabilities, which some implementations round to the model's dtype.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


# Called with layer, its parameters, Q [query_heads, tokens, head_dim], K and V [kv_heads,
# tokens, head_dim], in the model's dtype and on its device.
OnAttention = Callable[[int, AttentionParameters, torch.Tensor, torch.Tensor, torch.Tensor], None]
# Called in the backward pass with layer and the gradient of attention's output, [query_heads,
# tokens, head_dim]: before the output projection, a query head by itself.
OnOutputGradient = Callable[[int, torch.Tensor], None]


class AttentionTap:
    """While it is entered, shows what every attention layer of `model` is given.

    Every layer's first result is compared with the formula: a model whose attention is
    another one (biases on scores, learned sinks, other masks) is refused. Good for forward
    passes over one whole sequence. A context manager, not thread-safe; one at a time.
    """

    def __init__(
        self, model: PreTrainedModel, on_attention: OnAttention, on_output_gradient: OnOutputGradient | None = None
    ) -> None:
        self._model = model
        self._on_attention = on_attention
        self._on_output_gradient = on_output_gradient
        self._implementation: str = model.config._attn_implementation
        self._checked: set[int] = set()

    def __enter__(self) -> AttentionTap:
        AttentionInterface.register(_NAME, self._attend)
        AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS[self._implementation])
        self._model.set_attn_implementation(_NAME)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.set_attn_implementation(self._implementation)

    def _attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> Any:
        layer = module.layer_idx
        result = self._attention_of(module)(module, query, key, value, attention_mask, **options)
        parameters = AttentionParameters(
            softmax_scale=float(options.get("scaling") or query.shape[-1] ** -0.5),
            soft_cap=float(options.get("softcap") or 0.0),
            sliding_window=int(options.get("sliding_window") or 0),
        )
        tensors = tuple(tensor.detach()[0] for tensor in (query, key, value))
        if layer not in self._checked:
            _check(layer, exact_attention(parameters, *tensors), result[0].detach()[0].transpose(0, 1))
            self._checked.add(layer)
        self._on_attention(layer, parameters, *tensors)
        if self._on_output_gradient is not None:
            result[0].register_hook(
                lambda gradient: self._on_output_gradient(layer, gradient.detach()[0].transpose(0, 1))
            )
        return result

    def _attention_of(self, module: torch.nn.Module) -> Callable[..., Any]:
        if self._implementation == "eager":  # Every architecture has its own.
            return sys.modules[type(module).__module__].eager_attention_forward
        return ALL_ATTENTION_FUNCTIONS[self._implementation]


def exact_attention(
    parameters: AttentionParameters, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Causal attention by its formula in fp32.

    Args:
      query: [query_heads, tokens, head_dim].
      key, value: [kv_heads, tokens, head_dim].

    Returns:
      [query_heads, tokens, head_dim].
    """
    share = query.shape[0] // key.shape[0]
    key, value = (tensor.float().repeat_interleave(share, dim=0) for tensor in (key, value))
    scores = parameters.softmax_scale * query.float() @ key.transpose(1, 2)
    if parameters.soft_cap:
        scores = parameters.soft_cap * torch.tanh(scores / parameters.soft_cap)
    positions = torch.arange(query.shape[1], device=query.device)
    age = positions[:, None] - positions[None, :]
    hidden = age < 0
    if parameters.sliding_window:
        hidden |= age >= parameters.sliding_window
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value


def _check(layer: int, expected: torch.Tensor, found: torch.Tensor) -> None:
    error = float((found.float() - expected).norm() / expected.norm())
    if not error <= _TOLERANCE[found.dtype]:
        raise CaptureError(
            UNSUPPORTED_MODEL,
            f"attention of layer {layer} is {error:.2g} off softmax(scale * QK)V with soft cap and sliding window; "
            "only models that compute that can be recorded",
        )
