"""Paired differences of per-token losses, with their standard error."""

from __future__ import annotations

import math

import numpy as np

# Tokens in a cluster: losses of neighbouring tokens aren't independent, so the
# standard error comes from the spread of blocks of one sequence, not of tokens.
BLOCK_TOKENS = 64


def paired_difference(losses: np.ndarray, others: np.ndarray) -> tuple[float, float | None]:
    """Mean of `losses` - `others` and its cluster-robust standard error.

    Args:
      losses, others: [sequences, scored tokens], nats, of the same tokens.

    Returns:
      (mean, standard error), in nats per token; the error is None when there
      is only one block.
    """
    if losses.shape != others.shape:
        raise ValueError(f"losses of different tokens: {losses.shape} and {others.shape}")
    difference = losses.astype(np.float64) - others.astype(np.float64)
    starts = np.arange(0, difference.shape[1], BLOCK_TOKENS)
    sums = np.add.reduceat(difference, starts, axis=1)
    sizes = np.add.reduceat(np.ones_like(difference), starts, axis=1)
    mean = float(difference.mean())
    blocks = sums.size
    if blocks < 2:
        return mean, None
    residuals = sums - mean * sizes
    variance = blocks / (blocks - 1) * float((residuals**2).sum()) / difference.size**2
    return mean, math.sqrt(variance)
