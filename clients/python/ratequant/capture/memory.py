"""What a capture takes in the memory of the model's device, and what that device has."""

from __future__ import annotations

import ctypes
import dataclasses
from pathlib import Path

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import PreTrainedModel

from ratequant.capture.cache import TapCache
from ratequant.capture.errors import ENGINE_OUT_OF_MEMORY, CaptureError
from ratequant.capture.geometry import Geometry
from ratequant.capture.placement import input_device

_PROBE_TOKENS = 16
# What a pass takes beside what is counted: results of operations that autograd doesn't keep, and what an
# allocator can't give back at once.
_TRANSIENT_BYTES = 64 << 20
# Activations of one layer that runs again, its gradients, and both once more while operations work on them.
_LAYER_COPIES = 3
# Of the memory that is free, how much a pass may count on.
_FREE_SHARE = 0.8
# glibc: blocks of this size are the system's own again when they are freed.
_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 128 << 10


@dataclasses.dataclass(frozen=True)
class PassMemory:
    """Bytes that forward and backward of one sequence take beside the weights, at their highest.

    Attributes:
      kept: with the activations of all layers kept.
      checkpointed: with the layers' inputs kept and one layer's activations at a time.
    """

    kept: int
    checkpointed: int


def measure_pass(model: PreTrainedModel, geometry: Geometry, tokens: int) -> PassMemory:
    """What `tokens` tokens will take: counted on two short passes, and scaled.

    Every tensor that autograd keeps grows with the tokens or (attention that isn't fused) with their square;
    two lengths tell both.
    """
    short, long = (_kept_bytes(model, geometry, _PROBE_TOKENS * n) for n in (1, 2))
    square = max(long - 2 * short, 0) / (2 * _PROBE_TOKENS**2)
    activations = (short / _PROBE_TOKENS - square * _PROBE_TOKENS) * tokens + square * tokens**2
    config = model.config.get_text_config(decoder=True)
    logits = tokens * config.vocab_size * model.dtype.itemsize
    inputs = geometry.layers * tokens * config.hidden_size * model.dtype.itemsize
    layer = _LAYER_COPIES * activations / geometry.layers
    return PassMemory(
        kept=int(activations + layer + logits + _TRANSIENT_BYTES),
        checkpointed=int(inputs + layer + logits + _TRANSIENT_BYTES),
    )


def needs_checkpoints(model: PreTrainedModel, geometry: Geometry, tokens: int, limit: int | None) -> bool:
    """Whether layers have to run again on the way back, for a pass over `tokens` tokens to fit.

    Args:
      model: on one device.
      limit: bytes that this process may have on that device, the weights included; None: what is free now.

    Raises:
      CaptureError: ENGINE_OUT_OF_MEMORY; not even then does it fit into `limit`.
    """
    device = input_device(model)
    used, free = used_memory(device), free_memory(device)
    memory = measure_pass(model, geometry, tokens)
    if limit is None:
        return memory.kept > _FREE_SHARE * free
    if used + memory.checkpointed > limit:
        raise CaptureError(
            ENGINE_OUT_OF_MEMORY,
            f"the model takes {_mebibytes(used)} and a sequence {_mebibytes(memory.checkpointed)} beside it, more than "
            f"--memory-limit {_mebibytes(limit)}: use shorter sequences or a larger limit",
        )
    return used + memory.kept > limit


def return_freed_memory() -> None:
    """Makes the C library give tensors' main memory back when they are freed, instead of keeping it for others
    of other sizes; costs some time, and bounds what a pass takes at its highest by what it uses."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def used_memory(device: torch.device) -> int:
    """Bytes this process has on `device`; of main memory what is resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _kibibytes(Path("/proc/self/status"), "VmRSS")


def peak_memory() -> int:
    """The most bytes of main memory that this process has had resident."""
    return _kibibytes(Path("/proc/self/status"), "VmHWM")


def peak_device_memory() -> int:
    """The most bytes that tensors have had on GPUs, each at its own highest."""
    if not torch.cuda.is_available():
        return 0
    return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))


def free_memory(device: torch.device) -> int:
    """Bytes that `device` can still give to this process."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(_kibibytes(Path("/proc/meminfo"), "MemAvailable"), _group_memory(Path("/sys/fs/cgroup")))


def _kept_bytes(model: PreTrainedModel, geometry: Geometry, tokens: int) -> int:
    """Bytes that autograd would keep after a forward pass, the weights left out, each memory once. Nothing is kept."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    # While there is a weak reference, no other storage gets the same number.
    seen: list[StorageWeakRef] = []

    def let_go(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in sizes:
            seen.append(StorageWeakRef(storage))
            sizes[storage._cdata] = storage.nbytes()

    def on_update(layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(t if t.requires_grad else t.detach().requires_grad_() for t in (keys, values))

    ids = torch.arange(tokens, device=input_device(model))[None] % model.config.get_text_config().vocab_size
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(let_go, lambda nothing: nothing):
        logits = model(input_ids=ids, past_key_values=TapCache(on_update), use_cache=True).logits
    # Counted on their own, whether or not something keeps them.
    sizes.pop(logits.untyped_storage()._cdata, None)
    return sum(sizes.values())


def _kibibytes(file: Path, name: str) -> int:
    """Bytes of a line like "VmRSS:  1234 kB"."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"{file} has no {name}")


def _group_memory(folder: Path) -> int:
    """What the control group of a container has left; a lot where it has no limit."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        return int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # No such group, or "max".
        return 1 << 62


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
