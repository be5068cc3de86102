"""The capture engine: runs a model for a calibration worker that started it.

    python -m ratequant.capture.engine --model DIR --text FILE --sequences N --sequence-length T

Speaks the protocol of services/calibration/ENGINE.md over standard input and output;
standard error is the log. Reads only the model's folder and the text; fetches nothing
and runs no code from the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ratequant.capture import digest
from ratequant.capture.channel import Channel
from ratequant.capture.errors import (
    ENGINE_ERROR,
    ENGINE_OUT_OF_MEMORY,
    MODEL_UNREADABLE,
    CaptureError,
    is_out_of_memory,
)
from ratequant.size import memory_size
from ratequant.text import TextError, read_text

# torch and transformers are imported when the engine already answers and hashes.
if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

    from ratequant.capture.attention_parameters import AttentionParameters
    from ratequant.capture.geometry import Geometry
    from ratequant.capture.segment import Segment

_PROTOCOL = 1
# A message is at most 64 KiB; a sentence for people is far from it.
_MAX_ERROR_CHARACTERS = 4096


def main() -> NoReturn:
    args = _parse_arguments()
    channel = _take_over_standard_streams()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    # The worker's sweep runs beside the model. Threads that wait by spinning, torch's
    # default, keep its threads off the cores and one another: 8 times slower then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    channel.start()
    status = 0
    try:
        _Engine(args, channel).run()
    except BaseException as error:  # Whatever it is, the worker is told.
        status = 1
        traceback.print_exc()
        _report(channel, error)
    sys.stderr.flush()
    # Not sys.exit: a thread still waits for standard input, and a large model's memory
    # goes back to the system faster as a whole.
    os._exit(status)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ratequant.capture.engine",
        description="Captures K, V and their gradients for a calibration worker.",
    )
    parser.add_argument("--model", required=True, type=Path, help="Hugging Face model folder")
    parser.add_argument("--text", required=True, type=Path, help="UTF-8 text to run the model on")
    parser.add_argument("--sequences", required=True, type=int, help="number of sequences")
    parser.add_argument("--sequence-length", required=True, type=int, help="tokens of a sequence")
    parser.add_argument("--attention-output", action="store_true", help="also capture Q and the gradient of attention's output")
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument(
        "--memory-limit",
        type=memory_size,
        metavar="SIZE",
        help="most memory to have on the model's device, the weights included, such as 16GiB; layers run twice where "
        "that takes it (default: what is free)",
    )
    memory.add_argument(
        "--device-map",
        metavar="MAP",
        help="spread the weights over devices: auto, balanced, balanced_low_0, sequential, or a JSON file of module "
        "names to GPU numbers, cpu or disk; layers run twice",
    )
    args = parser.parse_args()
    if args.sequences < 1:
        parser.error(f"--sequences is {args.sequences}; at least 1 is needed")
    if args.sequence_length < 2:
        parser.error(f"--sequence-length is {args.sequence_length}; at least 2 is needed")
    return args


def _take_over_standard_streams() -> Channel:
    """Keeps standard input and output for the protocol: what libraries print goes to the log."""
    protocol_in, protocol_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Channel(protocol_in, protocol_out)


def _report(channel: Channel, error: BaseException) -> None:
    reason, message = _describe(error)
    try:
        channel.send_last("error", reason=reason, message=message[:_MAX_ERROR_CHARACTERS])
    except OSError:
        pass  # Nobody listens any more; the log has it.


def _describe(error: BaseException) -> tuple[str, str]:
    """Reason and message of the `error` message."""
    if isinstance(error, CaptureError):
        return error.reason, error.message
    if isinstance(error, TextError):
        return error.reason or ENGINE_ERROR, str(error)
    if is_out_of_memory(error):
        return ENGINE_OUT_OF_MEMORY, f"the capture engine ran out of memory: {error or type(error).__name__}"
    return ENGINE_ERROR, f"{type(error).__name__}: {error}"


class _Engine:
    """One run: tokens, model, hello, sequences, done."""

    def __init__(self, args: argparse.Namespace, channel: Channel) -> None:
        self._folder: Path = args.model
        self._text: Path = args.text
        self._sequences: int = args.sequences
        self._length: int = args.sequence_length
        self._memory_limit: int | None = args.memory_limit
        self._device_map: str | None = args.device_map
        self._checkpoint = False  # Set once the model is there.
        self._attention_output: bool = args.attention_output
        self._channel = channel

    def run(self) -> None:
        if not self._folder.is_dir():
            raise CaptureError(MODEL_UNREADABLE, f"{self._folder} is not a folder")
        text = read_text(self._text)
        with ThreadPoolExecutor(max_workers=1) as pool:
            digests = pool.submit(_digests, self._folder)
            ids = self._tokenize(text)
            model, geometry = self._load(ids)
            self._hello(model, geometry, ids, digests)
        self._capture(model, geometry, ids)
        self._channel.send_last("done", **_peaks())

    def _tokenize(self, text: str) -> np.ndarray:
        """int32 [sequences, tokens]."""
        self._channel.note("tokenizing")
        from ratequant.capture.loading import load_tokenizer
        from ratequant.text import token_sequences

        return token_sequences(load_tokenizer(self._folder), text, self._sequences, self._length)

    def _load(self, ids: np.ndarray) -> tuple[PreTrainedModel, Geometry]:
        self._channel.note("loading the model")
        from ratequant.capture.geometry import probe_geometry
        from ratequant.capture.loading import check_fits, load_model
        from ratequant.capture.placement import read_device_map

        device_map = None if self._device_map is None else read_device_map(self._device_map)
        model = load_model(self._folder, device_map=device_map)
        check_fits(model.config, self._length, int(ids.max()))
        geometry = probe_geometry(model)
        self._checkpoint = self._must_checkpoint(model, geometry)
        return model, geometry

    def _must_checkpoint(self, model: PreTrainedModel, geometry: Geometry) -> bool:
        """Whether layers run again on the way back, to keep less in memory."""
        from ratequant.capture import memory
        from ratequant.capture.placement import input_device, is_spread

        on_cpu = input_device(model).type == "cpu"
        if on_cpu and self._memory_limit is not None:
            memory.return_freed_memory()
        # A model too large for one device has activations that are, too.
        checkpoint = is_spread(model) or memory.needs_checkpoints(model, geometry, self._length, self._memory_limit)
        if on_cpu and checkpoint:
            memory.return_freed_memory()
        return checkpoint

    def _hello(
        self, model: PreTrainedModel, geometry: Geometry, ids: np.ndarray, digests: Future[dict[str, str]]
    ) -> None:
        from ratequant.capture.placement import compute_devices
        from ratequant.capture.provenance import device_name, software

        self._channel.note("hashing the model")
        self._channel.send(
            "hello",
            protocol=_PROTOCOL,
            geometry=vars(geometry),
            dtype=str(model.dtype).removeprefix("torch."),
            device=", ".join(dict.fromkeys(map(device_name, compute_devices(model)))),
            sequences=self._sequences,
            sequence_length=self._length,
            token_digest=digest.token_digest(ids),
            software=software(),
            **digests.result(),
        )

    def _capture(self, model: PreTrainedModel, geometry: Geometry, ids: np.ndarray) -> None:
        import torch

        from ratequant.capture.output_tap import OutputTap
        from ratequant.capture.placement import input_device
        from ratequant.capture.segment import Segment
        from ratequant.capture.sequence import capture_sequence

        self._channel.note("waiting for the worker's start")
        start = self._channel.receive("start")
        segment = Segment(*_start_fields(start), geometry, self._length, model.dtype, self._attention_output)
        slots = _Slots(self._channel, segment)
        output_tap = OutputTap(model) if self._attention_output else None
        with output_tap or contextlib.nullcontext():
            for sequence in range(self._sequences):
                self._channel.note(f"sequence {sequence + 1} of {self._sequences}")
                slots.sequence = sequence
                row = torch.from_numpy(ids[sequence]).long().to(input_device(model))
                loss = capture_sequence(model, geometry, row, slots.on_layer, self._checkpoint, output_tap)
                self._channel.send("sequence", sequence=sequence, loss_sum=loss.sum, loss_tokens=loss.tokens)


class _Slots:
    """Puts layers into free slots, waits for one when there is none."""

    def __init__(self, channel: Channel, segment: Segment) -> None:
        self.sequence = 0
        self._channel = channel
        self._segment = segment
        self._free = list(range(segment.slots))
        self._sent: set[int] = set()

    def on_layer(self, layer: int, *tensors: torch.Tensor, attention: AttentionParameters | None = None) -> None:
        slot = self._free.pop() if self._free else self._wait()
        self._segment.fill(slot, tensors)
        self._sent.add(slot)
        parameters = {} if attention is None else vars(attention)
        self._channel.send("layer", sequence=self.sequence, layer=layer, slot=slot, **parameters)

    def _wait(self) -> int:
        """The next slot that is released; only called while every slot is in use."""
        slot = self._channel.receive("release").get("slot")
        if slot not in self._sent:
            raise CaptureError(
                ENGINE_ERROR, f"the worker released slot {slot!r}, which is none of the {len(self._sent)} in use"
            )
        self._sent.remove(slot)
        return slot


def _digests(folder: Path) -> dict[str, str]:
    try:
        return {
            "model_digest": digest.model_digest(folder),
            "tokenizer_digest": digest.tokenizer_digest(folder),
        }
    except OSError as error:
        raise CaptureError(MODEL_UNREADABLE, f"can't read {error.filename}: {error.strerror}") from error


def _peaks() -> dict[str, int]:
    """What `done` says of memory."""
    from ratequant.capture.memory import peak_device_memory, peak_memory

    return {"peak_memory": peak_memory(), "peak_device_memory": peak_device_memory()}


def _start_fields(message: dict[str, Any]) -> tuple[str, int, int]:
    segment, slots, slot_bytes = (message.get(name) for name in ("segment", "slots", "slot_bytes"))
    if not isinstance(segment, str) or type(slots) is not int or type(slot_bytes) is not int:
        raise CaptureError(ENGINE_ERROR, f"the worker's start is incomplete: {message}")
    return segment, slots, slot_bytes


if __name__ == "__main__":
    main()
