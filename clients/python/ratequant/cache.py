"""A transformers cache whose K and V live in the runtime's packed bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from ratequant import attention
from ratequant.cache_format import check_model, format_of
from ratequant.cache_rows import DTYPES, Rows
from ratequant.runtime import CacheFormat, KvCache
from ratequant.v1 import bit_map_pb2


class RateQuantCache(Cache):
    """A KV cache that stores every head's K and V in the width and quantizer a
    bit map gives it, for `past_key_values` of any Hugging Face model:

        cache = RateQuantCache(client.get_bit_map(...), model.config)
        model.generate(**inputs, past_key_values=cache)

    Tokens are packed by the C++ runtime the moment they leave the window; the
    first `sink_tokens` and the newest `window` tokens stay in fp16. How they are
    read is the model's choice of attention:

    - `model.set_attn_implementation("ratequant")`: the runtime attends straight
      from the packed bytes. See `ratequant.attention`.
    - any other: `update` reads every older token back, [batch, kv_heads, tokens,
      head_dim] in the model's dtype, made anew for each layer and dropped after
      it. It appends first and reads then, so within a chunk longer than the
      window the oldest tokens are read packed.

    The runtime works in main memory; tensors on another device are copied there
    and back. One runtime sequence per row of the batch. Padding is stored like
    any other token unless attention is "ratequant". Sliding-window layers are
    stored whole.

    `copy.copy` and `copy.deepcopy` make another cache with the same tokens, which
    shares their pages until one of the two writes to one: a prompt's cache is
    used again without its cost. `batch_repeat_interleave`, `batch_select_indices`
    and beam search's `reorder_cache` share pages the same way.

    Not supported, each with an error that says so: pickling, offloading,
    gradients, and attention "ratequant" in layers of type chunked_attention. Not
    thread-safe, nor are copies among each other.
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
            pass that the bit map is for another model. Attention "ratequant"
            needs it.
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
            config = config.get_text_config(decoder=True)
            check_model(cache_format.geometry, config)
            geometry = dataclasses.replace(cache_format.geometry, query_heads=config.num_attention_heads)
            cache_format = dataclasses.replace(cache_format, geometry=geometry)
        rows = Rows(KvCache(cache_format))
        self._hold(rows, [RateQuantLayer(rows, layer, config) for layer in range(cache_format.geometry.layers)])

    @classmethod
    def from_bit_map(cls, bit_map, config: PretrainedConfig | None = None, **options) -> RateQuantCache:
        """The same as the constructor, for those who prefer it by name."""
        return cls(bit_map, config, **options)

    def _hold(self, rows: Rows, layers: list[RateQuantLayer]) -> None:
        self._rows = rows
        super().__init__(layers=layers)

    @property
    def format(self) -> CacheFormat:
        """What the cache stores."""
        return self._rows.cache.format

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends K and V of new tokens to a layer and returns all of its K and
        V, both [batch, kv_heads, tokens, head_dim], in their own dtypes. With
        attention "ratequant": returns the new ones, for that to append.

        Raises:
          ValueError: a shape that doesn't fit the bit map, or another batch size
            than before.
          TypeError: a dtype other than float32, float16, bfloat16.
          ratequant.runtime.KvRuntimeError: code "DATA_LOSS" for NaN, infinity or
            a magnitude above 65504, naming where.
        """
        if not 0 <= layer_idx < len(self.layers):
            raise ValueError(f"layer {layer_idx}: the bit map has {len(self.layers)} layers")
        return self.layers[layer_idx].update(key_states, value_states)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """-1: the cache grows without a limit (get_max_length in newer
        transformers)."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Drops the newest -tokens_to_remove tokens of every row: assisted
        generation takes rejected tokens back. Within the window nothing else
        changes; tokens that had left it stay packed. Further back, the tokens of
        the last page are read back and packed again when they leave the window.

        Raises:
          ValueError: a number above 0, or more tokens than there are.
        """
        length = self.get_seq_length()
        if not -length <= tokens_to_remove <= 0:
            raise ValueError(f"crop({tokens_to_remove}): the cache has {length} tokens; it takes -{length} to 0")
        if tokens_to_remove == 0:
            return
        self._rows.crop(length + tokens_to_remove, length)
        for layer in self.layers:
            layer.cropped(length + tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Makes row i what row beam_idx[i] was."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each row so many times."""
        self._select([row for row in range(len(self._rows.ids)) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows that `indices`, numbers or booleans, select."""
        if self._rows.ids:
            self._select(torch.arange(len(self._rows.ids))[indices.cpu()].tolist())

    def _select(self, rows: list[int]) -> None:
        self._rows.select(rows)
        for layer in self.layers:
            layer.resized(len(rows))

    def reset(self) -> None:
        """Forgets all tokens; the batch may have another size afterwards."""
        self._rows.clear()
        for layer in self.layers:
            layer.forget()

    def allocated_bytes(self) -> int:
        """Bytes the runtime has really allocated for the tokens in the cache,
        over all rows of the batch; pages that rows share count for each."""
        return sum(self._rows.cache.allocated_bytes(row) for row in self._rows.ids)

    def sequence_bytes(self, length: int) -> int:
        """Bytes that one row of `length` tokens counts for in a budget."""
        return self._rows.cache.sequence_bytes(length)

    def __copy__(self) -> RateQuantCache:
        rows = self._rows.fork()
        copy = object.__new__(type(self))
        copy._hold(rows, [layer.of(rows) for layer in self.layers])
        return copy

    def __deepcopy__(self, memo: dict) -> RateQuantCache:
        return self.__copy__()

    def __reduce__(self) -> NoReturn:
        _refuse("pickling a cache")


class RateQuantLayer(CacheLayerMixin):
    """One layer of a RateQuantCache. Its tokens are in the runtime: keys and
    values are always None."""

    is_compileable = False
    # Further back than the window a crop isn't without a trace.
    is_croppable = False
    is_sliding = False

    def __init__(self, rows: Rows, layer: int, config: PretrainedConfig | None):
        super().__init__()
        self._rows = rows
        self._layer = layer
        self._config = config
        types = getattr(config, "layer_types", None)
        self._type = types[layer] if types else "full_attention"
        self._length = 0
        # Whether update has handed tokens to attention "ratequant" that it hasn't taken.
        self._pending = False

    def of(self, rows: Rows) -> RateQuantLayer:
        """This layer of a copy of the cache."""
        copy = RateQuantLayer(rows, self._layer, self._config)
        copy.__dict__ |= self.__dict__ | {"_rows": rows}
        return copy

    def __repr__(self) -> str:
        return f"RateQuantLayer(layer={self._layer}, tokens={self._length})"

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Takes batch size, dtype and device from the first K and V."""
        self._check(key_states, value_states)
        self._rows.set_batch_size(len(key_states))
        self.batch_size = len(key_states)
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    @torch.compiler.disable
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See RateQuantCache.update."""
        self._check(key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._rows.set_batch_size(len(key_states))
        if self._config is not None and self._config._attn_implementation == attention.ATTENTION_NAME:
            if self._type == "chunked_attention":
                _refuse(f"layers of type {self._type} with attention '{attention.ATTENTION_NAME}'")
            if self._pending:
                raise RuntimeError(
                    f"layer {self._layer}: attention '{attention.ATTENTION_NAME}' wasn't called with what the last "
                    "update returned"
                )
            self._pending = True
            return attention.mark(key_states, self), value_states
        self._rows.append(self._layer, self._length, key_states, value_states)
        self._length += key_states.shape[2]
        keys, values = _room(key_states, self._length), _room(value_states, self._length)
        self._rows.gather(self._layer, self._length, keys, values)
        return keys.to(key_states.device), values.to(value_states.device)

    def attend(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        queries: torch.Tensor,
        mask: torch.Tensor | None,
        **params: float,
    ) -> torch.Tensor:
        """For `ratequant.attention`: see Rows.attend."""
        self._pending = False
        out = self._rows.attend(self._layer, self._length, key_states, value_states, queries, mask, **params)
        self._length += key_states.shape[2]
        return out

    def extend(
        self, key_states: torch.Tensor, value_states: torch.Tensor, real: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For `ratequant.attention`: appends the new tokens that are `real`, bool
        [batch, tokens], and returns K and V of all positions; the older ones read
        back, the new ones as they are given."""
        self._pending = False
        tokens, before = key_states.shape[2], self._length
        keys, values = key_states, value_states
        if before > 0:
            keys, values = _room(key_states, before + tokens), _room(value_states, before + tokens)
            self._rows.gather(self._layer, before, keys, values)
            for whole, states in ((keys, key_states), (values, value_states)):
                whole[:, :, before:] = states
        self._rows.append(self._layer, before, key_states, value_states, real)
        self._length += tokens
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

    # For RateQuantCache, once the runtime has done the same.

    def forget(self) -> None:
        """The layer is empty, and of no batch size."""
        self._length = 0
        self.is_initialized = self._pending = False
        if hasattr(self, "batch_size"):
            del self.batch_size

    def cropped(self, length: int) -> None:
        """The layer has so many tokens."""
        self._length = length

    def resized(self, batch_size: int) -> None:
        """The layer has so many rows."""
        if self.is_initialized:
            self.batch_size = batch_size

    # What only the whole cache can do.

    def crop(self, tokens_to_remove: int) -> None:
        """Refused."""
        _refuse("cropping one layer (crop the cache)")

    def reset(self) -> None:
        """Refused."""
        _refuse("resetting one layer (reset the cache)")

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Refused."""
        _refuse("reordering one layer (reorder the cache)")

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Refused."""
        _refuse("repeating rows of one layer (of the cache)")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Refused."""
        _refuse("selecting rows of one layer (of the cache)")

    def offload(self) -> None:
        """Refused."""
        _refuse("offloading")

    def prefetch(self) -> None:
        """Refused."""
        _refuse("offloading")

    def _check(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        geometry = self._rows.cache.format.geometry
        want = (geometry.kv_heads, geometry.head_dim)
        for name, states in (("keys", key_states), ("values", value_states)):
            shape = states.shape
            if len(shape) != 4 or (shape[1], shape[3]) != want:
                raise ValueError(
                    f"layer {self._layer}: {name} of shape {list(shape)}; the bit map is for "
                    f"[batch, {want[0]} KV heads, tokens, head_dim {want[1]}]"
                )
            if states.dtype not in DTYPES:
                supported = ", ".join(str(dtype) for dtype in DTYPES)
                raise TypeError(f"{name} of {states.dtype} aren't supported; supported are {supported}")
            if states.requires_grad and torch.is_grad_enabled():
                raise RuntimeError("packed bytes carry no gradients: run the model under torch.no_grad()")
        if key_states.shape != value_states.shape:
            raise ValueError(
                f"layer {self._layer}: keys of shape {list(key_states.shape)}, values of {list(value_states.shape)}"
            )


def _room(states: torch.Tensor, positions: int) -> torch.Tensor:
    """Main memory for so many positions of tensors like `states`."""
    batch, heads, _, head_dim = states.shape
    return torch.empty((batch, heads, positions, head_dim), dtype=states.dtype)


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"RateQuantCache doesn't support {what}")
