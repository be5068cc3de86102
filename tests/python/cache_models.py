"""Small models of random weights whose attention looks at something, and what a cache for them needs."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

LAYERS, HEADS, DIM = 2, 2, 16
GROUPS = LAYERS * HEADS * 2
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": HEADS,
    "head_dim": DIM,
    "max_position_embeddings": 512,
}


def make_model(config_class=LlamaConfig, **changes) -> PreTrainedModel:
    torch.manual_seed(1)
    # Larger weights than by default: attention that looks at something.
    config = config_class(**(SHAPE | {"initializer_range": 0.2} | changes))
    return AutoModelForCausalLM.from_config(config).eval()


def bit_map(bits=4, quantizer="rtn", **changes) -> dict:
    parts = {
        "geometry": {"layers": LAYERS, "kv_heads": HEADS, "head_dim": DIM},
        "quantizers": [quantizer],
        "quantizer_index": [0] * GROUPS,
        "width": [bits] * GROUPS,
        "sink_tokens": 4,
        "window": 32,
    }
    return parts | changes


def prompt(batch=1, tokens=50) -> torch.Tensor:
    return torch.randint(0, 96, (batch, tokens), generator=torch.Generator().manual_seed(3))


def states(batch=1, tokens=10, dtype=torch.float32, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, HEADS, tokens, DIM), generator=generator).to(dtype)


def generate(model, ids, cache, **options) -> torch.Tensor:
    defaults = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 30,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    return model.generate(ids, past_key_values=cache, **(defaults | options))


@torch.inference_mode()
def streamed_logits(model, ids, cache, chunk=32) -> torch.Tensor:
    pieces = [model(input_ids=piece, past_key_values=cache).logits for piece in ids.split(chunk, dim=1)]
    return torch.cat(pieces, dim=1)
