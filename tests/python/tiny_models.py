"""Tiny randomly initialised models of the architectures that are supported, and a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    CONFIG_MAPPING,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 320
TOKENS = 24
WINDOW = 8  # Of sliding attention: smaller than TOKENS.

_BASE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
)  # fmt: skip

# Name of the case: model type and what differs from _BASE.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-gqa": ("llama", {}),
    "llama-mha": ("llama", dict(num_key_value_heads=4)),
    "llama-mqa": ("llama", dict(num_key_value_heads=1)),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", dict(head_dim=16)),
    "mistral-sliding": ("mistral", dict(sliding_window=WINDOW)),
    "gemma": ("gemma", dict(head_dim=16)),
    "gemma2": ("gemma2", dict(head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=16)),
    "gemma3": ("gemma3_text", dict(head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=16)),
    "phi3": ("phi3", dict(head_dim=None)),
    "gpt2": ("gpt2", dict(
        num_key_value_heads=None, head_dim=None, n_embd=32, n_layer=3, n_head=4, n_positions=4096,
        num_hidden_layers=None, num_attention_heads=None, hidden_size=None, max_position_embeddings=None,
    )),
}  # fmt: skip


def make_config(kind: str, **changes: Any):
    """A transformers configuration of model type `kind`; None leaves a field at its default."""
    fields = {name: value for name, value in {**_BASE, **changes}.items() if value is not None}
    return CONFIG_MAPPING[kind](**fields)


def make_model(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random fp32 model, ready for capture (as `load_model` returns it)."""
    torch.manual_seed(seed)
    config = make_config(kind, **changes)
    # Caps and learned sinks are what torch's fused attention doesn't have.
    eager = kind == "gpt_oss" or getattr(config, "attn_logit_softcapping", None) is not None
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager" if eager else "sdpa"
    )
    return model.eval().requires_grad_(False)


def random_ids(tokens: int = TOKENS, seed: int = 1) -> torch.Tensor:
    """int64 [tokens]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (tokens,), generator=generator)


_WORDS = "the quick brown fox jumps over a lazy dog while seven wizards mix potions".split()
TEXT = "".join(
    f"{_WORDS[n % 14]} {_WORDS[n * 5 % 13]} {n}{'.' if n % 7 else chr(10)}" + " " for n in range(600)
)


def make_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; with `bos` it puts "<s>" before a text by default."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_tiny_model(folder: Path, kind: str = "llama", bos: bool = False, **changes: Any) -> Path:
    """Saves a random model and a tokenizer as a Hugging Face folder and returns it."""
    make_model(kind, **changes).save_pretrained(folder)
    make_tokenizer(bos).save_pretrained(folder)
    return folder
