"""The second model can be made and used like any other."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from second_model import VOCABULARY, make_model


def test_a_trained_folder_is_a_model_like_any_other(tmp_path):
    text = "".join(f"Line {number} of a text with {number % 7} different endings.\n" for number in range(600))
    folder = tmp_path / "model"
    make_model(folder, text, steps=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "qwen3"
    ids = tokenizer("Line 1 of a text", return_tensors="pt")["input_ids"]
    assert ids.max() < VOCABULARY and tokenizer.decode(ids[0]) == "Line 1 of a text"
    with torch.inference_mode():
        assert torch.isfinite(model(input_ids=ids).logits).all()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    make_model(folder, text, steps=3)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
