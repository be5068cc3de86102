"""Plain text to the token sequences a model is calibrated and evaluated on.

Special tokens: none is added to the text, with one exception. Where the model's
tokenizer puts a begin-of-sequence token before a text by default (Llama 2 and 3,
Mistral and Gemma do; SmolLM2 and Qwen don't), every sequence begins with it, as it
does when the model serves: that token becomes the attention sink. An end-of-sequence
token is never added.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A long text is tokenized from its beginning, about as far as it is needed. Tokens
# this close to the cut could come out differently with the rest behind them.
_CHARACTERS_PER_TOKEN = 8
_CUT_MARGIN_TOKENS = 64


class TextError(ValueError):
    """A text that can't be used.

    Attributes:
      reason: TEXT_EMPTY or TEXT_TOO_SHORT, the stable name of what is wrong; empty when
        the file can't be read at all.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns the UTF-8 text in file `path`.

    Raises:
      TextError: no such file, not UTF-8, or nothing but white space (TEXT_EMPTY).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise TextError(f"can't read the text '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TextError(f"the text '{path}' is not UTF-8: byte {error.start}") from error
    if not text.strip():
        raise TextError(f"the text '{path}' is empty", reason="TEXT_EMPTY")
    return text


def load_tokenizer(model: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of Hugging Face folder `model`: local files only, no code from it.

    Raises:
      OSError, ValueError: what transformers says when it can't.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)


def encode_text(tokenizer: PreTrainedTokenizerBase | str | os.PathLike[str], text: str) -> list[int]:
    """Returns the token ids of the whole `text`, without any special token.

    Args:
      tokenizer: a tokenizer, or the model's folder to load it from.
    """
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = load_tokenizer(tokenizer)
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def sequence_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids every sequence begins with: the begin-of-sequence token, or nothing."""
    probe = "a"
    plain = tokenizer(probe, add_special_tokens=False)["input_ids"]
    whole = tokenizer(probe, add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return [token for token in whole[:start] if token == tokenizer.bos_token_id]
    return []


def token_sequences(
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike[str], text: str, sequences: int, length: int
) -> np.ndarray:
    """Cuts the beginning of `text` into `sequences` sequences of `length` tokens.

    The text's tokens follow on from one sequence to the next; a begin-of-sequence
    token (see above) is the first of each sequence's `length`.

    Args:
      tokenizer: a tokenizer, or the model's folder to load it from.

    Returns:
      int32 [sequences, length].

    Raises:
      TextError: the text is empty or has too few tokens.
    """
    if sequences < 1 or length < 2:
        raise ValueError(f"{sequences} sequences of {length} tokens; at least 1 of 2 is needed")
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = load_tokenizer(tokenizer)
    if not text.strip():
        raise TextError("the text is empty", reason="TEXT_EMPTY")
    prefix = sequence_prefix(tokenizer)
    own = length - len(prefix)
    ids = _first_tokens(tokenizer, text, sequences * own)
    if len(ids) < sequences * own:
        raise TextError(
            f"the text has {len(ids):,} tokens, {sequences} sequences of {length} need "
            f"{sequences * own:,}",
            reason="TEXT_TOO_SHORT",
        )
    rows = np.asarray(ids[: sequences * own], np.int32).reshape(sequences, own)
    return np.hstack([np.tile(np.asarray(prefix, np.int32), (sequences, 1)), rows])


def _first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, needed: int) -> list[int]:
    """At least the first `needed` tokens of `text`, or all it has."""
    characters = needed * _CHARACTERS_PER_TOKEN
    while characters < len(text):
        end = text.find("\n", characters) + 1
        ids = encode_text(tokenizer, text[: end or len(text)])
        if len(ids) >= needed + _CUT_MARGIN_TOKENS:
            return ids
        characters *= 2
    return encode_text(tokenizer, text)
