"""Losses of a causal language model whose cache is read while it is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Cache, PreTrainedModel

# Tokens that run through the model at once. Every chunk reads all tokens before
# it from the cache, as a server that decodes or prefills in chunks does.
CHUNK_TOKENS = 32


def load_model(folder: str) -> PreTrainedModel:
    """Loads a causal language model for evaluation, in fp32.

    Raises:
      ValueError: the folder doesn't hold one; says why.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # transformers and safetensors raise many kinds
        raise ValueError(f"can't load the model in '{folder}': {error}") from error
    return model.eval()


def streaming_losses(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    make_cache: Callable[[int], Cache],
    batch_size: int,
    advance: Callable[[int], None] = lambda tokens: None,
) -> np.ndarray:
    """Negative log-likelihood of every token but a sequence's first.

    Args:
      tokens: [sequences, seq_len], int64.
      make_cache: gives an empty cache for so many sequences.
      batch_size: sequences that run at once.
      advance: told how many tokens were just done.

    Returns:
      [sequences, seq_len - 1], float64, nats.
    """
    batches = tokens.split(batch_size)
    return np.concatenate([_batch_losses(model, batch, make_cache(len(batch)), advance) for batch in batches])


@torch.inference_mode()
def _batch_losses(
    model: PreTrainedModel, tokens: torch.Tensor, cache: Cache, advance: Callable[[int], None]
) -> np.ndarray:
    losses = []
    # The last token is only a target.
    for inputs, targets in zip(
        tokens[:, :-1].split(CHUNK_TOKENS, dim=1), tokens[:, 1:].split(CHUNK_TOKENS, dim=1), strict=True
    ):
        logits = model(input_ids=inputs, past_key_values=cache, use_cache=True).logits
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        losses.append(nll.view_as(targets))
        advance(inputs.numel())
    return torch.cat(losses, dim=1).double().numpy()
