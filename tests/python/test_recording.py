"""`python -m ratequant capture record`: what is in the file, and that it is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ratequant.__main__ import main
from ratequant.capture import capture_sequence, load_model, probe_geometry
from ratequant.capture.capture_file import CaptureWriter
from ratequant.capture.digest import token_digest
from ratequant.capture.errors import CaptureError
from ratequant.capture.record import RecordOptions, record
from ratequant.text import token_sequences
from safetensors import safe_open
from tiny_models import ARCHITECTURES, save_tiny_model

SEQUENCES, LENGTH = 2, 24


def record_tiny(model: Path, text: Path, out: Path, gradients: bool = False) -> tuple[dict, dict[str, torch.Tensor]]:
    """Records `model` and returns the file's metadata and tensors."""
    record(RecordOptions(model, text, out, SEQUENCES, LENGTH, gradients))
    with safe_open(out, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}


def attention_inputs(folder: Path, text: Path) -> list[dict[int, torch.Tensor]]:
    """What attention of every layer hands to its output projection, [tokens, heads * head_dim]."""
    model = load_model(folder)
    outputs: dict[int, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("self_attn.o_proj", "attn.c_proj")):
            layer = int(name.split(".")[2])
            module.register_forward_pre_hook(
                lambda module, args, layer=layer: outputs.__setitem__(layer, args[0].detach()[0].float())
            )
    result = []
    for row in token_sequences(folder, text.read_text(), SEQUENCES, LENGTH):
        with torch.no_grad():
            model(input_ids=torch.from_numpy(row).long()[None], use_cache=False)
        result.append(dict(outputs))
    return result


def attention_by_hand(metadata: dict, tensors: dict[str, torch.Tensor], sequence: int, layer: int) -> np.ndarray:
    """Attention from the file alone, as CAPTURE.md says: [tokens, query_heads * head_dim]."""
    q, k, v = (tensors[f"sequence.{sequence}.layer.{layer}.{kind}"].double().numpy() for kind in ("query", "key", "value"))
    scale, cap, window = (
        float(metadata[name].split(",")[layer]) for name in ("softmax_scale", "soft_cap", "sliding_window")
    )
    out = np.zeros_like(q)
    for head in range(q.shape[0]):
        kv = head // (q.shape[0] // k.shape[0])
        for t in range(q.shape[1]):
            first = max(0, t - int(window) + 1) if window else 0
            scores = scale * k[kv, first : t + 1] @ q[head, t]
            scores = cap * np.tanh(scores / cap) if cap else scores
            weights = np.exp(scores - scores.max())
            out[head, t] = weights / weights.sum() @ v[kv, first : t + 1]
    return out.transpose(1, 0, 2).reshape(q.shape[1], -1)


@pytest.mark.parametrize("name", ["llama-gqa", "llama-mqa", "qwen3", "mistral-sliding", "gemma2", "gemma3", "gpt2"])
def test_attention_can_be_computed_from_the_file(name: str, tmp_path: Path, tiny_text: Path) -> None:
    kind, changes = ARCHITECTURES[name]
    folder = save_tiny_model(tmp_path / "model", kind, **changes)
    metadata, tensors = record_tiny(folder, tiny_text, tmp_path / "capture.safetensors")
    for sequence, layers in enumerate(attention_inputs(folder, tiny_text)):
        assert len(layers) == int(metadata["layers"])
        for layer, expected in layers.items():
            found = attention_by_hand(metadata, tensors, sequence, layer)
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_tensors_and_gradients_are_those_of_a_calibration(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    metadata, tensors = record_tiny(tiny_model, tiny_text, tmp_path / "c.safetensors", gradients=True)
    model = load_model(tiny_model)
    losses = [float(loss) for loss in metadata["loss_sum"].split(",")]
    seen = set()
    for sequence, row in enumerate(token_sequences(tiny_model, tiny_text.read_text(), SEQUENCES, LENGTH)):

        def on_layer(layer: int, *captured: torch.Tensor) -> None:
            for kind, tensor in zip(("key", "value", "key_gradient", "value_gradient"), captured, strict=True):
                name = f"sequence.{sequence}.layer.{layer}.{kind}"
                torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-6)
                seen.add(name)

        loss = capture_sequence(model, probe_geometry(model), torch.from_numpy(row).long(), on_layer)
        assert losses[sequence] == pytest.approx(loss.sum, rel=1e-5)
    assert seen == {name for name in tensors if not name.endswith(("query", "output_gradient"))}


def test_the_outputs_gradient_is_what_that_of_v_comes_from(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    metadata, tensors = record_tiny(tiny_model, tiny_text, tmp_path / "c.safetensors", gradients=True)
    hidden = torch.ones(LENGTH, LENGTH).triu(1).bool()
    for sequence in range(SEQUENCES):
        for layer in range(int(metadata["layers"])):
            key, query, output, value = (
                tensors[f"sequence.{sequence}.layer.{layer}.{kind}"]
                for kind in ("key", "query", "output_gradient", "value_gradient")
            )
            scores = query @ key.repeat_interleave(2, 0).transpose(1, 2) * 8**-0.5
            weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            expected = (weights.transpose(1, 2) @ output).view(2, 2, LENGTH, 8).sum(1)
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_metadata_says_what_was_recorded(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    metadata, tensors = record_tiny(tiny_model, tiny_text, tmp_path / "c.safetensors")
    ids = token_sequences(tiny_model, tiny_text.read_text(), SEQUENCES, LENGTH)
    expected = {
        "ratequant_capture": "1", "model": "model", "layers": "3", "kv_heads": "2", "query_heads": "4", "head_dim": "8",
        "sequences": str(SEQUENCES), "sequence_length": str(LENGTH), "dtype": "float32", "rope": "applied",
        "soft_cap": "0.0,0.0,0.0", "sliding_window": "0,0,0", "token_digest": token_digest(ids),
    }  # fmt: skip
    assert {name: metadata[name] for name in expected} == expected
    assert [float(scale) for scale in metadata["softmax_scale"].split(",")] == pytest.approx([8**-0.5] * 3)
    assert "loss_sum" not in metadata and f"torch {torch.__version__}" in metadata["software"]
    assert set(tensors) == {
        f"sequence.{s}.layer.{n}.{kind}" for s in range(SEQUENCES) for n in range(3) for kind in ("key", "value", "query")
    }


def test_attention_of_another_formula_is_refused(tmp_path: Path, tiny_text: Path) -> None:
    """gpt-oss has a learned sink in every head's softmax, which the runtime's attention doesn't."""
    folder = save_tiny_model(tmp_path / "model", "gpt_oss", num_local_experts=2, num_experts_per_tok=1)
    with pytest.raises(CaptureError, match=r"attention of layer 0 is .* off softmax"):
        record_tiny(folder, tiny_text, tmp_path / "c.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_model_is_left_as_it_was(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    """Two recordings in one process are the same file, byte for byte."""
    for name in ("a", "b"):
        record_tiny(tiny_model, tiny_text, tmp_path / name, gradients=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- The file is whole or not there --------------------------------------------------


def test_an_unfinished_file_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_text("old")
    with pytest.raises(ValueError, match="1 tensors are missing, b is the first"):
        with CaptureWriter(path, {"a": (2, 2), "b": (1,)}, torch.float32, 100) as writer:
            writer.write("a", torch.ones(2, 2))
            writer.finish({})
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"] and path.read_text() == "old"


@pytest.mark.parametrize("tensor", [torch.ones(3), torch.ones(2, 2, dtype=torch.float16)])
def test_a_tensor_that_was_not_announced_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with CaptureWriter(tmp_path / "c", {"a": (2, 2)}, torch.float32, 100) as writer:
        with pytest.raises(ValueError, match=r"not \[2, 2\] of torch.float32"):
            writer.write("a", tensor)
        writer.write("a", torch.ones(2, 2))
        with pytest.raises(KeyError, match="a isn't a tensor that is still missing"):
            writer.write("a", torch.ones(2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_writer_writes_what_safetensors_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"b": torch.randn(3, 5).to(dtype), "a": torch.randn(5, 2).to(dtype).T}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with CaptureWriter(tmp_path / "c", shapes, dtype, 200) as writer:
        for name in ("a", "b"):  # In another order than announced.
            writer.write(name, tensors[name])
        writer.finish({"model": "Zoë"})
    with safe_open(tmp_path / "c", "pt") as file:
        assert file.metadata() == {"model": "Zoë"}
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor)
    with (tmp_path / "c").open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        assert file.tell() % 8 == 0 and json.loads(header)["b"]["data_offsets"][0] == 0


def test_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torch.float64 can't be recorded; supported: torch.float32"):
        CaptureWriter(tmp_path / "c", {"a": (2,)}, torch.float64, 100)


# --- The command ---------------------------------------------------------------------


def command(model: Path, text: Path, out: Path, *more: str) -> int:
    return main(["capture", "record", "--model", str(model), "--text", str(text), "--out", str(out), *more])


def test_the_command_records(tiny_model: Path, tiny_text: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "c.safetensors"
    assert command(tiny_model, tiny_text, out, "--sequence-length", "16", "--model-name", "Me/Tiny") == 0
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size:,} bytes\n"
    with safe_open(out, "pt") as file:
        assert (file.metadata()["model"], file.metadata()["sequence_length"]) == ("Me--Tiny", "16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "none"}, "is not a folder"),
        ({"text": "none"}, "can't read the text"),
        ({"out": "no/such/folder/c"}, "its folder is missing or not writable"),
        ({"more": ("--sequences", "0")}, "0 sequences of 512 tokens; at least 1 of 2 is needed"),
        ({"more": ("--sequence-length", "100000")}, "the text has"),
        ({"more": ("--model-name", "a b")}, "'a b' isn't a model id"),
    ],
)
def test_bad_input_is_named(change: dict, message: str, tiny_model: Path, tiny_text: Path, tmp_path: Path, capsys) -> None:
    given = {"model": tiny_model, "text": tiny_text, "out": "c"} | change
    assert command(given["model"], given["text"], tmp_path / given["out"], *given.get("more", ())) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
