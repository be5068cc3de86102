"""Places and small models that the Python tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# Before torch is imported: threads that spin while they wait cripple tests on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference figures and data; tests that need them are skipped where they are missing."""
    folder = Path(os.environ.get("RATEQUANT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (RATEQUANT_SHARED)")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The demo's model folder, which deploy/local/setup makes."""
    folder = ROOT / "build" / "models" / "SmolLM2-135M-Instruct"
    if not (folder / ".complete").exists():
        pytest.skip(f"no model at {folder}; deploy/local/setup makes it")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama of random weights and a tokenizer; not to be changed."""
    from tiny_models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UTF-8 file with a few thousand tokens for the tiny model."""
    from tiny_models import TEXT

    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path
