"""What a capture will take, told before it is made, and decided by it."""

from __future__ import annotations

import argparse

import pytest
import torch
from ratequant.capture import CaptureError, capture_sequence, probe_geometry
from ratequant.capture.memory import free_memory, measure_pass, needs_checkpoints, used_memory
from ratequant.size import memory_size
from tiny_models import make_model, random_ids

TOKENS = 96
CPU = torch.device("cpu")


def kept_bytes(model, checkpoint: bool) -> int:
    """Bytes that autograd keeps of a whole capture, each memory once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        capture_sequence(model, probe_geometry(model), random_ids(TOKENS), lambda *given: None, checkpoint)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("llama", 0.01), ("gemma2", 0.1)], ids=["fused attention", "quadratic attention"]
)
def test_short_passes_tell_what_a_long_one_keeps(kind: str, tolerance: float) -> None:
    models = [make_model(kind, num_hidden_layers=layers) for layers in (4, 12)]
    told = [measure_pass(model, probe_geometry(model), TOKENS) for model in models]
    kept = [kept_bytes(model, checkpoint=False) for model in models]
    # What eight layers more keep; what is added for one layer and as a reserve is in both.
    assert told[1].kept - told[0].kept == pytest.approx(kept[1] - kept[0], rel=tolerance)


def test_layers_run_again_only_where_it_takes_that() -> None:
    model = make_model("llama", num_hidden_layers=200)
    geometry = probe_geometry(model)
    need = measure_pass(model, geometry, 1024)
    assert need.kept > 2 * need.checkpointed
    used = used_memory(CPU)
    # Far from both needs: other tests' memory comes and goes.
    assert not needs_checkpoints(model, geometry, 1024, used + 2 * need.kept)
    assert needs_checkpoints(model, geometry, 1024, used + (need.kept + need.checkpointed) // 2)
    with pytest.raises(CaptureError, match="a sequence .* more than --memory-limit 1 MiB") as caught:
        needs_checkpoints(model, geometry, 1024, 1 << 20)
    assert caught.value.reason == "ENGINE_OUT_OF_MEMORY"


def test_without_a_limit_what_is_free_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    geometry = probe_geometry(model)
    assert 1 << 20 < free_memory(CPU) < 1 << 50
    assert not needs_checkpoints(model, geometry, 32, None)
    monkeypatch.setattr("ratequant.capture.memory.free_memory", lambda device: 1 << 20)
    assert needs_checkpoints(model, geometry, 32, None)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("4096", 4096), ("512KiB", 1 << 19), ("1.5GiB", 3 << 29), ("2 TiB", 2 << 40)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.1", "-1GiB", "8GB", "GiB", "1e9", "9" * 16, "nan"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no size; use a number and KiB"):
        memory_size(text)
