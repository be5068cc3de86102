"""What a cache of the runtime stores and how much of it, as Python objects and as
the structs of its C ABI."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence

from ratequant.kv_library import (
    CCacheConfig,
    CQuantizer,
    CSectionLayout,
    KvInvalidArgumentError,
    load_library,
)

KEY, VALUE = 0, 1
CPU, CUDA = 0, 1
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
    """Shape of a model's KV cache. `query_heads` is a multiple of kv_heads; 0:
    the cache isn't asked for attention."""

    layers: int
    kv_heads: int
    head_dim: int
    query_heads: int = 0


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
      means: [groups * head_dim], each group's mean over tokens, which is taken
        off every row that is stored and put back where rows are read; empty
        for none.
    """

    geometry: Geometry
    quantizers: Sequence[Quantizer]
    quantizer_index: Sequence[int]
    width: Sequence[int]
    page_tokens: int = 32
    sink_tokens: int = 4
    window: int = 32
    means: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class CacheLimits:
    """How much a cache holds, reserved when it is made: on the CPU as address
    space, which costs memory once it is used. 0 stands for a default: 256
    sequences; on the CPU as many pages as memory holds; as many tokens a
    sequence as the pages hold."""

    device: int = CPU
    device_ordinal: int = 0
    max_sequences: int = 0
    num_pages: int = 0
    max_tokens: int = 0


def to_c_config(cache_format: CacheFormat, limits: CacheLimits) -> CCacheConfig:
    """The C ABI's form of a format and limits, which must outlive it.

    Raises:
      KvInvalidArgumentError: a number doesn't fit its field, or groups and
        widths don't match.
    """
    geometry, groups = cache_format.geometry, len(cache_format.width)
    if len(cache_format.quantizer_index) != groups:
        raise KvInvalidArgumentError(
            "INVALID_ARGUMENT",
            f"{len(cache_format.quantizer_index)} quantizer indices for {groups} widths; every group has one of each",
        )
    counts = dataclasses.asdict(geometry) | {
        name: getattr(cache_format, name) for name in ("page_tokens", "sink_tokens", "window")
    }
    counts |= dataclasses.asdict(limits)
    for name, value in counts.items():
        _check_bits(name, value, 62 if name in ("num_pages", "max_tokens") else 31)
    quantizers = [quantizer._to_c() for quantizer in cache_format.quantizers]
    return CCacheConfig(
        **counts,
        quantizers=(CQuantizer * len(quantizers))(*quantizers),
        num_quantizers=len(quantizers),
        quantizer_index=_to_c_array("quantizer_index", cache_format.quantizer_index),
        width=_to_c_array("width", cache_format.width),
        num_groups=groups,
        means=(ctypes.c_float * len(cache_format.means))(*cache_format.means),
        num_means=len(cache_format.means),
    )


def _to_c_array(name: str, values: Sequence[int]) -> ctypes.Array:
    for group, value in enumerate(values):
        _check_bits(f"{name}[{group}]", value, 32)
    return (ctypes.c_uint32 * len(values))(*values)


def _check_bits(name: str, value: int, bits: int) -> None:
    """ctypes cuts numbers that don't fit; an error is better."""
    if not 0 <= value < 2**bits:
        raise KvInvalidArgumentError("INVALID_ARGUMENT", f"{name} {value} isn't in 0 to {2**bits - 1}")
