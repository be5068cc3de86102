#!/usr/bin/env python3
"""Decode attention on the CPU, through the runtime's C ABI: one new token of a
long sequence, all KV heads of a few layers.

What is compared runs in turns in this process, on the same number of threads;
layers are so many that none is in the CPU's caches when its turn comes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients/python"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "RATEQUANT_BIN_DIR" in os.environ:  # the build that is measured
    library = pathlib.Path(os.environ["RATEQUANT_BIN_DIR"]).parent / "lib/libratequant_kv.so"
    os.environ.setdefault("RATEQUANT_KV_LIBRARY", str(library))

import torch  # noqa: E402

from ratequant import runtime  # noqa: E402

PACKED_BYTES = 72 << 20  # of all layers: more than a last-level cache
MIXED = {6: [2, 6, 3, 5, 4, 4], 16: [2, 6, 3, 5, 4, 4, 5, 3] * 2}  # widths by groups of a layer, 4 on average


@dataclasses.dataclass(frozen=True)
class Model:
    """A layer's shape."""

    name: str
    kv_heads: int
    query_heads: int
    head_dim: int


MODELS = (Model("3 KV heads of 64 for 9", 3, 9, 64), Model("8 KV heads of 128 for 32", 8, 32, 128))


def view(tensor: torch.Tensor) -> runtime.TensorView:
    """[heads, rows, head_dim] fp32 for the runtime."""
    return runtime.TensorView(tensor.data_ptr(), runtime.FLOAT32, tensor.stride(0), tensor.stride(1))


class Packed:
    """A cache of `tokens` tokens, and one step of attention over it."""

    def __init__(self, model: Model, quantizers: list[str], width: list[int], keys, values, threads):
        layers, groups = len(keys), 2 * model.kv_heads
        self._cache = runtime.KvCache(
            runtime.CacheFormat(
                geometry=runtime.Geometry(layers, model.kv_heads, model.head_dim, model.query_heads),
                quantizers=[runtime.Quantizer.parse(name) for name in quantizers],
                quantizer_index=[i // 2 % len(quantizers) for i in range(groups)] * layers,
                width=width * layers,
            )
        )
        self.page_bytes = self._cache.page_bytes()
        self._on = runtime.Execution(threads=threads)
        sequence, tokens = self._cache.add_sequence(), keys[0].shape[1]
        for layer in range(layers):
            prefix = [view(tensor[:, :-1]) for tensor in (keys[layer], values[layer])]
            self._cache.append(sequence, layer, tokens - 1, *prefix, self._on)
        self._batch = self._cache.batch(1, 1)
        self._batch.prepare([(sequence, 1)], self._on)
        for layer in range(layers):
            last = [view(tensor[:, -1:]) for tensor in (keys[layer], values[layer])]
            self._batch.append(layer, *last, self._on)
        self._layers, self._scale = range(layers), model.head_dim**-0.5

    def attend(self, queries: torch.Tensor, out: torch.Tensor) -> None:
        """All layers. Queries and out are [query_heads, 1, head_dim]."""
        for layer in self._layers:
            self._batch.attend(layer, view(queries), view(out), softmax_scale=self._scale, on=self._on)


def in_turns(runs: int, *works: Callable[[], None]) -> list[list[float]]:
    """Seconds of each work in each of `runs` rounds, after one that doesn't count."""
    seconds = []
    for _ in range(runs + 1):
        row = []
        for work in works:
            start = time.perf_counter()
            work()
            row.append(time.perf_counter() - start)
        seconds.append(row)
    return seconds[1:]


def median_ratio(seconds: list[list[float]], of: int, to: int) -> float:
    """The median over rounds of one work's time over another's in the same round."""
    return statistics.median(row[of] / row[to] for row in seconds)


def report(row: str, measured: float, against: str, goal: str, met: bool | None, note: str) -> None:
    print(json.dumps({"row": row, "measured": measured, "unit": "x", "against": against, "goal": goal, "met": met, "note": note}))  # fmt: skip


def measure(model: Model, tokens: int, runs: int, threads: int) -> tuple[float, float, str]:
    """How many times torch's time attention takes the other way round, the worst
    ratio of a mixed map to a uniform one, and a note."""
    generator = torch.Generator().manual_seed(1)
    groups = 2 * model.kv_heads
    layers = -(-PACKED_BYTES // (tokens * groups * model.head_dim // 2))
    shape = (model.kv_heads, tokens, model.head_dim)
    keys = [torch.randn(shape, generator=generator) for _ in range(layers)]
    values = [torch.randn(shape, generator=generator) for _ in range(layers)]
    queries = torch.randn(model.query_heads, 1, model.head_dim, generator=generator)
    out = torch.empty_like(queries)
    # torch's fastest form: the query heads of a KV head are rows, so that K and V are read once.
    rows = queries.view(1, model.kv_heads, -1, model.head_dim)

    def dense() -> None:
        for k, v in zip(keys, values):
            torch.nn.functional.scaled_dot_product_attention(rows, k[None], v[None])

    pool, mixed_width = runtime.Threads(threads), MIXED[groups]
    mixed = Packed(model, ["turboquant", "kivi"], mixed_width, keys, values, pool)
    seconds = in_turns(runs, dense, lambda: mixed.attend(queries, out))
    speedup = median_ratio(seconds, 0, 1)
    milliseconds = statistics.median(row[1] for row in seconds) * 1e3 / layers
    del mixed

    worst, ratios = 0.0, []
    for name in ("turboquant", "kivi", "rtn"):
        caches = [Packed(model, [name], w, keys, values, pool) for w in (mixed_width, [4] * groups)]
        assert caches[0].page_bytes == caches[1].page_bytes
        ratio = median_ratio(in_turns(3 * runs, *[lambda c=c: c.attend(queries, out) for c in caches]), 0, 1)
        worst = max(worst, ratio)
        ratios.append(f"{name} {ratio:.3f}")
    return speedup, worst, f"{model.name}: {speedup:.2f}x, {milliseconds:.2f} ms a layer; mixed/uniform {', '.join(ratios)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="8k tokens")
    quick = parser.parse_args().quick
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    tokens, runs = (8192, 5) if quick else (32768, 15)
    measured = [measure(model, tokens, runs, threads) for model in MODELS]
    slowest, worst = min(m[0] for m in measured), max(m[1] for m in measured)
    where = f"{tokens} tokens, {threads} threads"
    report(
        "CPU decode attention, 4 bits", slowest, "torch SDPA on the fp32 cache", ">= 2x faster at 32k tokens",
        None if quick else slowest >= 2, f"{where}; " + "; ".join(m[2] for m in measured),
    )  # fmt: skip
    report(
        "CPU mixed map", worst, "uniform bits of the same bytes", "<= 1.03x",
        None if quick else worst <= 1.03, f"{where}, worst of turboquant, kivi, rtn at 2 to 6 bits against 4",
    )  # fmt: skip


if __name__ == "__main__":
    main()
