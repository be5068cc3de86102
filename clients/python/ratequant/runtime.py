"""The C++ KV cache runtime, through its C ABI (ratequant/kv/c_api.h).

Knows nothing of torch: tensors are addresses and strides. `RateQuantCache`
(ratequant.cache) is what models use.
"""

from __future__ import annotations

import ctypes
import dataclasses
import weakref
from collections.abc import Sequence

from ratequant.kv_library import (
    CCacheConfig,
    CQuantizer,
    CSectionLayout,
    CTensor,
    KvInvalidArgumentError,
    KvRuntimeError,
    Library,
    RuntimeLibraryError,
    load_library,
)

__all__ = [
    "BFLOAT16",
    "CacheFormat",
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
    "VALUE",
    "load_library",
    "section_layout",
]

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
KEY, VALUE = 0, 1
FP16_WIDTH = 16


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """A quantizer with all its parameters; those that don't apply to `kind`
    hold their defaults. Numbers are those of ratequant.v1.Quantizer."""

    kind: int
    group_size: int = 32
    seed: int = 0
    key_scale: int = 1
    value_scale: int = 2

    @classmethod
    def parse(cls, text: str) -> Quantizer:
        """Parses "kivi", "kivi:group_size=64", "turboquant:seed=7", ...

        Raises:
          KvInvalidArgumentError: names what isn't known and what is supported.
        """
        out = CQuantizer()
        load_library().call("rq_kv_parse_quantizer", text.encode(), ctypes.byref(out))
        return cls(out.kind, out.group_size, out.seed, out.key_scale, out.value_scale)

    @property
    def name(self) -> str:
        """The shortest text that `parse` turns into this quantizer."""
        buffer = ctypes.create_string_buffer(256)
        load_library().call("rq_kv_quantizer_name", ctypes.byref(self._to_c()), buffer, len(buffer))
        return buffer.value.decode()

    def _to_c(self) -> CQuantizer:
        for field in dataclasses.fields(self):
            _check_bits(field.name, getattr(self, field.name), 64 if field.name == "seed" else 31)
        return CQuantizer(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class SectionLayout:
    """Sizes in bytes of one page of one group (kernels/FORMAT.md)."""

    params_bytes: int
    row_bytes: int
    codes_offset: int
    section_bytes: int


def section_layout(
    quantizer: Quantizer | None, tensor: int, width: int, head_dim: int, page_tokens: int = 32
) -> SectionLayout:
    """The layout of one group's part of a page. `tensor` is KEY or VALUE;
    `quantizer` may be None at width 16.

    Raises:
      KvInvalidArgumentError: names the value that isn't supported.
    """
    out = CSectionLayout()
    given = None if quantizer is None else ctypes.byref(quantizer._to_c())
    load_library().call("rq_kv_section_layout_of", given, tensor, width, head_dim, page_tokens, ctypes.byref(out))
    return SectionLayout(out.params_bytes, out.row_bytes, out.codes_offset, out.section_bytes)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Shape of a model's KV cache."""

    layers: int
    kv_heads: int
    head_dim: int


@dataclasses.dataclass(frozen=True)
class CacheFormat:
    """What a cache stores, in group order:
    (layer * kv_heads + head) * 2 + (1 for V).

    Attributes:
      geometry: the model's shape.
      quantizers: those in use.
      quantizer_index: for each group an index into `quantizers`; ignored at
        width 16.
      width: for each group 1 to 8 bits, or 16 (fp16).
      page_tokens: tokens in a page: 16, 32, 64 or 128.
      sink_tokens: first tokens of a sequence, kept in fp16.
      window: newest tokens, kept in fp16.
    """

    geometry: Geometry
    quantizers: Sequence[Quantizer]
    quantizer_index: Sequence[int]
    width: Sequence[int]
    page_tokens: int = 32
    sink_tokens: int = 4
    window: int = 32


@dataclasses.dataclass(frozen=True)
class TensorView:
    """K or V of all heads of a layer in this process's memory, element
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

    def __init__(self, cache_format: CacheFormat):
        self.format = cache_format
        self._library = load_library()
        handle = ctypes.c_uint64()
        self._library.call("rq_kv_cache_create", ctypes.byref(_to_c_config(cache_format)), ctypes.byref(handle))
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

    def remove_sequence(self, sequence: int) -> None:
        """Frees a sequence; its pages can then be used by others."""
        self._library.call("rq_kv_sequence_remove", self._handle, sequence)

    def append(self, sequence: int, layer: int, tokens: int, keys: TensorView, values: TensorView) -> None:
        """Appends `tokens` rows, [kv_heads, tokens, head_dim], to one layer.
        Code "DATA_LOSS" for a value that isn't finite or is above 65504 in
        magnitude; the message names layer, head, K or V, token and channel."""
        k, v = keys._to_c(), values._to_c()
        self._library.call(
            "rq_kv_append", self._handle, sequence, layer, tokens, ctypes.byref(k), ctypes.byref(v)
        )

    def gather(
        self, sequence: int, layer: int, first: int, count: int, keys: TensorView | None, values: TensorView | None
    ) -> None:
        """Writes tokens [first, first + count) of one layer, dequantized, to
        `keys` and `values`; None where they aren't wanted. Code "OUT_OF_RANGE"
        when there are fewer tokens."""
        k = None if keys is None else ctypes.byref(keys._to_c())
        v = None if values is None else ctypes.byref(values._to_c())
        self._library.call("rq_kv_gather", self._handle, sequence, layer, first, count, k, v)

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

    def _read(self, name: str, *arguments: int) -> int:
        out = ctypes.c_int64()
        self._library.call(name, self._handle, *arguments, ctypes.byref(out))
        return out.value


def _destroy(library: Library, handle: int) -> None:
    library.call("rq_kv_cache_destroy", handle)


def _to_c_config(cache_format: CacheFormat) -> CCacheConfig:
    geometry, groups = cache_format.geometry, len(cache_format.width)
    if len(cache_format.quantizer_index) != groups:
        raise KvInvalidArgumentError(
            "INVALID_ARGUMENT",
            f"{len(cache_format.quantizer_index)} quantizer indices for {groups} widths; every group has one of each",
        )
    counts = dataclasses.asdict(geometry) | {
        name: getattr(cache_format, name) for name in ("page_tokens", "sink_tokens", "window")
    }
    for name, value in counts.items():
        _check_bits(name, value, 31)
    quantizers = [quantizer._to_c() for quantizer in cache_format.quantizers]
    return CCacheConfig(
        **counts,
        quantizers=(CQuantizer * len(quantizers))(*quantizers),
        num_quantizers=len(quantizers),
        quantizer_index=_to_c_array("quantizer_index", cache_format.quantizer_index),
        width=_to_c_array("width", cache_format.width),
        num_groups=groups,
    )


def _to_c_array(name: str, values: Sequence[int]) -> ctypes.Array:
    for group, value in enumerate(values):
        _check_bits(f"{name}[{group}]", value, 32)
    return (ctypes.c_uint32 * len(values))(*values)


def _check_bits(name: str, value: int, bits: int) -> None:
    """ctypes cuts numbers that don't fit; an error is better."""
    if not 0 <= value < 2**bits:
        raise KvInvalidArgumentError("INVALID_ARGUMENT", f"{name} {value} isn't in 0 to {2**bits - 1}")
