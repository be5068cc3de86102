"""A transformers cache whose K and V live in the runtime's packed bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from ratequant import runtime
from ratequant.cache_format import format_of
from ratequant.runtime import CacheFormat, Geometry, KvCache, TensorView
from ratequant.v1 import bit_map_pb2

_DTYPES = {torch.float32: runtime.FLOAT32, torch.float16: runtime.FLOAT16, torch.bfloat16: runtime.BFLOAT16}
# Layers whose K and V are kept whole; the attention mask does the rest.
_LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention")


class RateQuantCache(Cache):
    """A KV cache that stores every head's K and V in the width and quantizer a
    bit map gives it, for `past_key_values` of any Hugging Face model:

        cache = RateQuantCache(client.get_bit_map(...), model.config)
        model.generate(**inputs, past_key_values=cache)

    Tokens are packed by the C++ runtime the moment they leave the window, and
    `update` reads every older token back from the packed bytes; the first
    `sink_tokens` and the newest `window` tokens stay in fp16. What attention
    sees is [batch, kv_heads, tokens, head_dim] in the model's dtype, made anew
    for each layer and dropped after it. `update` appends first and reads then,
    so within a chunk longer than the window the oldest tokens are read packed.

    The runtime works in main memory; tensors on another device are copied there
    and back. One runtime sequence per row of the batch; padding tokens are
    stored like any others. Sliding-window layers are stored whole.

    Not supported, each with an error that says so: beam search, cropping other
    than crop(0), selecting or repeating rows, copying, offloading, gradients.

    Not thread-safe.
    """

    def __init__(
        self,
        bit_map: bit_map_pb2.BitMap | Mapping[str, Any] | CacheFormat,
        config: PretrainedConfig | None = None,
        *,
        page_tokens: int | None = None,
        sink_tokens: int | None = None,
        window: int | None = None,
    ):
        """
        Args:
          bit_map: see `format_of`; or a whole CacheFormat, which then decides
            everything.
          config: the model's, to find out here and not in the first forward
            pass that the bit map is for another model.
          page_tokens, sink_tokens, window: instead of the bit map's; see
            `format_of`.

        Raises:
          ValueError: the bit map isn't supported, or not made for `config`.
          ratequant.runtime.RuntimeLibraryError: the runtime can't be loaded.
        """
        if isinstance(bit_map, CacheFormat):
            cache_format = bit_map
        else:
            cache_format = format_of(bit_map, page_tokens=page_tokens, sink_tokens=sink_tokens, window=window)
        if config is not None:
            _check_model(cache_format.geometry, config)
        self._rows = _Rows(KvCache(cache_format))
        layers = [RateQuantLayer(self._rows, layer) for layer in range(cache_format.geometry.layers)]
        super().__init__(layers=layers)

    @classmethod
    def from_bit_map(cls, bit_map, config: PretrainedConfig | None = None, **options) -> RateQuantCache:
        """The same as the constructor, for those who prefer it by name."""
        return cls(bit_map, config, **options)

    @property
    def format(self) -> CacheFormat:
        """What the cache stores."""
        return self._rows.cache.format

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends K and V of new tokens to a layer and returns all of its K and
        V, both [batch, kv_heads, tokens, head_dim], in their own dtypes.

        Raises:
          ValueError: a shape that doesn't fit the bit map, or another batch size
            than before.
          TypeError: a dtype other than float32, float16, bfloat16.
          ratequant.runtime.KvRuntimeError: code "DATA_LOSS" for NaN, infinity or
            a magnitude above 65504, naming where.
        """
        if not 0 <= layer_idx < len(self.layers):
            raise ValueError(f"layer {layer_idx}: the bit map has {len(self.layers)} layers")
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """-1: the cache grows without a limit (get_max_length in newer
        transformers)."""
        return -1

    def reset(self) -> None:
        """Forgets all tokens; the batch may have another size afterwards."""
        self._rows.clear()
        for layer in self.layers:
            layer.forget()

    def allocated_bytes(self) -> int:
        """Bytes the runtime has really allocated for the tokens in the cache,
        over all rows of the batch."""
        return sum(self._rows.cache.allocated_bytes(row) for row in self._rows.ids)

    def sequence_bytes(self, length: int) -> int:
        """Bytes that one row of `length` tokens counts for in a budget."""
        return self._rows.cache.sequence_bytes(length)

    def __copy__(self) -> NoReturn:
        _refuse("copying a cache")

    def __deepcopy__(self, memo) -> NoReturn:
        _refuse("copying a cache")

    def __reduce__(self) -> NoReturn:
        _refuse("pickling a cache")


class RateQuantLayer(CacheLayerMixin):
    """One layer of a RateQuantCache. Its tokens are in the runtime: `keys` and
    `values` are always None."""

    is_compileable = False
    is_croppable = False
    is_sliding = False

    def __init__(self, rows: _Rows, layer: int):
        super().__init__()
        self._rows = rows
        self._layer = layer
        self._length = 0

    def __repr__(self) -> str:
        return f"RateQuantLayer(layer={self._layer}, tokens={self._length})"

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self._check(key_states, value_states)
        self._rows.set_batch_size(len(key_states))
        self.batch_size = len(key_states)
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See RateQuantCache.update."""
        self._check(key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._rows.set_batch_size(len(key_states))
        tokens = key_states.shape[2]
        self._rows.append(self._layer, tokens, _readable(key_states), _readable(value_states))
        self._length += tokens
        keys, values = self._empty_like(key_states), self._empty_like(value_states)
        self._rows.gather(self._layer, self._length, keys, values)
        return keys.to(key_states.device), values.to(value_states.device)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(tokens attention will see, position of the first): all of them."""
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens in this layer."""
        return self._length

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1

    def forget(self) -> None:
        """For RateQuantCache.reset, once the runtime has no more tokens."""
        self._length = 0
        self.is_initialized = False
        if hasattr(self, "batch_size"):
            del self.batch_size

    def crop(self, tokens_to_remove: int) -> None:
        """Only crop(0), which changes nothing: packed tokens can't be unpacked
        back into the window."""
        if tokens_to_remove != 0:
            _refuse(f"cropping ({tokens_to_remove} tokens; assisted generation needs it)")

    def reset(self) -> None:
        _refuse("resetting one layer (reset the cache)")

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        _refuse("beam search")

    def batch_repeat_interleave(self, repeats: int) -> None:
        _refuse("repeating rows")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        _refuse("selecting rows")

    def offload(self) -> None:
        _refuse("offloading")

    def prefetch(self) -> None:
        _refuse("offloading")

    def _check(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        geometry = self._rows.cache.format.geometry
        want = (geometry.kv_heads, geometry.head_dim)
        for name, states in (("keys", key_states), ("values", value_states)):
            shape = tuple(states.shape)
            if len(shape) != 4 or (shape[1], shape[3]) != want:
                raise ValueError(
                    f"layer {self._layer}: {name} of shape {list(shape)}; the bit map is for "
                    f"[batch, {want[0]} KV heads, tokens, head_dim {want[1]}]"
                )
            if states.dtype not in _DTYPES:
                supported = ", ".join(str(dtype) for dtype in _DTYPES)
                raise TypeError(f"{name} of {states.dtype} aren't supported; supported are {supported}")
            if states.requires_grad and torch.is_grad_enabled():
                raise RuntimeError("packed bytes carry no gradients: run the model under torch.no_grad()")
        if key_states.shape != value_states.shape:
            raise ValueError(
                f"layer {self._layer}: keys of shape {list(key_states.shape)}, values of {list(value_states.shape)}"
            )

    def _empty_like(self, states: torch.Tensor) -> torch.Tensor:
        batch, heads, _, head_dim = states.shape
        return torch.empty((batch, heads, self._length, head_dim), dtype=states.dtype)


class _Rows:
    """The runtime's cache with one sequence per row of the batch."""

    def __init__(self, cache: KvCache):
        self.cache = cache
        self.ids: list[int] = []
        self._torn = False

    def set_batch_size(self, size: int) -> None:
        """Sets it on first use; later ones must agree."""
        if not self.ids:
            self.ids = [self.cache.add_sequence() for _ in range(size)]
        if len(self.ids) != size:
            raise ValueError(f"a batch of {size}; the cache holds one of {len(self.ids)} (reset() empties it)")

    def append(self, layer: int, tokens: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if self._torn:
            raise RuntimeError("an earlier update failed for a part of the batch; reset() the cache")
        for row, sequence in enumerate(self.ids):
            try:
                self.cache.append(sequence, layer, tokens, _view(keys[row]), _view(values[row]))
            except runtime.KvRuntimeError as error:
                self._torn = row > 0
                if len(self.ids) > 1:
                    error.add_note(f"in row {row} of a batch of {len(self.ids)}")
                raise

    def gather(self, layer: int, tokens: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if tokens == 0:
            return  # torch gives no address for nothing
        for row, sequence in enumerate(self.ids):
            self.cache.gather(sequence, layer, 0, tokens, _view(keys[row]), _view(values[row]))

    def clear(self) -> None:
        for sequence in self.ids:
            self.cache.remove_sequence(sequence)
        self.ids = []
        self._torn = False


def _view(states: torch.Tensor) -> TensorView:
    """[kv_heads, tokens, head_dim] as the runtime sees it."""
    return TensorView(states.data_ptr(), _DTYPES[states.dtype], states.stride(0), states.stride(1))


def _readable(states: torch.Tensor) -> torch.Tensor:
    """The tensor itself where the runtime can read it in place, else a copy."""
    states = states.detach().cpu()
    head_dim = states.shape[3]
    # An axis of size 1 may have any stride.
    in_place = states.stride(3) == 1 and all(
        states.shape[axis] == 1 or states.stride(axis) >= head_dim for axis in (1, 2)
    )
    return states if in_place else states.contiguous()


def _check_model(geometry: Geometry, config: PretrainedConfig) -> None:
    """ValueError when the bit map's geometry isn't the model's."""
    text = config.get_text_config(decoder=True)
    kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    model = Geometry(text.num_hidden_layers, kv_heads, head_dim)
    if model != geometry:
        raise ValueError(
            f"the bit map is for {geometry.layers} layers, {geometry.kv_heads} KV heads and head_dim "
            f"{geometry.head_dim}; the model has {model.layers}, {model.kv_heads} and {model.head_dim}"
        )
    types = set(getattr(text, "layer_types", None) or ()) - set(_LAYER_TYPES)
    if types:
        raise ValueError(
            f"the model has layers of type {', '.join(sorted(types))}; supported are {', '.join(_LAYER_TYPES)}"
        )
    if "reuse" in (getattr(text, "kv_sharing_modes", None) or ()):
        raise ValueError("the model shares K and V between layers, which isn't supported")


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"RateQuantCache doesn't support {what}")
