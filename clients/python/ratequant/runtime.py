"""The C++ KV cache runtime, through its C ABI (ratequant/kv/c_api.h).

Knows nothing of torch: tensors are addresses and strides. `RateQuantCache`
(ratequant.cache) is what models use.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import weakref
from collections.abc import Sequence

from ratequant.kv_format import (
    CPU,
    CUDA,
    FP16_WIDTH,
    KEY,
    VALUE,
    CacheFormat,
    CacheLimits,
    Geometry,
    Quantizer,
    SectionLayout,
    section_layout,
    to_c_config,
)
from ratequant.kv_library import (
    CAttentionParams,
    CBatchEntry,
    CExecution,
    CTensor,
    KvInvalidArgumentError,
    KvRuntimeError,
    Library,
    RuntimeLibraryError,
    load_library,
)

__all__ = [
    "BFLOAT16",
    "Batch",
    "CPU",
    "CUDA",
    "CacheFormat",
    "CacheLimits",
    "Execution",
    "FLOAT16",
    "FLOAT32",
    "FP16_WIDTH",
    "Geometry",
    "KEY",
    "KvCache",
    "KvInvalidArgumentError",
    "KvRuntimeError",
    "Quantizer",
    "RuntimeLibraryError",
    "SectionLayout",
    "TensorView",
    "Threads",
    "VALUE",
    "load_library",
    "section_layout",
]

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2


class Threads:
    """A pool of threads for the CPU, the calling one included; 0: one per core.
    Thread-safe; loops of several callers run one after the other."""

    def __init__(self, count: int = 0):
        self._library = load_library()
        out = ctypes.c_uint64()
        self._library.call("rq_kv_threads_create", count, ctypes.byref(out))
        self.handle = out.value
        weakref.finalize(self, self._library.call, "rq_kv_threads_destroy", self.handle)


@dataclasses.dataclass(frozen=True)
class Execution:
    """What a call runs on: `threads` on the CPU, None for the calling thread
    alone; `stream`, a cudaStream_t, on a GPU."""

    threads: Threads | None = None
    stream: int = 0

    @functools.cached_property
    def _c(self) -> ctypes._Pointer:
        return ctypes.pointer(CExecution(stream=self.stream, threads=self.threads.handle if self.threads else 0))


@dataclasses.dataclass(frozen=True)
class TensorView:
    """K, V or queries of all heads of a layer in this process's memory, element
    [head, token, channel] at address + element size * (head * head_stride +
    token * row_stride + channel). Whoever owns the memory keeps it alive during
    the call."""

    address: int
    dtype: int  # FLOAT32, FLOAT16 or BFLOAT16
    head_stride: int
    row_stride: int

    def _to_c(self) -> CTensor:
        return CTensor(
            data=self.address, head_stride=self.head_stride, row_stride=self.row_stride, dtype=self.dtype
        )


class KvCache:
    """A KV cache in the runtime. Calls on different sequences may run at the
    same time in different threads (the interpreter lock is free meanwhile);
    calls on one sequence may not. Failed calls change nothing.

    All methods raise KvRuntimeError (KvInvalidArgumentError for values that
    aren't supported, code "NOT_FOUND" for unknown sequences and after close).
    """

    def __init__(self, cache_format: CacheFormat, limits: CacheLimits = CacheLimits()):
        self.format = cache_format
        self._library = load_library()
        handle = ctypes.c_uint64()
        config = to_c_config(cache_format, limits)
        self._library.call("rq_kv_cache_create", ctypes.byref(config), ctypes.byref(handle))
        self._handle = handle.value
        self._close = weakref.finalize(self, _destroy, self._library, self._handle)

    def close(self) -> None:
        """Frees all memory; closing again does nothing."""
        self._close()

    def __enter__(self) -> KvCache:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def add_sequence(self) -> int:
        """A new, empty sequence's id."""
        return self._read("rq_kv_sequence_add")

    def fork_sequence(self, parent: int, tokens: int, on: Execution = Execution()) -> int:
        """A new sequence with the first `tokens` tokens of another, sharing its
        pages until one of them writes to one: all of its tokens, or a packed
        prefix in whole pages. KvInvalidArgumentError says which can be had."""
        return self._read("rq_kv_sequence_fork", parent, tokens, on._c)

    def truncate_sequence(self, sequence: int, tokens: int) -> None:
        """Drops a sequence's newest tokens, so that `tokens` are left: at least
        what has left the window, which stays packed. KvInvalidArgumentError says
        which lengths can be had."""
        self._library.call("rq_kv_sequence_truncate", self._handle, sequence, tokens)

    def remove_sequence(self, sequence: int) -> None:
        """Frees a sequence; its pages can then be used by others."""
        self._library.call("rq_kv_sequence_remove", self._handle, sequence)

    def append(
        self,
        sequence: int,
        layer: int,
        tokens: int,
        keys: TensorView,
        values: TensorView,
        on: Execution = Execution(),
    ) -> None:
        """Appends `tokens` rows, [kv_heads, tokens, head_dim], to one layer.
        Code "DATA_LOSS" for a value that isn't finite or is above 65504 in
        magnitude; the message names layer, head, K or V, token and channel."""
        k, v = keys._to_c(), values._to_c()
        self._library.call(
            "rq_kv_append_on", self._handle, sequence, layer, tokens, ctypes.byref(k), ctypes.byref(v), on._c
        )

    def gather(
        self,
        sequence: int,
        layer: int,
        first: int,
        count: int,
        keys: TensorView | None,
        values: TensorView | None,
        on: Execution = Execution(),
    ) -> None:
        """Writes tokens [first, first + count) of one layer, dequantized, to
        `keys` and `values`; None where they aren't wanted. Code "OUT_OF_RANGE"
        when there are fewer tokens."""
        k = None if keys is None else ctypes.byref(keys._to_c())
        v = None if values is None else ctypes.byref(values._to_c())
        self._library.call("rq_kv_gather_on", self._handle, sequence, layer, first, count, k, v, on._c)

    def length(self, sequence: int, layer: int) -> int:
        """Tokens appended to one layer."""
        return self._read("rq_kv_sequence_length", sequence, layer)

    def allocated_bytes(self, sequence: int) -> int:
        """Bytes really allocated for a sequence: pages, sinks, window and room
        for tokens that wait for their group to close."""
        return self._read("rq_kv_allocated_bytes", sequence)

    def sequence_bytes(self, length: int) -> int:
        """Bytes a sequence of `length` tokens counts for in a budget."""
        return self._read("rq_kv_sequence_bytes", length)

    def page_bytes(self, layer: int = -1) -> int:
        """Bytes of one page of a layer; of all layers together for -1."""
        return self._read("rq_kv_page_bytes", layer)

    def free_page_bytes(self) -> int:
        """Bytes of pages that belong to no sequence and wait to be used again."""
        return self._read("rq_kv_free_page_bytes")

    def release_free_pages(self) -> None:
        """Gives those pages back to the system."""
        self._library.call("rq_kv_release_free_pages", self._handle)

    def free_pages(self) -> int:
        """Pages that can still be taken."""
        return self._read("rq_kv_free_pages")

    def reserved_bytes(self) -> int:
        """Bytes reserved when the cache was made: pages, fp16 rows, tables."""
        return self._read("rq_kv_reserved_bytes")

    @property
    def format_digest(self) -> str:
        """64 hexadecimal characters that tell caches apart whose bytes can't be
        exchanged: a part of the key of an engine's prefix cache."""
        buffer = ctypes.create_string_buffer(65)
        self._library.call("rq_kv_format_digest", self._handle, buffer, len(buffer))
        return buffer.value.decode()

    def save_sequence(self, sequence: int, on: Execution = Execution()) -> bytes:
        """A sequence as bytes (kernels/FORMAT.md, "Saved sequences")."""
        out = ctypes.create_string_buffer(self._read("rq_kv_saved_bytes", sequence))
        self._library.call("rq_kv_sequence_save", self._handle, sequence, out, len(out), on._c)
        return out.raw

    def load_sequence(self, saved: bytes, on: Execution = Execution()) -> int:
        """Makes a sequence of saved bytes, of this or another cache with the same
        format digest."""
        return self._read("rq_kv_sequence_load", saved, len(saved), on._c)

    def batch(self, max_entries: int, max_tokens: int) -> Batch:
        """A batch for steps of up to `max_entries` sequences with up to
        `max_tokens` tokens each."""
        out = ctypes.c_uint64()
        self._library.call("rq_kv_batch_create", self._handle, max_entries, max_tokens, ctypes.byref(out))
        return Batch(self, out.value)

    def _read(self, name: str, *arguments: int) -> int:
        out = ctypes.c_int64()
        self._library.call(name, self._handle, *arguments, ctypes.byref(out))
        return out.value


class Batch:
    """Sequences that take a step together; made by KvCache.batch. A step is
    `prepare` once, then for each layer `append` and `attend`. Methods raise as
    KvCache's do; calls on one batch must not overlap."""

    def __init__(self, cache: KvCache, handle: int):
        self._cache = cache
        self._library = cache._library
        self._handle = handle
        weakref.finalize(self, self._library.call, "rq_kv_batch_destroy", handle)

    def prepare(self, entries: Sequence[tuple[int, int]], on: Execution = Execution()) -> None:
        """Takes the pages that `entries`, pairs of sequence and new tokens, need:
        all or, with code "RESOURCE_EXHAUSTED", none. The step's tensors have a
        row for each token, in the entries' order."""
        given = (CBatchEntry * len(entries))(*(CBatchEntry(sequence, tokens) for sequence, tokens in entries))
        self._library.call("rq_kv_prepare", self._handle, given, len(entries), on._c)

    def append(self, layer: int, keys: TensorView, values: TensorView, on: Execution = Execution()) -> None:
        """Appends the step's tokens, [kv_heads, rows, head_dim], to one layer."""
        k, v = keys._to_c(), values._to_c()
        self._library.call(
            "rq_kv_append_step", self._handle, layer, ctypes.byref(k), ctypes.byref(v), on._c
        )

    def attend(
        self,
        layer: int,
        queries: TensorView,
        out: TensorView,
        *,
        softmax_scale: float,
        soft_cap: float = 0.0,
        sliding_window: int = 0,
        on: Execution = Execution(),
    ) -> None:
        """Decode attention of the step's tokens, already appended, straight from
        the packed bytes: queries and out are [query_heads, rows, head_dim]. A
        token sees those up to itself; with `sliding_window` only the newest so
        many."""
        params = CAttentionParams(
            query_heads=self._cache.format.geometry.query_heads,
            softmax_scale=softmax_scale,
            soft_cap=soft_cap,
            sliding_window=sliding_window,
        )
        q, o = queries._to_c(), out._to_c()
        self._library.call(
            "rq_kv_attend", self._handle, layer, ctypes.byref(params), ctypes.byref(q), ctypes.byref(o), on._c
        )


def _destroy(library: Library, handle: int) -> None:
    library.call("rq_kv_cache_destroy", handle)
