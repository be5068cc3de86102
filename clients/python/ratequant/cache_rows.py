"""The runtime's cache as a batch of rows: one sequence per row, torch tensors in
place."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence

import torch

from ratequant import runtime
from ratequant.runtime import Batch, Execution, KvCache, KvInvalidArgumentError, TensorView, Threads

DTYPES = {torch.float32: runtime.FLOAT32, torch.float16: runtime.FLOAT16, torch.bfloat16: runtime.BFLOAT16}
# Queries of a sequence in one call of decode attention (ratequant/kv/attention.h).
MAX_DECODE_QUERIES = 8


class Rows:
    """The tokens of a batch, in a KvCache that copies of the batch may share.

    Positions are those of the batch, padding included. Padding that a step says
    to leave out is not stored: `stored` then has, for the first positions of
    each row, whether they are; all behind them are.

    Not thread-safe.
    """

    def __init__(self, cache: KvCache):
        self.cache = cache
        self.ids: list[int] = []
        self.stored: torch.Tensor | None = None  # bool [batch, positions]
        self._torn = False
        self._batch: Batch | None = None
        self._batch_size = 0
        self._step: tuple[int, int] | None = None  # what _batch is prepared for
        # Other batches may live on in the cache. At exit it goes as a whole.
        weakref.finalize(self, _remove_all, cache, self.ids).atexit = False

    def set_batch_size(self, size: int) -> None:
        """Sets it on first use; later ones must agree."""
        if not self.ids:
            self.ids[:] = [self.cache.add_sequence() for _ in range(size)]
        if len(self.ids) != size:
            raise ValueError(f"a batch of {size}; the cache holds one of {len(self.ids)} (reset() empties it)")

    # Appending and reading whole layers.

    def append(
        self, layer: int, first: int, keys: torch.Tensor, values: torch.Tensor, real: torch.Tensor | None = None
    ) -> None:
        """Appends [batch, kv_heads, tokens, head_dim] from position `first` on;
        without those that `real`, bool [batch, tokens], says aren't."""
        self._check_whole()
        self._step = None
        keys, values = readable(keys), readable(values)
        if real is not None and real.all():
            real = None
        if real is not None:
            self._leave_out(first, real)
        for row, sequence in enumerate(self.ids):
            k, v = keys[row], values[row]
            if real is not None:
                k, v = k[:, real[row]], v[:, real[row]]
            try:
                self.cache.append(sequence, layer, k.shape[1], view(k), view(v), execution())
            except runtime.KvRuntimeError as error:
                self._torn = row > 0
                if len(self.ids) == 1:
                    raise
                where = f"in row {row} of a batch of {len(self.ids)}"
                raise type(error)(error.code, f"{error} ({where})") from error

    def gather(self, layer: int, positions: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Writes the first `positions` positions, dequantized, to the beginning of
        [batch, kv_heads, at least so many, head_dim]; zeros where nothing is
        stored."""
        if positions == 0:
            return  # torch gives no address for nothing
        for row, sequence in enumerate(self.ids):
            k, v = keys[row, :, :positions], values[row, :, :positions]
            where = self._where(row, positions)
            if where is None:
                self.cache.gather(sequence, layer, 0, positions, view(k), view(v), execution())
                continue
            shape = (k.shape[0], int(where.sum()), k.shape[2])
            some_k, some_v = k.new_empty(shape), v.new_empty(shape)
            if shape[1]:
                self.cache.gather(sequence, layer, 0, shape[1], view(some_k), view(some_v), execution())
            for to, some in ((k, some_k), (v, some_v)):
                to.zero_()
                to[:, where] = some

    # Steps: decode attention from the packed bytes.

    def attend(
        self,
        layer: int,
        first: int,
        keys: torch.Tensor,
        values: torch.Tensor,
        queries: torch.Tensor,
        mask: torch.Tensor | None,
        *,
        softmax_scale: float,
        soft_cap: float,
        sliding_window: int,
    ) -> torch.Tensor:
        """Appends a step's tokens, up to MAX_DECODE_QUERIES a row, from position
        `first` on, and returns the attention of their queries [batch,
        query_heads, tokens, head_dim] as [batch, tokens, query_heads, head_dim].
        `mask`, bool [batch, positions], is False where nothing is stored; None
        where there is no such position."""
        self._check_whole()
        batch_size, query_heads, tokens, head_dim = queries.shape
        on = execution()
        if self._step != (first, tokens):
            self._prepare(first, tokens, mask, on)
        k, v, q = StepView(keys), StepView(values), StepView(queries)
        out = torch.empty((batch_size, tokens, query_heads, head_dim), dtype=queries.dtype)
        self._batch.append(layer, k.view, v.view, on)
        self._batch.attend(
            layer,
            q.view,
            TensorView(out.data_ptr(), DTYPES[out.dtype], head_dim, query_heads * head_dim),
            softmax_scale=softmax_scale,
            soft_cap=soft_cap,
            sliding_window=sliding_window,
            on=on,
        )
        return out

    def _prepare(self, first: int, tokens: int, mask: torch.Tensor | None, on: Execution) -> None:
        left_out = self._left_out(first)
        seen = [first + tokens] * len(self.ids) if mask is None else mask.sum(1).tolist()
        for row, count in enumerate(seen):
            if count != first + tokens - left_out[row]:
                raise ValueError(
                    f"row {row} holds {first - left_out[row]} tokens and gets {tokens}, and the attention mask "
                    f"lets {count} be seen; tokens can't be masked once they are stored, nor padding be seen"
                )
        if self._batch_size < len(self.ids):
            self._batch = self.cache.batch(len(self.ids), MAX_DECODE_QUERIES)
            self._batch_size = len(self.ids)
        self._batch.prepare([(sequence, tokens) for sequence in self.ids], on)
        self._step = (first, tokens)

    # Rows as a whole.

    def fork(self) -> Rows:
        """Another batch with the same tokens, which shares their pages."""
        self._check_whole()
        copy = Rows(self.cache)
        copy.ids += [self._fork(sequence) for sequence in self.ids]
        copy.stored = self.stored
        return copy

    def select(self, rows: Sequence[int]) -> None:
        """Makes it the batch of these rows, in this order; repeated ones share
        their pages."""
        self._check_whole()
        self._step = None
        ids: list[int] = []
        forks: list[int] = []
        try:
            for row in rows:
                sequence = self.ids[row]
                if sequence in ids:
                    sequence = self._fork(sequence)
                    forks.append(sequence)
                ids.append(sequence)
        except BaseException:
            _remove_all(self.cache, forks)
            raise
        _remove_all(self.cache, [sequence for sequence in self.ids if sequence not in ids])
        self.ids[:] = ids
        if self.stored is not None:
            self.stored = self.stored[list(rows)]

    def crop(self, positions: int, length: int) -> None:
        """Drops what is behind the first `positions` of `length` positions."""
        self._check_whole()
        self._step = None
        before, after = self._left_out(length), self._left_out(positions)
        for row, sequence in enumerate(self.ids):
            keep = positions - after[row]
            try:
                self.cache.truncate_sequence(sequence, keep)
            except KvInvalidArgumentError:
                self.ids[row] = self._rebuilt(sequence, keep, length - before[row])
                self.cache.remove_sequence(sequence)
            self._torn = True  # until all rows are as long again
        self._torn = False
        if self.stored is not None:
            self.stored = self.stored[:, :positions]

    def clear(self) -> None:
        """Forgets all tokens and the batch size."""
        _remove_all(self.cache, self.ids)
        self.ids.clear()
        self.stored = self._step = None
        self._torn = False

    def _fork(self, sequence: int) -> int:
        return self.cache.fork_sequence(sequence, self.cache.length(sequence, 0), execution())

    def _rebuilt(self, sequence: int, keep: int, length: int) -> int:
        """A new sequence of the first `keep` tokens: whole packed pages of the old
        one, and what follows read back and appended again."""
        kept_format = self.cache.format
        page, geometry = kept_format.page_tokens, kept_format.geometry
        packed = min(keep, max(0, length - kept_format.window)) // page * page
        if packed < max(1, kept_format.sink_tokens):
            packed = 0
        made = self.cache.fork_sequence(sequence, packed, execution()) if packed else self.cache.add_sequence()
        if keep == packed:
            return made
        keys = torch.empty((geometry.kv_heads, keep - packed, geometry.head_dim), dtype=torch.float16)
        values = torch.empty_like(keys)
        try:
            for layer in range(geometry.layers):
                self.cache.gather(sequence, layer, packed, keep - packed, view(keys), view(values), execution())
                self.cache.append(made, layer, keep - packed, view(keys), view(values), execution())
        except BaseException:
            self.cache.remove_sequence(made)
            raise
        return made

    # Padding.

    def _leave_out(self, first: int, real: torch.Tensor) -> None:
        known = 0 if self.stored is None else self.stored.shape[1]
        if known >= first + real.shape[1]:
            return  # another layer has said so
        stored = real.new_ones((real.shape[0], first + real.shape[1]))
        if self.stored is not None:
            stored[:, :known] = self.stored
        stored[:, first:] = real
        self.stored = stored

    def _left_out(self, positions: int) -> list[int]:
        """For each row, how many of its first `positions` aren't stored."""
        if self.stored is None:
            return [0] * len(self.ids)
        return (~self.stored[:, :positions]).sum(1).tolist()

    def _where(self, row: int, positions: int) -> torch.Tensor | None:
        """Which of a row's first `positions` are stored, [positions]; None: all."""
        if self.stored is None or self.stored[row, :positions].all():
            return None
        known = self.stored[row, :positions]
        return torch.cat([known, known.new_ones(positions - len(known))])

    def _check_whole(self) -> None:
        if self._torn:
            raise RuntimeError("an earlier update failed for a part of the batch; reset() the cache")


def _remove_all(cache: KvCache, ids: Sequence[int]) -> None:
    for sequence in ids:
        cache.remove_sequence(sequence)


@functools.lru_cache(maxsize=8)
def _execution(threads: int) -> Execution:
    return Execution(threads=Threads(threads))


def execution() -> Execution:
    """As many threads as torch uses."""
    return _execution(torch.get_num_threads())


def view(states: torch.Tensor) -> TensorView:
    """[heads, tokens, head_dim] as the runtime sees it."""
    return TensorView(states.data_ptr(), DTYPES[states.dtype], states.stride(0), states.stride(1))


class StepView:
    """[batch, heads, tokens, head_dim] as a step's [heads, batch * tokens,
    head_dim]: in place where the strides allow it, else a copy that lives as
    long as this."""

    __slots__ = ("tensor", "view")

    def __init__(self, states: torch.Tensor):
        batch, heads, tokens, head_dim = states.shape
        states = states.detach().cpu()
        by_row, by_head, by_token, by_channel = states.stride()
        if tokens == 1:
            by_token = by_row
        elif batch > 1 and by_row != tokens * by_token:
            by_channel = 0
        in_place = by_channel == 1 and by_token >= head_dim and by_head >= head_dim
        if not in_place:
            states = states.transpose(1, 2).contiguous()
            by_token, by_head = heads * head_dim, head_dim
        self.tensor = states
        self.view = TensorView(states.data_ptr(), DTYPES[states.dtype], by_head, by_token)


def readable(states: torch.Tensor) -> torch.Tensor:
    """The tensor itself where the runtime can read it in place, else a copy."""
    states = states.detach().cpu()
    head_dim = states.shape[3]
    # An axis of size 1 may have any stride.
    in_place = states.stride(3) == 1 and all(
        states.shape[axis] == 1 or states.stride(axis) >= head_dim for axis in (1, 2)
    )
    return states if in_place else states.contiguous()
