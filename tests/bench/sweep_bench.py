#!/usr/bin/env python3
"""The distortion sweep on the CPU against the same sweep in vectorised PyTorch.

Both measure all default quantizers but tcq at 1 to 8 bits on one layer's K and V, on
the same number of threads, in turns; their tables must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

SINKS, GROUP = 4, 32
WIDTHS = range(1, 9)


def half(x: torch.Tensor) -> torch.Tensor:
    """What is left of x in fp16."""
    return x.half().float()


def reciprocal(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, 0.0, 1 / scale)


def hadamard(dim: int) -> torch.Tensor:
    """The rotation of seed 0, [dim, dim]: H diag(signs) / sqrt(dim)."""
    rows = torch.ones(1, 1)
    while rows.shape[0] < dim:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    mask = 2**64 - 1
    signs = []
    for channel in range(dim):
        z = (channel // 64 + 1) * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        signs.append(1 - 2 * ((z ^ z >> 31) >> channel % 64 & 1))
    return rows * torch.tensor(signs) / dim**0.5


def uniform(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, width: int) -> torch.Tensor:
    """x on an asymmetric grid between low and high."""
    top = 2**width - 1
    scale, zero = half((high - low) / top), half(low)
    return zero + ((x - zero) * reciprocal(scale)).round().clamp(0, top) * scale


class TorchSweep:
    """The sums of DistortionTables, for tensors [heads, tokens, dim]."""

    def __init__(self, dim: int, codebooks: dict) -> None:
        self._rotation = hadamard(dim)
        self._codebooks = {int(w): {k: torch.tensor(v) for k, v in c.items()} for w, c in codebooks.items()}

    def __call__(self, x: torch.Tensor, y: torch.Tensor, is_key: bool) -> dict[str, list[tuple[torch.Tensor, ...]]]:
        dim = x.shape[2]
        rotated = x @ self._rotation.T
        norms = x.norm(dim=2, keepdim=True)
        unit = rotated * torch.where(norms == 0, 0.0, dim**0.5 / norms)
        groups = x.unflatten(1, (-1, GROUP)) if is_key else x.unflatten(2, (-1, GROUP))
        ranges = [groups.clone(), groups.clone()]
        if is_key:  # sinks are in no range
            ranges[0][:, 0, :SINKS], ranges[1][:, 0, :SINKS] = torch.inf, -torch.inf
        over = 2 if is_key else 3
        low, high = ranges[0].amin(over, keepdim=True), ranges[1].amax(over, keepdim=True)
        result: dict[str, list[tuple[torch.Tensor, ...]]] = {}
        for width in WIDTHS:
            decoded = {
                "rtn": self._symmetric(x, width),
                "kivi": uniform(groups, low, high, width).reshape(x.shape),
                "quarot": uniform(rotated, rotated.amin(2, keepdim=True), rotated.amax(2, keepdim=True), width)
                @ self._rotation,
                "turboquant": self._codebook(rotated, unit, norms, width, is_key) @ self._rotation,
            }
            for name, x_hat in decoded.items():
                e = (x_hat - x)[:, SINKS:]
                ye = y[:, SINKS:] * e
                sums = (e * e).mean((1, 2)), (ye * ye).sum(2).mean(1), ye.sum(2).square().mean(1)
                result.setdefault(name, []).append(sums)
        return result

    @staticmethod
    def _symmetric(x: torch.Tensor, width: int) -> torch.Tensor:
        top = x.abs().amax(2, keepdim=True)
        if width == 1:
            return torch.where(x >= 0, 1.0, -1.0) * half(top / 2)
        limit = 2 ** (width - 1) - 1
        scale = half(top / limit)
        return (x * reciprocal(scale)).round().clamp(-limit, limit) * scale

    def _codebook(self, rotated, unit, norms, width: int, is_key: bool) -> torch.Tensor:
        book = self._codebooks[width]
        units = book["units"][torch.bucketize(unit, book["thresholds"])]
        if is_key:
            return units * half(norms)
        return units * half(norms.square() / (rotated * units).sum(2, keepdim=True))


def worst_difference(ours: dict, theirs: dict[bool, dict]) -> float:
    """Between two sets of tables, relative."""
    worst = 0.0
    for is_key, tables in theirs.items():
        for name, sums in tables.items():
            for statistic in range(3):
                table = torch.stack([s[statistic] for s in sums], 1)  # [heads, widths]
                own = torch.tensor(ours[name][("mse", "c1", "c2")[statistic]]).view(-1, 2, len(WIDTHS))
                own = own[:, 0 if is_key else 1]
                worst = max(worst, float((table / own - 1).abs().max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one shape, smaller")
    quick = parser.parse_args().quick
    timer = pathlib.Path(os.environ.get("RATEQUANT_BIN_DIR", "build/bin")) / "sweep_timer"
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    ratios, notes = [], []
    for heads, tokens, dim in [(3, 1024, 64)] if quick else [(3, 4096, 64), (8, 2048, 128)]:
        data = torch.randn(4, heads, tokens, dim, generator=torch.Generator().manual_seed(1))
        with tempfile.NamedTemporaryFile() as file:
            file.write(data.numpy().tobytes())
            file.flush()
            command = [timer, file.name, *map(str, (heads, tokens, dim, threads, 5))]
            rounds = []
            for _ in range(4 if quick else 6):
                ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                sweep = TorchSweep(dim, ours["codebooks"])
                start = time.perf_counter()
                theirs = {is_key: sweep(*data[i : i + 2], is_key) for i, is_key in ((0, True), (2, False))}
                rounds.append(((time.perf_counter() - start) / ours["seconds"], ours["seconds"]))
        difference = worst_difference(ours, theirs)
        # Another order of additions moves a value over a rounding now and then.
        assert difference < 0.01, f"the tables differ by {difference:.2%}"
        ratio = statistics.median(r[0] for r in rounds[1:])
        ratios.append(ratio)
        seconds = statistics.median(r[1] for r in rounds[1:])
        notes.append(f"{heads} x {tokens} x {dim}: {ratio:.1f}x, {seconds * 1e3:.1f} ms, tables within {difference:.1e}")
    print(
        json.dumps(
            {
                "row": "CPU sweep",
                "measured": min(ratios),
                "unit": "x",
                "against": "the same sweep in PyTorch",
                "goal": ">= 10x faster",
                "met": None if quick else min(ratios) >= 10,
                "note": f"K and V, 4 quantizers x 8 widths, {threads} threads; " + "; ".join(notes),
            }
        )
    )


if __name__ == "__main__":
    main()
