"""Weights on several devices, in main memory or on disk, as a device map says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_worker import EngineRun
from ratequant.capture import CaptureError, capture_sequence, load_model, probe_geometry
from ratequant.capture.placement import compute_devices, input_device, is_spread, read_device_map
from tiny_models import random_ids

LENGTH = 32
# The layers of the tiny model, its ends in main memory.
SPREAD = {
    "model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu",
    "model.layers.2": "disk", "model.norm": "cpu", "lm_head": "cpu",
}  # fmt: skip


def captured(folder: Path, device_map, checkpoint: bool):
    """(model, loss, tensors of all layers) on the CPU."""
    model = load_model(folder, torch.device("cpu"), torch.float32, device_map)
    tensors: list[torch.Tensor] = []
    loss = capture_sequence(
        model,
        probe_geometry(model),
        random_ids(),
        lambda layer, *given: tensors.extend(t.clone() for t in given),
        checkpoint,
    )
    return model, loss, tensors


def tensors_equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("device_map", [SPREAD, {"": "disk"}], ids=["some on disk", "all on disk"])
def test_weights_on_disk_give_the_same_bits_and_go_back(tiny_model: Path, device_map: dict[str, str]) -> None:
    _, expected_loss, expected = captured(tiny_model, None, checkpoint=False)
    model, loss, tensors = captured(tiny_model, device_map, checkpoint=True)
    assert loss == expected_loss and tensors_equal(tensors, expected)
    assert is_spread(model) and input_device(model) == torch.device("cpu")
    # After a capture, what is on disk is only there.
    for name, parameter in model.named_parameters():
        module = next(key for key in device_map if name.startswith(key))
        assert parameter.is_meta == (device_map[module] == "disk"), name


def test_an_automatic_map_puts_a_small_model_on_one_device(tiny_model: Path) -> None:
    model = load_model(tiny_model, device_map="auto")
    assert not is_spread(model) and len(compute_devices(model)) == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_what_one_gives(tiny_model: Path) -> None:
    halves = {name: int(name.endswith(("2", "norm", "lm_head"))) for name in SPREAD}
    gradients = []
    for device_map in ({"": 0}, halves):
        model = load_model(tiny_model, dtype=torch.float32, device_map=device_map)
        gradients.append([])
        ids = random_ids().to(input_device(model))
        take = lambda layer, *given: gradients[-1].extend(t.cpu() for t in given)  # noqa: E731
        capture_sequence(model, probe_geometry(model), ids, take, checkpoint=True)
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_the_engine_takes_a_map(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(SPREAD))
    launcher = ["-m", "ratequant.capture.engine", "--device-map", str(path)]
    with EngineRun(tiny_model, tiny_text, 1, LENGTH, launcher=launcher) as run:
        run.start(run.receive("hello"), 4)
        assert sorted(run.receive("layer")["layer"] for _ in range(3)) == [0, 1, 2]
        assert run.receive("sequence")["loss_sum"] > 0
        run.receive("done")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "is none of auto, balanced, balanced_low_0, sequential, and no file"),
        ("{", "is not JSON"),
        ("[1]", "holds no map"),
        ("{}", "holds no map"),
        ('{"": "tpu"}', "puts '' on 'tpu'; use a GPU's number"),
        ('{"model": -1}', "puts 'model' on -1"),
        ('{"model": true}', "puts 'model' on True"),
        ('{"model": 99}', f"on GPU 99; there are {torch.cuda.device_count()}"),
    ],
)
def test_a_map_that_is_none_is_named(tmp_path: Path, content: str | None, found: str) -> None:
    path = tmp_path / "map.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CaptureError, match="--device-map: ") as caught:
        read_device_map(str(path))
    assert found in caught.value.message
