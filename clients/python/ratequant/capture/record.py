"""Records a capture: K, V, Q and gradients of a model over a text, into a file (CAPTURE.md)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ratequant.capture import digest
from ratequant.capture.capture_file import FORMAT_VERSION, CaptureWriter
from ratequant.capture.errors import MODEL_UNREADABLE, CaptureError
from ratequant.capture.geometry import Geometry, probe_geometry
from ratequant.capture.loading import check_fits, load_model, load_tokenizer
from ratequant.capture.provenance import device_name, software
from ratequant.capture.queries import AttentionParameters, AttentionTap
from ratequant.capture.sequence import capture_sequence
from ratequant.names import model_name
from ratequant.text import read_text, token_sequences

# Of the metadata as JSON: one number, and everything that isn't a list of numbers.
_NUMBER_BYTES = 28
_OTHER_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class RecordOptions:
    """What to record.

    Attributes:
      model: Hugging Face model folder.
      text: UTF-8 text file; its beginning is used.
      out: the file to write; an old one is replaced.
      sequences, sequence_length: how much of it.
      gradients: also run backward and record the gradients of K, V and attention's output.
      model_name: id that goes into the file; empty means the folder's name.
    """

    model: Path
    text: Path
    out: Path
    sequences: int = 2
    sequence_length: int = 512
    gradients: bool = False
    model_name: str = ""


def record(options: RecordOptions, on_sequence: Callable[[int], None] = lambda sequence: None) -> None:
    """Records a capture. `on_sequence` is called with the number of each sequence that is done.

    Raises:
      CaptureError: the model can't be read, or its attention can't be captured.
      TextError: the text can't be used.
      ValueError: a model name that isn't one, or fewer than 1 sequence of 2 tokens.
      OSError: the file can't be written. There is none then.
    """
    name = model_name(options.model_name or options.model.resolve().name).removeprefix("models/")
    if not options.model.is_dir():
        raise CaptureError(MODEL_UNREADABLE, f"{options.model} is not a folder")
    if not os.access(options.out.resolve().parent, os.W_OK):
        raise OSError(f"can't write {options.out}: its folder is missing or not writable")
    ids = token_sequences(
        load_tokenizer(options.model), read_text(options.text), options.sequences, options.sequence_length
    )
    model = load_model(options.model)
    check_fits(model.config, options.sequence_length, int(ids.max()))
    recorder = _Recorder(model, probe_geometry(model), options)
    with recorder.open_file() as writer:
        for sequence, row in enumerate(ids):
            recorder.run(writer, sequence, torch.from_numpy(row).long().to(model.device))
            on_sequence(sequence)
        writer.finish(
            {
                "ratequant_capture": str(FORMAT_VERSION),
                "model": name,
                **recorder.metadata(),
                "token_digest": digest.token_digest(ids),
                "model_digest": digest.model_digest(options.model),
                "tokenizer_digest": digest.tokenizer_digest(options.model),
                "device": device_name(model.device),
                "software": ", ".join(software()),
            }
        )


class _Recorder:
    """Runs sequences and writes what their layers show."""

    def __init__(self, model: PreTrainedModel, geometry: Geometry, options: RecordOptions) -> None:
        self._model = model
        self._geometry = geometry
        self._options = options
        self._parameters: dict[int, AttentionParameters] = {}
        self._losses: list[float] = []

    def open_file(self) -> CaptureWriter:
        """The file, without its tensors."""
        geometry, tokens = self._geometry, self._options.sequence_length
        heads = {"key": geometry.kv_heads, "value": geometry.kv_heads, "query": geometry.query_heads}
        if self._options.gradients:
            heads |= {"key_gradient": geometry.kv_heads, "value_gradient": geometry.kv_heads}
            heads |= {"output_gradient": geometry.query_heads}
        shapes = {
            _tensor_name(sequence, layer, kind): (count, tokens, geometry.head_dim)
            for sequence in range(self._options.sequences)
            for layer in range(geometry.layers)
            for kind, count in heads.items()
        }
        numbers = len(dataclasses.fields(AttentionParameters)) * geometry.layers + self._options.sequences
        return CaptureWriter(
            self._options.out, shapes, self._model.dtype, _OTHER_BYTES + _NUMBER_BYTES * numbers
        )

    def run(self, writer: CaptureWriter, sequence: int, ids: torch.Tensor) -> None:
        """Runs one sequence, `ids` int64 [tokens], and writes its tensors."""

        def write(layer: int, **tensors: torch.Tensor) -> None:
            for kind, tensor in tensors.items():
                writer.write(_tensor_name(sequence, layer, kind), tensor)

        def on_attention(
            layer: int, parameters: AttentionParameters, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
        ) -> None:
            self._parameters[layer] = parameters
            write(layer, key=key, value=value, query=query)

        def on_gradient(layer: int, keys, values, key_gradient: torch.Tensor, value_gradient: torch.Tensor) -> None:
            write(layer, key_gradient=key_gradient, value_gradient=value_gradient)

        def on_output_gradient(layer: int, gradient: torch.Tensor) -> None:
            write(layer, output_gradient=gradient)

        gradients = self._options.gradients
        with AttentionTap(self._model, on_attention, on_output_gradient if gradients else None):
            if gradients:
                self._losses.append(capture_sequence(self._model, self._geometry, ids, on_gradient).sum)
            else:
                with torch.no_grad():
                    self._model(input_ids=ids[None], use_cache=False)

    def metadata(self) -> dict[str, str]:
        """What the file says about shapes and attention, after all sequences."""
        parameters = [self._parameters[layer] for layer in range(self._geometry.layers)]
        metadata = {name: str(value) for name, value in dataclasses.asdict(self._geometry).items()}
        metadata |= {
            "sequences": str(self._options.sequences),
            "sequence_length": str(self._options.sequence_length),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "rope": "applied",
        }
        for field in dataclasses.fields(AttentionParameters):
            metadata[field.name] = _list([getattr(layer, field.name) for layer in parameters])
        if self._losses:
            metadata["loss_sum"] = _list(self._losses)
        return metadata


def _tensor_name(sequence: int, layer: int, kind: str) -> str:
    return f"sequence.{sequence}.layer.{layer}.{kind}"


def _list(numbers: Sequence[float]) -> str:
    return ",".join(map(repr, numbers))
