"""Decoder layers that keep only their input in a forward pass, and run again in the backward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ratequant.capture.errors import UNSUPPORTED_MODEL, CaptureError
from ratequant.capture.placement import is_spread


def decoder_layers(model: PreTrainedModel, layers: int) -> list[GradientCheckpointingLayer]:
    """The `layers` decoder layers of `model`.

    Raises:
      CaptureError: UNSUPPORTED_MODEL; the model doesn't have as many of the kind that transformers can checkpoint.
    """
    found = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if len(found) != layers:
        raise CaptureError(
            UNSUPPORTED_MODEL,
            f"{len(found)} of {layers} layers of '{model.config.model_type}' can run again in the backward pass, "
            "which this much memory asks for; only models where all can are supported",
        )
    return found


@contextlib.contextmanager
def checkpointed(model: PreTrainedModel, layers: int) -> Iterator[None]:
    """While it is entered, autograd keeps nothing but the input of each of `model`'s decoder layers.

    A layer's other activations come back one layer at a time, as the backward pass reaches it, by the same
    operations on the same values: every gradient has the same bits. transformers' own checkpointing leaves the
    cache out, where K and V are taken. Not thread-safe.

    Raises:
      CaptureError: as `decoder_layers`.
    """
    modules = decoder_layers(model, layers)
    # What the module itself has: hooks that bring offloaded weights have replaced the class's.
    own = [module.__dict__.get("forward") for module in modules]
    # Ending a layer that runs again early, once it has what the backward pass needs, would skip the hooks that
    # put offloaded weights away.
    again = functools.partial(
        checkpoint, use_reentrant=False, preserve_rng_state=False, early_stop=not is_spread(model)
    )
    for module in modules:
        module.forward = functools.partial(again, module.forward)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
