"""Models that can't be captured are refused, and the message says what was found."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from ratequant.capture import CaptureError, load_model, probe_geometry
from ratequant.capture.geometry import check_config
from ratequant.capture.loading import check_fits, load_tokenizer
from tiny_models import make_config, make_model
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def refusal(reason: str, function, *args) -> str:
    with pytest.raises(CaptureError) as caught:
        function(*args)
    assert caught.value.reason == reason
    return caught.value.message


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- Architectures --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "found"),
    [
        ("t5", {}, "'t5' is an encoder-decoder"),
        ("bart", {}, "'bart' is an encoder-decoder"),
        ("qwen3_next", {}, "'linear_attention'"),
        ("jamba", {}, "'linear_attention'"),
        ("falcon_h1", {}, "'hybrid'"),
        ("gemma3n_text", {"activation_sparsity_pattern": [0.0] * 3, "num_kv_shared_layers": 1}, "1 layers of 'gemma3n_"),
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized"),
    ],
)  # fmt: skip
def test_configuration_is_refused(kind: str, changes: dict, found: str) -> None:
    assert found in refusal("UNSUPPORTED_MODEL", check_config, make_config(kind, **changes))


def test_layers_of_different_kv_heads_are_refused() -> None:
    model = make_model("llama")
    model.model.layers[1] = LlamaDecoderLayer(make_config("llama", num_key_value_heads=4), 1)
    message = refusal("UNSUPPORTED_MODEL", probe_geometry, model)
    assert "layer 0 has kv_heads 2, head_dim 8; layer 1 has kv_heads 4, head_dim 8" in message


def test_layers_of_different_head_dim_are_refused() -> None:
    model = make_model("llama", attn_implementation="eager")
    config = make_config("llama", head_dim=16, attn_implementation="eager")
    block = LlamaDecoderLayer(config, 2)
    # Its rotary table is the model's, for head_dim 8: rotate nothing in this layer.
    block.self_attn.forward = _unrotated(block.self_attn)
    model.model.layers[2] = block
    message = refusal("UNSUPPORTED_MODEL", probe_geometry, model)
    assert "layer 2 has kv_heads 2, head_dim 16" in message


def _unrotated(attention):
    def forward(hidden_states, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, attention.head_dim)
        keys, values = (p(hidden_states).view(shape).transpose(1, 2) for p in (attention.k_proj, attention.v_proj))
        past_key_values.update(keys, values, attention.layer_idx)
        return hidden_states, None

    return forward


def test_head_dim_of_keys_and_values_has_to_agree() -> None:
    model = make_model("llama")
    attention = model.model.layers[1].self_attn

    def forward(hidden_states, past_key_values=None, **kwargs):
        tokens = hidden_states.shape[1]
        past_key_values.update(torch.zeros(1, 2, tokens, 24), torch.zeros(1, 2, tokens, 16), 1)

    attention.forward = forward
    message = refusal("UNSUPPORTED_MODEL", probe_geometry, model)
    assert "layer 1 has head_dim 24 for K and 16 for V" in message


def test_a_layer_without_keys_and_values_is_refused() -> None:
    model = make_model("llama")
    model.model.layers[1].self_attn.forward = lambda hidden_states, **kwargs: (hidden_states, None)
    message = refusal("UNSUPPORTED_MODEL", probe_geometry, model)
    assert "2 of 3 layers of 'llama' keep K and V of their own (not 1)" in message


def test_state_other_than_keys_and_values_is_refused() -> None:
    model = make_model("llama")

    def forward(hidden_states, past_key_values=None, **kwargs):
        past_key_values.update_recurrent_state(hidden_states, 1)

    model.model.layers[1].self_attn.forward = forward
    assert "layer 1 keeps a recurrent state" in refusal("UNSUPPORTED_MODEL", probe_geometry, model)


def test_a_model_without_a_cache_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(make_config("rwkv", attention_hidden_size=32))
    assert "doesn't take a key-value cache" in refusal("UNSUPPORTED_MODEL", probe_geometry, model)


def test_unknown_model_type_is_refused_and_its_code_not_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    code = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    change_config(folder, model_type="homemade", auto_map=code)
    message = refusal("UNSUPPORTED_MODEL", load_model, folder)
    assert "no model type 'homemade'" in message and "never run" in message
    assert not ran.exists()


def test_code_beside_a_known_model_type_is_not_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    code = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    change_config(folder, auto_map=code)
    assert type(load_model(folder)).__name__ == "LlamaForCausalLM"
    assert not ran.exists()


def test_a_model_that_is_not_a_language_model_is_refused(folder: Path) -> None:
    change_config(folder, model_type="vit")
    assert "'vit' is not a causal language model" in refusal("UNSUPPORTED_MODEL", load_model, folder)


# --- Files ------------------------------------------------------------------------------


def test_loaded_model_is_ready_for_capture(folder: Path) -> None:
    model = load_model(folder, torch.device("cpu"))
    assert model.dtype == torch.float32 and not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_sharded_weights_are_read(folder: Path) -> None:
    whole = load_model(folder)
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for (name, a), (_, b) in zip(whole.state_dict().items(), load_model(folder).state_dict().items()):
        assert torch.equal(a, b), name


def test_missing_shard_is_named(folder: Path) -> None:
    whole = load_model(folder)
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="40KB")
    lost = sorted(folder.glob("model-*.safetensors"))[1]
    lost.unlink()
    assert lost.name in refusal("MODEL_UNREADABLE", load_model, folder)


@pytest.mark.parametrize("kept", [0, 5, 200, -1], ids=["empty", "length", "header", "last-byte"])
def test_truncated_weights_are_named(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    message = refusal("MODEL_UNREADABLE", load_model, folder)
    assert str(path) in message
    assert "truncated" in message or "is not a safetensors file" in message
    if kept == -1:
        assert f"{len(content) - 1:,} bytes of {len(content):,}" in message


def test_broken_header_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 16) + b"{not json at all" + b"\0" * 64)
    message = refusal("MODEL_UNREADABLE", load_model, folder)
    assert str(path) in message and "broken safetensors header" in message


def test_pickled_weights_are_not_read(folder: Path) -> None:
    model = load_model(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin: pickles are not read" in refusal("MODEL_UNREADABLE", load_model, folder)


def test_weights_that_are_not_in_the_file_are_an_error(folder: Path) -> None:
    change_config(folder, num_hidden_layers=4)
    assert "lack model.layers.3." in refusal("MODEL_UNREADABLE", load_model, folder)


def test_weights_of_another_shape_are_an_error(folder: Path) -> None:
    change_config(folder, intermediate_size=64)
    assert str(folder) in refusal("MODEL_UNREADABLE", load_model, folder)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "can't read"),
        ("{", "is not JSON"),
        ("[]", "no \"model_type\""),
        ("{}", "no \"model_type\""),
        ('{"model_type": "llama", "num_hidden_layers": "many"}', "can't be used"),
    ],
)
def test_unreadable_configuration_is_named(folder: Path, content: str | None, found: str) -> None:
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    message = refusal("MODEL_UNREADABLE", load_model, folder)
    assert str(path) in message and found in message


def test_missing_tokenizer_is_an_error(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert f"can't load the tokenizer in {folder}" in refusal("MODEL_UNREADABLE", load_tokenizer, folder)


def test_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    assert str(folder / "tokenizer.json") in refusal("MODEL_UNREADABLE", load_tokenizer, folder)


def test_tokenizer_of_another_model_is_an_error() -> None:
    config = make_config("llama")
    check_fits(config, tokens=4096, largest_id=319)
    message = refusal("MODEL_UNREADABLE", check_fits, config, 32, 320)
    assert "token 320" in message and "ends at 319" in message


def test_sequences_longer_than_the_positions_are_an_error() -> None:
    message = refusal("ENGINE_ERROR", check_fits, make_config("llama"), 4097, 5)
    assert "4097" in message and "4096 at most" in message
