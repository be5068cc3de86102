"""Texts become token sequences, with the model's begin-of-sequence token where it has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ratequant.text import TextError, encode_text, read_text, sequence_prefix, token_sequences
from tiny_models import TEXT, make_tokenizer


def test_tokens_follow_on_without_special_tokens() -> None:
    tokenizer = make_tokenizer(bos=False)
    ids = token_sequences(tokenizer, TEXT, 3, 32)
    assert ids.dtype == np.int32 and ids.shape == (3, 32)
    assert ids.ravel().tolist() == encode_text(tokenizer, TEXT)[:96]
    assert sequence_prefix(tokenizer) == [] and not np.isin(ids, [0, 1, 2]).any()


def test_begin_of_sequence_token_is_first_of_every_sequence() -> None:
    tokenizer = make_tokenizer(bos=True)
    ids = token_sequences(tokenizer, TEXT, 3, 32)
    assert ids.shape == (3, 32) and (ids[:, 0] == tokenizer.bos_token_id).all()
    assert ids[:, 1:].ravel().tolist() == encode_text(tokenizer, TEXT)[:93]
    assert not (ids == tokenizer.eos_token_id).any()


def test_a_folder_serves_as_tokenizer(tiny_model: Path) -> None:
    expected = token_sequences(make_tokenizer(bos=False), TEXT, 2, 16)
    assert np.array_equal(token_sequences(tiny_model, TEXT, 2, 16), expected)


def test_a_long_text_gives_the_same_tokens_as_its_beginning() -> None:
    tokenizer = make_tokenizer(bos=False)
    many = token_sequences(tokenizer, TEXT * 200, 4, 64)
    assert np.array_equal(many, token_sequences(tokenizer, TEXT, 4, 64))


def test_too_short_a_text_says_how_many_tokens_it_has_and_needs() -> None:
    tokenizer = make_tokenizer(bos=True)
    text = TEXT[:100]
    have = len(encode_text(tokenizer, text))
    with pytest.raises(TextError, match=f"has {have} tokens, 4 sequences of 64 need 252") as caught:
        token_sequences(tokenizer, text, 4, 64)
    assert caught.value.reason == "TEXT_TOO_SHORT"


def test_exactly_enough_tokens_are_enough() -> None:
    tokenizer = make_tokenizer(bos=False)
    text = TEXT[:100]
    ids = encode_text(tokenizer, text)
    assert token_sequences(tokenizer, text, 1, len(ids)).tolist() == [ids]
    with pytest.raises(TextError):
        token_sequences(tokenizer, text, 1, len(ids) + 1)


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_empty_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(TextError, match="is empty") as caught:
        read_text(path)
    assert caught.value.reason == "TEXT_EMPTY"


def test_text_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"abc\xff")
    with pytest.raises(TextError, match="not UTF-8: byte 3"):
        read_text(path)


def test_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="nowhere.txt.*No such file"):
        read_text(tmp_path / "nowhere.txt")
