"""The prompts that generation is measured with."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from generation import CONTEXT_TOKENS, PASSKEYS, passkey_prompts
from inputs import model_folder


def test_every_prompt_has_its_passkey_twice_and_asks_for_it_at_the_end():
    if not model_folder().is_dir():
        pytest.skip(f"no model at {model_folder()}")
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    filler = " ".join(f"Sentence number {number} is about nothing." for number in range(2000))
    prompts, keys = passkey_prompts(tokenizer, filler)
    assert prompts.shape == (PASSKEYS, CONTEXT_TOKENS)
    assert len(set(keys)) == PASSKEYS
    depths = []
    for prompt, key in zip(prompts, keys, strict=True):
        text = tokenizer.decode(prompt)
        assert text.count(key) == 2 and text.endswith("The pass key is")
        depths.append(text.index(key) / len(text))
    assert depths == sorted(depths) and depths[0] < 0.02 and depths[-1] > 0.95
