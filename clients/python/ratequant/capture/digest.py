"""What identifies a model, its tokenizer and the tokens it was calibrated on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def model_digest(folder: Path) -> str:
    """SHA-256, in hexadecimal, over name, size and content of config.json and *.safetensors."""
    return _files_digest(folder, [folder / "config.json", *folder.glob("*.safetensors")])


def tokenizer_digest(folder: Path) -> str:
    """The same over the tokenizer's files, those of the usual names that are there."""
    return _files_digest(folder, (folder / name for name in _TOKENIZER_FILES))


def token_digest(ids: np.ndarray) -> str:
    """SHA-256, in hexadecimal, of `ids` as little-endian int32, row by row."""
    return hashlib.sha256(np.ascontiguousarray(ids, dtype="<i4").tobytes()).hexdigest()


def _files_digest(folder: Path, paths: Iterable[Path]) -> str:
    present = sorted(path for path in paths if path.is_file())
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib lets other threads run.
        contents = list(pool.map(_file_sha256, present))
    whole = hashlib.sha256()
    for path, (size, digest) in zip(present, contents):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{size}\0{digest}\n".encode())
    return whole.hexdigest()


def _file_sha256(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
        return file.tell(), digest.hexdigest()
