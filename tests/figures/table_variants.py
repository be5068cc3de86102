"""Other estimates of loss-projected distortion, from a calibration's tokens.

Tables of c2 are [quantizers, widths, groups]; groups are (layer, head, K before V)."""

from __future__ import annotations

import numpy as np

from token_errors import TokenErrors


def means(errors: TokenErrors) -> np.ndarray:
    """What calibration measures."""
    return errors.c2.mean(axis=(-2, -1), dtype=np.float64)


def without_first(errors: TokenErrors, tokens: int) -> np.ndarray:
    """The mean without so many of each sequence's first tokens that aren't sinks."""
    return errors.c2[..., tokens:].mean(axis=(-2, -1), dtype=np.float64)


def median_of_sequences(errors: TokenErrors, parts: int) -> np.ndarray:
    """The median of the means of so many equal parts of the sequences."""
    by_sequence = errors.c2.mean(axis=-1, dtype=np.float64)
    split = by_sequence.reshape(*by_sequence.shape[:-1], parts, -1)
    return np.median(split.mean(axis=-1), axis=-1)


def geometric_mean_of_sequences(errors: TokenErrors) -> np.ndarray:
    """The geometric mean of the sequences' means."""
    return np.exp(_log(errors.c2.mean(axis=-1, dtype=np.float64)).mean(axis=-1))


def winsorised(errors: TokenErrors, share: float) -> np.ndarray:
    """The mean with every entry's largest tokens, above this share of them, cut
    to the largest below."""
    tokens = errors.c2.reshape(*errors.c2.shape[:3], -1)
    kept = int(share * (tokens.shape[-1] - 1))
    result = np.empty(tokens.shape[:3])
    for index in np.ndindex(tokens.shape[:2]):  # one at a time: a copy of all would be large
        most = np.partition(tokens[index], kept, axis=-1)[:, kept, None]
        result[index] = np.minimum(tokens[index], most).mean(axis=-1, dtype=np.float64)
    return result


def clipped_by_token(errors: TokenErrors, share: float) -> np.ndarray:
    """The mean with gradients cut, token by token, to the norm below which this
    share of their group's lies."""
    return _scaled(errors, _clip(errors.gradient, np.quantile(errors.gradient, share, axis=(1, 2), keepdims=True)))


def clipped_by_sequence(errors: TokenErrors) -> np.ndarray:
    """The mean with every sequence's gradients, of all groups together, cut to
    the median sequence's norm."""
    squares = errors.gradient.sum(axis=(0, 2), keepdims=True)
    return _scaled(errors, _clip(squares, np.median(squares)))


def _clip(squares: np.ndarray, most: np.ndarray) -> np.ndarray:
    """What squared gradients are multiplied by so that none is above `most`."""
    squares, most = np.broadcast_arrays(squares, most)
    return np.divide(most, squares, out=np.ones_like(squares), where=squares > most)


def _scaled(errors: TokenErrors, factors: np.ndarray) -> np.ndarray:
    count = errors.c2.shape[-2] * errors.c2.shape[-1]
    factors = np.broadcast_to(factors, errors.gradient.shape)
    return np.einsum("qwgst,gst->qwg", errors.c2, factors, optimize=False) / count


def toward_c1(errors: TokenErrors, weight: float) -> np.ndarray:
    """ln c2 moved by `weight` toward ln c1, which has less noise, after c1 got
    the mean ratio of c2 to c1 of its quantizer, width and tensor."""
    c2 = means(errors)
    c1 = _log(errors.c1.mean(axis=(-2, -1), dtype=np.float64))
    ratio = _log(c2) - c1
    for tensor in (0, 1):
        c1[..., tensor::2] += ratio[..., tensor::2].mean(axis=-1, keepdims=True)
    return np.exp((1 - weight) * _log(c2) + weight * c1)


def shrunk(c2: np.ndarray, weight: float) -> np.ndarray:
    """Every group's ln c2 moved by `weight` toward the mean shape over widths of
    its quantizer's and tensor's groups, at its own level: 0 changes nothing, at
    1 all are parallel."""
    rows = _log(c2)
    parallel = rows.mean(axis=1, keepdims=True)
    parallel = np.broadcast_to(parallel, rows.shape).copy()
    for tensor in (0, 1):
        shape = (rows - parallel)[..., tensor::2].mean(axis=-1, keepdims=True)
        parallel[..., tensor::2] += shape
    return np.exp((1 - weight) * rows + weight * parallel)


def layer_means(c2: np.ndarray, heads: int) -> np.ndarray:
    """Every head of a layer gets the mean of the layer's heads."""
    layers = c2.reshape(*c2.shape[:2], -1, heads, 2)
    return np.broadcast_to(layers.mean(axis=3, keepdims=True), layers.shape).reshape(c2.shape)


def _log(values: np.ndarray) -> np.ndarray:
    """ln, of a group that loses nothing too."""
    return np.log(np.maximum(values, np.finfo(np.float64).tiny))
