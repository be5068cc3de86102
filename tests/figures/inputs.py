"""The data and reference values the figures are made from."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from wikitext import detokenize

ROOT = Path(__file__).resolve().parents[2]
# The reference's calibration: [8, 256] tokens of the validation text.
REFERENCE_SEQUENCES, REFERENCE_LENGTH = 8, 256


def shared_folder() -> Path:
    """Where data and reference values lie; may be missing."""
    return Path(os.environ.get("RATEQUANT_SHARED", ROOT.parent / "shared"))


def model_folder() -> Path:
    """The model that deploy/local/setup makes; may be missing."""
    return ROOT / "build" / "models" / "SmolLM2-135M-Instruct"


@dataclasses.dataclass(frozen=True)
class ReferenceResult:
    """One perplexity of the reference, without sinks and window.

    Attributes:
      quantizer: as text, with the parameters the reference used.
      widths: bits in this project's group order.
    """

    quantizer: str
    code_bits: float
    strategy: str
    perplexity: float
    widths: tuple[int, ...]


# The reference's turboquant stores the L2 norm for K and V.
_QUANTIZERS = {"kivi": "kivi", "quarot": "quarot", "turbo": "turboquant:value_scale=l2"}


def reference_results() -> list[ReferenceResult]:
    """The reference's perplexities on `reference_tokens`."""
    data = json.loads((shared_folder() / "reference" / "reference.json").read_text())
    return [
        ReferenceResult(
            _QUANTIZERS[entry["quantizer"]],
            entry["code_bits"],
            entry["strategy"],
            entry["perplexity"],
            _group_order(entry["bits"]),
        )
        for entry in data["perplexity_no_sinks_no_window"]
        if entry["slice"] == "A"
    ]


def _group_order(bits: list[int]) -> tuple[int, ...]:
    """From all K groups, then all V groups, to K and V of each head in turn."""
    half = len(bits) // 2
    return tuple(width for pair in zip(bits[:half], bits[half:], strict=True) for width in pair)


def reference_tokens() -> np.ndarray:
    """The [6, 512] token ids the reference scored."""
    return np.load(shared_folder() / "reference" / "tokens.npz")["A"].astype(np.int32)


def write_text(name: str, folder: Path) -> Path:
    """Writes a part of WikiText-2 ("valid" or "test-head") as plain text."""
    source = shared_folder() / "data" / "wikitext-2" / f"{name}.txt"
    path = folder / f"wikitext-2-{name}.txt"
    path.write_text(detokenize(source.read_text(encoding="utf-8")), encoding="utf-8")
    return path
