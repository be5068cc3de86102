"""Reads recorded captures (CAPTURE.md)."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open

from ratequant.capture.attention_parameters import AttentionParameters
from ratequant.capture.capture_file import FORMAT_VERSION

KINDS = ("key", "value", "query")
GRADIENTS = ("key_gradient", "value_gradient")
OUTPUT_GRADIENT = "output_gradient"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_TYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# More than any model has, few enough that a wrong number can't keep a reader busy.
_MOST = {"layers": 4096, "kv_heads": 4096, "query_heads": 65536, "head_dim": 4096, "sequences": 1 << 20}
_MOST_TOKENS = 1 << 24


class CaptureFileError(ValueError):
    """A file that isn't a capture of this version, whole and with every tensor; says what is wrong."""


@dataclasses.dataclass(frozen=True)
class CaptureInfo:
    """What a capture says about itself; CAPTURE.md has the meanings.

    Attributes:
      loss_sum: nats of each sequence; empty without gradients.
      gradients: whether K and V have theirs.
      output_gradients: whether attention's output has its own too.
    """

    model: str
    layers: int
    kv_heads: int
    query_heads: int
    head_dim: int
    sequences: int
    sequence_length: int
    dtype: str
    loss_sum: tuple[float, ...]
    gradients: bool
    output_gradients: bool
    token_digest: str
    model_digest: str
    tokenizer_digest: str
    device: str
    software: tuple[str, ...]


class CaptureReader:
    """An open capture; tensors are read when they are asked for. A context manager. `tensor` and closing may meet in
    two threads: a call that sends a capture may end while its sender still reads.

    The header is checked when it is opened: every tensor is there, of the announced shape and type, and nothing else.

    Attributes:
      info: what the capture says about itself.
      attention: what attention of every layer computes.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
          FileNotFoundError, PermissionError: it can't be read.
          CaptureFileError: it isn't a capture.
        """
        with open(path, "rb"):
            pass
        self._lock = threading.Lock()
        try:
            self._file = safe_open(path, "pt").__enter__()
        except SafetensorError as error:
            raise CaptureFileError(f"{path} is not a safetensors file: {error}") from error
        try:
            self._names = set(self._file.keys())
            self.info = _info(self._file.metadata() or {}, self._names)
            self._check_tensors()
            self.attention = _attention(self._file.metadata(), self.info.layers)
        except CaptureFileError as error:
            self._file.__exit__(None, None, None)
            raise CaptureFileError(f"{path}: {error}") from None

    def tensor(self, sequence: int, layer: int, kind: str) -> torch.Tensor:
        """One of KINDS, or of GRADIENTS and OUTPUT_GRADIENT where the capture has them: [heads, sequence_length,
        head_dim]."""
        with self._lock:
            return self._file.get_tensor(_tensor_name(sequence, layer, kind))

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._file.__exit__(kind, error, trace)

    def _check_tensors(self) -> None:
        info = self.info
        kinds = KINDS + (GRADIENTS if info.gradients else ()) + ((OUTPUT_GRADIENT,) if info.output_gradients else ())
        expected = info.sequences * info.layers * len(kinds)
        if len(self._names) != expected:
            raise CaptureFileError(f"{len(self._names)} tensors; the metadata announces {expected}")
        for sequence in range(info.sequences):
            for layer in range(info.layers):
                for kind in kinds:
                    self._check_tensor(_tensor_name(sequence, layer, kind), kind)

    def _check_tensor(self, name: str, kind: str) -> None:
        if name not in self._names:
            raise CaptureFileError(f"{name} is missing")
        heads = self.info.query_heads if kind in ("query", OUTPUT_GRADIENT) else self.info.kv_heads
        shape = [heads, self.info.sequence_length, self.info.head_dim]
        view = self._file.get_slice(name)
        if view.get_shape() != shape or view.get_dtype() != _TYPE_NAMES[self.info.dtype]:
            raise CaptureFileError(
                f"{name} is {view.get_shape()} of {view.get_dtype()}, not {shape} of {_TYPE_NAMES[self.info.dtype]}"
            )


def _tensor_name(sequence: int, layer: int, kind: str) -> str:
    return f"sequence.{sequence}.layer.{layer}.{kind}"


def _info(metadata: Mapping[str, str], names: Collection[str]) -> CaptureInfo:
    output_gradients = any(name.endswith(f".{OUTPUT_GRADIENT}") for name in names)
    gradients = output_gradients or any(name.endswith("_gradient") for name in names)
    version = _text(metadata, "ratequant_capture")
    if version != str(FORMAT_VERSION):
        raise CaptureFileError(f"capture format '{version}' isn't supported; supported: {FORMAT_VERSION}")
    dtype = _text(metadata, "dtype")
    if dtype not in _DTYPES:
        raise CaptureFileError(f"dtype '{dtype}' isn't supported; supported: {', '.join(_DTYPES)}")
    numbers = {name: _number(metadata, name, most) for name, most in _MOST.items()}
    if numbers["query_heads"] % numbers["kv_heads"]:
        raise CaptureFileError(f"query_heads {numbers['query_heads']} is no multiple of kv_heads {numbers['kv_heads']}")
    losses = _losses(metadata, numbers["sequences"]) if gradients else ()
    return CaptureInfo(
        model=_text(metadata, "model"),
        **numbers,
        sequence_length=_number(metadata, "sequence_length", _MOST_TOKENS),
        dtype=dtype,
        loss_sum=losses,
        gradients=gradients,
        output_gradients=output_gradients,
        token_digest=metadata.get("token_digest", ""),
        model_digest=metadata.get("model_digest", ""),
        tokenizer_digest=metadata.get("tokenizer_digest", ""),
        device=metadata.get("device", ""),
        software=tuple(filter(None, metadata.get("software", "").split(", "))),
    )


def _text(metadata: Mapping[str, str], name: str) -> str:
    if name not in metadata:
        raise CaptureFileError(f"not a capture: its metadata has no '{name}'")
    return metadata[name]


def _number(metadata: Mapping[str, str], name: str, most: int) -> int:
    text = _text(metadata, name)
    if not re.fullmatch("[1-9][0-9]{0,8}", text) or int(text) > most:
        raise CaptureFileError(f"{name} '{text}' isn't a number from 1 to {most}")
    return int(text)


def _losses(metadata: Mapping[str, str], sequences: int) -> tuple[float, ...]:
    return _numbers(metadata, "loss_sum", sequences, "losses")


def _attention(metadata: Mapping[str, str], layers: int) -> tuple[AttentionParameters, ...]:
    scales, caps, windows = (
        _numbers(metadata, field.name, layers, "numbers from 0 on, a layer each")
        for field in dataclasses.fields(AttentionParameters)
    )
    return tuple(AttentionParameters(scale, cap, int(window)) for scale, cap, window in zip(scales, caps, windows))


def _numbers(metadata: Mapping[str, str], name: str, count: int, what: str) -> tuple[float, ...]:
    text = _text(metadata, name)
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(0 <= number < float("inf") for number in numbers):
        raise CaptureFileError(f"{name} '{text[:100]}' isn't {count} {what}")
    return numbers
