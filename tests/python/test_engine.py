"""The capture engine as a process, against a worker that speaks its protocol."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from engine_worker import EngineRun
from ratequant.capture import capture_sequence, load_model, probe_geometry
from ratequant.text import token_sequences

SEQUENCES, LENGTH = 3, 32
# Both processes add up in the same order, on a machine with any number of cores.
THREADS = "2"


@pytest.fixture
def run(tiny_model: Path, tiny_text: Path):
    with EngineRun(tiny_model, tiny_text, SEQUENCES, LENGTH, OMP_NUM_THREADS=THREADS) as run:
        yield run


@pytest.fixture(scope="module")
def expected(tiny_model: Path, tiny_text: Path):
    """[(loss, {layer: tensors})] of every sequence, captured in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(int(THREADS))
    model = load_model(tiny_model)
    geometry = probe_geometry(model)
    captures = []
    for row in token_sequences(tiny_model, tiny_text.read_text(), SEQUENCES, LENGTH):
        layers = {}
        on_layer = lambda layer, *tensors: layers.update({layer: [t.cpu().clone() for t in tensors]})  # noqa: E731
        ids = torch.from_numpy(row).long().to(model.device)
        captures.append((capture_sequence(model, geometry, ids, on_layer), layers))
    torch.set_num_threads(threads)
    return captures


def test_hello_says_what_is_captured(run: EngineRun, tiny_model: Path, tiny_text: Path) -> None:
    hello = run.receive("hello")
    assert hello["protocol"] == 1
    assert hello["geometry"] == {"layers": 3, "kv_heads": 2, "query_heads": 4, "head_dim": 8}
    assert (hello["sequences"], hello["sequence_length"]) == (SEQUENCES, LENGTH)
    cuda = torch.cuda.is_available()
    assert hello["dtype"] == ("bfloat16" if cuda and torch.cuda.is_bf16_supported(False) else "float32")
    assert hello["device"] == (torch.cuda.get_device_name(0) if cuda else "cpu")
    assert f"torch {torch.__version__}" in hello["software"]
    ids = token_sequences(tiny_model, tiny_text.read_text(), SEQUENCES, LENGTH)
    assert hello["token_digest"] == hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()
    assert hello["model_digest"] == digest_by_hand(tiny_model, ["config.json", "model.safetensors"])
    assert hello["tokenizer_digest"] == digest_by_hand(tiny_model, ["tokenizer.json", "tokenizer_config.json"])


def digest_by_hand(folder: Path, names: list[str]) -> str:
    whole = b""
    for name in names:
        content = (folder / name).read_bytes()
        whole += f"{name}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}\n".encode()
    return hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_tensors_arrive_bit_for_bit(run: EngineRun, expected, slots: int) -> None:
    run.start(run.receive("hello"), slots)
    for sequence, (loss, layers) in enumerate(expected):
        seen = set()
        for _ in layers:
            message = run.receive("layer")
            assert message["sequence"] == sequence and message["layer"] not in seen
            seen.add(message["layer"])
            for captured, arrived in zip(layers[message["layer"]], run.read_slot(message["slot"]), strict=True):
                assert torch.equal(captured, arrived)
            run.send("release", slot=message["slot"])
        message = run.receive("sequence")
        assert message == {"type": "sequence", "sequence": sequence, "loss_sum": loss.sum, "loss_tokens": LENGTH - 1}
    run.receive("done")
    assert run.next_message() is None and run.wait() == 0


def test_a_slot_is_left_alone_until_it_is_released(run: EngineRun) -> None:
    run.start(run.receive("hello"), 2)
    taken = [run.receive("layer")["slot"] for _ in range(2)]
    before = [run.read_slot(slot) for slot in taken]
    assert sorted(taken) == [0, 1]
    # The engine has no slot left: all it says, for seconds, is that it lives.
    for _ in range(2):
        message = run.next_message()
        assert message == {"type": "heartbeat", "note": f"sequence 1 of {SEQUENCES}"}
    for slot, tensors in zip(taken, before):
        assert all(torch.equal(a, b) for a, b in zip(tensors, run.read_slot(slot)))
    run.send("release", slot=taken[1])
    assert run.receive("layer")["slot"] == taken[1]


def test_unknown_fields_are_ignored(run: EngineRun) -> None:
    hello = run.receive("hello")
    run.start(hello | {"colour": "red"}, 4)
    for _ in range(3):
        run.send("release", slot=run.receive("layer")["slot"], colour="red")
    run.receive("sequence")


def test_what_libraries_print_does_not_reach_the_worker(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Noise:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print('printed noise', flush=True)\n"
        "            os.write(1, b'written noise\\n')\n"
        "sys.meta_path.insert(0, Noise())\n"
    )
    with EngineRun(tiny_model, tiny_text, 1, LENGTH, PYTHONPATH=str(tmp_path)) as run:
        run.receive("hello")
        assert "printed noise" in run.read_log() and "written noise" in run.read_log()


def test_the_engine_ends_when_its_input_closes_before_start(run: EngineRun) -> None:
    run.receive("hello")
    run.process.stdin.close()
    assert run.wait() == 0


def test_the_engine_ends_when_its_input_closes_in_a_backward_pass(run: EngineRun) -> None:
    run.start(run.receive("hello"), 1)
    run.receive("layer")  # It waits for the slot now, inside autograd.
    run.process.stdin.close()
    assert run.wait() == 0


def test_the_engine_ends_when_its_input_closes_while_it_loads(run: EngineRun) -> None:
    run.process.stdin.close()
    assert run.wait() == 0


def test_begin_of_sequence_token_of_the_model_is_used(tiny_text: Path, tmp_path: Path) -> None:
    from tiny_models import save_tiny_model

    folder = save_tiny_model(tmp_path / "model", kind="mistral", bos=True, sliding_window=8)
    ids = token_sequences(folder, tiny_text.read_text(), 2, LENGTH)
    assert (ids[:, 0] == 1).all()
    with EngineRun(folder, tiny_text, 2, LENGTH) as run:
        hello = run.receive("hello")
        assert hello["token_digest"] == hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()
        run.start(hello, 4)
        tensors = run.read_slot(run.receive("layer")["slot"])
        assert tensors[0].shape == (2, LENGTH, 8)  # All tokens, not the window's.
        assert (tensors[0].abs().amax(-1) > 0).all()

