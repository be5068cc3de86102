"""Reads a Hugging Face model folder, trusting nothing in it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_accelerate_available
from transformers.utils import logging as transformers_logging

from ratequant import text
from ratequant.capture.errors import (
    ENGINE_ERROR,
    MODEL_UNREADABLE,
    UNSUPPORTED_MODEL,
    CaptureError,
    is_out_of_memory,
)
from ratequant.capture.geometry import check_config
from ratequant.capture.placement import DeviceMap

_INDEX_NAME = "model.safetensors.index.json"
# A safetensors file begins with the length of its JSON header, which is at most this.
_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000


def _unreadable(message: str) -> CaptureError:
    return CaptureError(MODEL_UNREADABLE, message)


def default_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 on GPUs that compute with it, otherwise fp32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def load_model(
    folder: Path,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    device_map: DeviceMap | None = None,
) -> PreTrainedModel:
    """Loads the causal language model in `folder` for capture.

    Only config.json and safetensors files are read; code in the folder is never run,
    pickles are never opened, nothing is fetched. The model is in evaluation mode and its
    weights need no gradient.

    Args:
      folder: config.json and *.safetensors.
      device, dtype: `default_device()` and `default_dtype(device)` when None.
      device_map: spreads the weights instead of putting all on `device`; needs accelerate. What it puts into
        main memory beside a GPU, or leaves on disk, is brought for each use.

    Raises:
      CaptureError: MODEL_UNREADABLE, naming the file; UNSUPPORTED_MODEL, saying what was found.
    """
    device = device or default_device()
    if device_map is not None and not is_accelerate_available():
        raise CaptureError(ENGINE_ERROR, "spreading a model's weights by a device map needs the package accelerate")
    config = read_config(folder)
    check_config(config)
    model_class = _causal_lm_class(config)
    for path in weight_files(folder):
        check_safetensors(path)
    transformers_logging.disable_progress_bar()
    try:
        model, report = model_class.from_pretrained(
            str(folder),
            config=config,
            dtype=dtype or default_dtype(device),
            attn_implementation=_attention(model_class, config),
            device_map=device_map,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _unreadable(f"can't load the weights in {folder}: {_first_line(error)}") from error
    _check_complete(folder, report)
    if device_map is None:
        model = model.to(device)
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer in `folder`.

    Raises:
      CaptureError: MODEL_UNREADABLE, naming the file where one is broken.
    """
    for name in ("tokenizer_config.json", "tokenizer.json"):
        if (folder / name).exists():
            _read_json(folder / name)
    try:
        return text.load_tokenizer(folder)
    except Exception as error:
        raise _unreadable(f"can't load the tokenizer in {folder}: {_first_line(error)}") from error


def check_fits(config: PreTrainedConfig, tokens: int, largest_id: int) -> None:
    """Checks that the model can run over sequences of `tokens` ids up to `largest_id`.

    Raises:
      CaptureError: MODEL_UNREADABLE; the tokenizer isn't the model's. ENGINE_ERROR; the
        sequences are longer than the model's positions.
    """
    decoder = config.get_text_config(decoder=True)
    if largest_id >= decoder.vocab_size:
        raise _unreadable(
            f"the tokenizer gives token {largest_id}, the model's vocabulary ends at {decoder.vocab_size - 1}"
        )
    positions = getattr(decoder, "max_position_embeddings", None)
    if positions is not None and tokens > positions:
        raise CaptureError(
            ENGINE_ERROR, f"sequences of {tokens} tokens; the model has positions for {positions} at most"
        )


def read_config(folder: Path) -> PreTrainedConfig:
    """Reads config.json.

    Raises:
      CaptureError: MODEL_UNREADABLE when there is none or it isn't a configuration;
        UNSUPPORTED_MODEL for an architecture that transformers itself doesn't have.
    """
    path = folder / "config.json"
    content = _read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise _unreadable(f"{path} is not a model configuration: it has no \"model_type\"")
    kind = content["model_type"]
    if kind not in CONFIG_MAPPING:
        extra = "; the code in its folder is never run" if "auto_map" in content else ""
        raise CaptureError(
            UNSUPPORTED_MODEL, f"{path}: transformers has no model type '{kind}'{extra}"
        )
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _unreadable(f"{path} can't be used: {_first_line(error)}") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files the weights are in, sorted.

    Raises:
      CaptureError: MODEL_UNREADABLE; there are none, or the index names one that is missing.
    """
    index = folder / _INDEX_NAME
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if not index.is_file():
        others = sorted(p.name for p in folder.glob("*.bin"))
        hint = f" ({', '.join(others[:3])}: pickles are not read)" if others else ""
        raise _unreadable(f"{folder} has no model.safetensors and no {_INDEX_NAME}{hint}")
    content = _read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise _unreadable(f"{index} has no \"weight_map\"")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise _unreadable(f"{index} names {name!r}, which is not in {folder}")
    return [folder / name for name in names]


def check_safetensors(path: Path) -> None:
    """Compares a file's length with what its header says is in it.

    Raises:
      CaptureError: MODEL_UNREADABLE; truncated or not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        header_bytes = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if not 2 <= header_bytes <= _MAX_HEADER_BYTES:
            raise _unreadable(f"{path} ({size:,} bytes) is not a safetensors file")
        header = file.read(header_bytes)
    if len(header) < header_bytes:
        raise _unreadable(f"{path} is truncated: {size:,} bytes, its header alone has {header_bytes:,}")
    try:
        tensors = json.loads(header)
        ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
        needed = _LENGTH.size + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unreadable(f"{path} has a broken safetensors header: {_first_line(error)}") from error
    if size < needed:
        raise _unreadable(f"{path} is truncated: {size:,} bytes of {needed:,}")


def _causal_lm_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise CaptureError(
            UNSUPPORTED_MODEL, f"'{config.model_type}' is not a causal language model in transformers"
        )
    return model_class


def _attention(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str:
    """torch's fused attention, where the model's attention can be computed by it."""
    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    return "sdpa" if model_class._supports_sdpa and not capped else "eager"


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    """Weights that are not in the files would be random ones."""
    for key, what in (("missing_keys", "lack"), ("mismatched_keys", "have another shape for")):
        if names := sorted(map(str, report.get(key) or ())):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise _unreadable(f"the weights in {folder} {what} {names[0]}{more}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:  # Neither UTF-8 nor JSON.
        raise _unreadable(f"{path} is not JSON: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
