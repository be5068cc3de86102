"""Losses in a folder, one file each, so that a long measurement can go on after
it was cut short."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np


class LossFolder(MutableMapping[str, np.ndarray]):
    """What `evaluate` takes as `known`. Nothing in it says which model and text
    the losses are of: use a folder for each."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, key: str) -> np.ndarray:
        try:
            return np.load(self._path(key))
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, losses: np.ndarray) -> None:
        partial = self._folder / f".{key}.npy"
        np.save(partial, losses)
        partial.replace(self._path(key))

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in self._folder.glob("[!.]*.npy"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npy"
