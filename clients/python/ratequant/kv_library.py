"""The runtime's shared library: where it is, and its C ABI field for field
(ratequant/kv/c_api.h). `ratequant.runtime` is what to use."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib

LIBRARY_VARIABLE = "RATEQUANT_KV_LIBRARY"
ABI_VERSION = 1

_LIBRARY_NAME = "libratequant_kv.so"
_STATUS_NAMES = {
    3: "INVALID_ARGUMENT",
    5: "NOT_FOUND",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    15: "DATA_LOSS",
}


class RuntimeLibraryError(OSError):
    """The runtime library can't be loaded; says what was looked for, or why the
    one that was found doesn't fit."""


class KvRuntimeError(RuntimeError):
    """A call of the runtime that failed.

    Attributes:
      code: name of the status code, for example "DATA_LOSS".
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class KvInvalidArgumentError(KvRuntimeError, ValueError):
    """A value that the runtime doesn't support; the message names it and what
    is supported."""


# The structs of c_api.h, field for field.


class _SizedStructure(ctypes.Structure):
    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)


class CQuantizer(_SizedStructure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("kind", ctypes.c_int32),
        ("group_size", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("key_scale", ctypes.c_int32),
        ("value_scale", ctypes.c_int32),
    ]


class CSectionLayout(_SizedStructure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("params_bytes", ctypes.c_uint64),
        ("row_bytes", ctypes.c_uint64),
        ("codes_offset", ctypes.c_uint64),
        ("section_bytes", ctypes.c_uint64),
    ]


class CCacheConfig(_SizedStructure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("layers", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("page_tokens", ctypes.c_int32),
        ("sink_tokens", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("quantizers", ctypes.POINTER(CQuantizer)),
        ("num_quantizers", ctypes.c_size_t),
        ("quantizer_index", ctypes.POINTER(ctypes.c_uint32)),
        ("width", ctypes.POINTER(ctypes.c_uint32)),
        ("num_groups", ctypes.c_size_t),
        ("query_heads", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("device_ordinal", ctypes.c_int32),
        ("max_sequences", ctypes.c_int32),
        ("num_pages", ctypes.c_int64),
        ("max_tokens", ctypes.c_int64),
        ("means", ctypes.POINTER(ctypes.c_float)),
        ("num_means", ctypes.c_size_t),
    ]


class CExecution(_SizedStructure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("threads", ctypes.c_uint64),
    ]


class CBatchEntry(ctypes.Structure):
    _fields_ = [
        ("sequence", ctypes.c_int64),
        ("tokens", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class CAttentionParams(_SizedStructure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("query_heads", ctypes.c_int32),
        ("softmax_scale", ctypes.c_float),
        ("soft_cap", ctypes.c_float),
        ("sliding_window", ctypes.c_int32),
    ]


class CTensor(_SizedStructure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("head_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


_CACHE, _SEQUENCE, _LAYER = ctypes.c_uint64, ctypes.c_int64, ctypes.c_int32
_COUNT, _COUNT_OUT = ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)
_TENSOR = ctypes.POINTER(CTensor)
_BATCH, _THREADS, _EXECUTION = ctypes.c_uint64, ctypes.c_uint64, ctypes.POINTER(CExecution)
_BUFFER = [ctypes.c_void_p, ctypes.c_size_t]
_ARGUMENTS = {
    "rq_kv_parse_quantizer": [ctypes.c_char_p, ctypes.POINTER(CQuantizer)],
    "rq_kv_quantizer_name": [ctypes.POINTER(CQuantizer), ctypes.c_char_p, ctypes.c_size_t],
    "rq_kv_section_layout_of": [ctypes.POINTER(CQuantizer)]
    + [ctypes.c_int32] * 4
    + [ctypes.POINTER(CSectionLayout)],
    "rq_kv_cache_create": [ctypes.POINTER(CCacheConfig), ctypes.POINTER(_CACHE)],
    "rq_kv_cache_destroy": [_CACHE],
    "rq_kv_sequence_add": [_CACHE, _COUNT_OUT],
    "rq_kv_sequence_remove": [_CACHE, _SEQUENCE],
    "rq_kv_append_on": [_CACHE, _SEQUENCE, _LAYER, _COUNT, _TENSOR, _TENSOR, _EXECUTION],
    "rq_kv_gather_on": [_CACHE, _SEQUENCE, _LAYER, _COUNT, _COUNT, _TENSOR, _TENSOR, _EXECUTION],
    "rq_kv_sequence_length": [_CACHE, _SEQUENCE, _LAYER, _COUNT_OUT],
    "rq_kv_allocated_bytes": [_CACHE, _SEQUENCE, _COUNT_OUT],
    "rq_kv_sequence_bytes": [_CACHE, _COUNT, _COUNT_OUT],
    "rq_kv_page_bytes": [_CACHE, _LAYER, _COUNT_OUT],
    "rq_kv_free_page_bytes": [_CACHE, _COUNT_OUT],
    "rq_kv_release_free_pages": [_CACHE],
    "rq_kv_free_pages": [_CACHE, _COUNT_OUT],
    "rq_kv_reserved_bytes": [_CACHE, _COUNT_OUT],
    "rq_kv_format_digest": [_CACHE, ctypes.c_char_p, ctypes.c_size_t],
    "rq_kv_threads_create": [ctypes.c_int32, ctypes.POINTER(_THREADS)],
    "rq_kv_threads_destroy": [_THREADS],
    "rq_kv_batch_create": [_CACHE, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(_BATCH)],
    "rq_kv_batch_destroy": [_BATCH],
    "rq_kv_prepare": [_BATCH, ctypes.POINTER(CBatchEntry), ctypes.c_size_t, _EXECUTION],
    "rq_kv_append_step": [_BATCH, _LAYER, _TENSOR, _TENSOR, _EXECUTION],
    "rq_kv_attend": [_BATCH, _LAYER, ctypes.POINTER(CAttentionParams), _TENSOR, _TENSOR, _EXECUTION],
    "rq_kv_mark_appended": [_BATCH],
    "rq_kv_check_faults": [_CACHE, _EXECUTION],
    "rq_kv_sequence_fork": [_CACHE, _SEQUENCE, _COUNT, _EXECUTION, _COUNT_OUT],
    "rq_kv_sequence_truncate": [_CACHE, _SEQUENCE, _COUNT],
    "rq_kv_saved_bytes": [_CACHE, _SEQUENCE, _COUNT_OUT],
    "rq_kv_sequence_save": [_CACHE, _SEQUENCE, *_BUFFER, _EXECUTION],
    "rq_kv_sequence_load": [_CACHE, *_BUFFER, _EXECUTION, _COUNT_OUT],
}


class Library:
    """The loaded runtime library. Thread-safe."""

    def __init__(self, path: str | os.PathLike):
        """
        Raises:
          RuntimeLibraryError: it can't be loaded, or has another ABI version.
        """
        self.path = str(path)
        try:
            self._library = ctypes.CDLL(self.path)
            self._bind()
        except (OSError, AttributeError) as error:
            raise RuntimeLibraryError(f"can't load the KV runtime library: {error}") from error

    @property
    def format_version(self) -> int:
        """Version of the packed bytes (kernels/FORMAT.md)."""
        return self._library.rq_kv_format_version()

    def call(self, name: str, *arguments) -> None:
        """Calls a function that returns a status.

        Raises:
          KvRuntimeError: it failed; KvInvalidArgumentError for that code.
        """
        status = getattr(self._library, name)(*arguments)
        if status == 0:
            return
        message = self._library.rq_kv_last_error_message().decode(errors="replace")
        code = _STATUS_NAMES.get(status, f"STATUS_{status}")
        if code == "INVALID_ARGUMENT":
            raise KvInvalidArgumentError(code, message)
        raise KvRuntimeError(code, message)

    def _bind(self) -> None:
        for name in ("rq_kv_abi_version", "rq_kv_format_version"):
            getattr(self._library, name).restype = ctypes.c_uint32
            getattr(self._library, name).argtypes = []
        version = self._library.rq_kv_abi_version()
        if version != ABI_VERSION:
            raise RuntimeLibraryError(
                f"the KV runtime library {self.path} has ABI version {version}; this package needs {ABI_VERSION}"
            )
        self._library.rq_kv_last_error_message.restype = ctypes.c_char_p
        self._library.rq_kv_last_error_message.argtypes = []
        for name, arguments in _ARGUMENTS.items():
            function = getattr(self._library, name)
            function.restype = ctypes.c_int32
            function.argtypes = arguments


def find_library() -> pathlib.Path:
    """Path of the runtime library: $RATEQUANT_KV_LIBRARY when that is set, else
    `_native` of the installed package, else build/lib of the source tree.

    Raises:
      RuntimeLibraryError: it is nowhere; names the places.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        if not pathlib.Path(override).is_file():
            raise RuntimeLibraryError(f"{LIBRARY_VARIABLE} is '{override}', and there is no such file")
        return pathlib.Path(override)
    package = pathlib.Path(__file__).resolve().parent
    places = [package / "_native", package.parents[2] / "build" / "lib"]
    for place in places:
        if (place / _LIBRARY_NAME).is_file():
            return place / _LIBRARY_NAME
    raise RuntimeLibraryError(
        f"{_LIBRARY_NAME} isn't in {' or '.join(map(str, places))}; "
        f"build it (deploy/local/setup) or set {LIBRARY_VARIABLE} to its path"
    )


def load_library() -> Library:
    """The library that find_library finds, loaded once.

    Raises:
      RuntimeLibraryError: see find_library and Library.
    """
    return _load(str(find_library()))


@functools.cache
def _load(path: str) -> Library:
    return Library(path)
