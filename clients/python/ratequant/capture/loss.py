"""The summed next-token negative log-likelihood and its gradient, in place."""

from __future__ import annotations

import torch

# Logits worked on at a time; a power of two that stays in the last-level cache.
_CHUNK_ELEMENTS = 1 << 21


@torch.no_grad()
def summed_nll_to_gradient_(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """Returns the loss of one sequence and overwrites `logits` with its gradient.

    A vocabulary of 256,000 makes the logits the largest tensor of the whole pass; this
    keeps one of it instead of three. The arithmetic is fp32, the sum fp64. autograd
    notices (and refuses the backward pass) in case it still needs the values.

    Args:
      logits: [tokens, vocabulary], any float type.
      ids: int64 [tokens]; row t of the logits predicts ids[t + 1], the last row nothing.

    Returns:
      The sum over tokens - 1 predictions, in nats.
    """
    tokens, vocabulary = logits.shape
    rows = max(1, _CHUNK_ELEMENTS // vocabulary)
    loss = 0.0
    for begin in range(0, tokens - 1, rows):
        end = min(begin + rows, tokens - 1)
        chunk = logits[begin:end].float()  # The logits themselves when they are fp32.
        target = ids[begin + 1 : end + 1, None]
        normalizer = chunk.logsumexp(-1, keepdim=True)
        loss += float((normalizer - chunk.gather(-1, target)).double().sum())
        chunk.sub_(normalizer).exp_()
        chunk.scatter_add_(-1, target, chunk.new_full((end - begin, 1), -1.0))
        if chunk.dtype != logits.dtype:
            logits[begin:end] = chunk
    logits[tokens - 1 :] = 0
    return loss
