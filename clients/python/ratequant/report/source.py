"""What a report shows: an evaluation's rows, and what is behind them."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from ratequant.client import Client
from ratequant.evaluate.bundle import Bundle
from ratequant.evaluate.map_source import ANY, MapSource
from ratequant.quantizer import parse_quantizer
from ratequant.report.content import MOST_MAPS
from ratequant.v1 import bit_map_pb2

_REQUIRED = {
    "model": str,
    "text": str,
    "quantizer": str,
    "strategy": str,
    "code_bits": (int, float),
    "effective_bits": (int, float),
    "bytes_per_token": (int, float),
    "tokens": int,
    "perplexity": (int, float),
    "nll_diff_to_uniform": (int, float, type(None)),
    "nll_diff_stderr": (int, float, type(None)),
}
_FOR_AN_ALLOCATOR = ("calibration", "budget_kind", "budget", "sinks", "window", "context_tokens")


def read_json(path: str | os.PathLike) -> Any:
    """A file's JSON value.

    Raises:
      ValueError: it isn't JSON.
      OSError: it can't be read.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' isn't JSON: {error}") from error


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows `evaluate --json` wrote.

    Raises:
      ValueError: the file isn't such a list; names what is wrong.
      OSError: it can't be read.
    """
    return check_rows(read_json(path), path)


def check_rows(rows: Any, path: str | os.PathLike) -> list[dict]:
    """Rows from a file's JSON, unchanged.

    Raises:
      ValueError: they aren't what `evaluate --json` writes.
    """
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"'{path}' isn't a list of rows that `evaluate --json` wrote")
    for number, row in enumerate(rows):
        for key, kind in _REQUIRED.items():
            if not isinstance(row.get(key, ...), kind):
                raise ValueError(f"'{path}': row {number} has no valid '{key}'")
        if not row["perplexity"] > 0:
            raise ValueError(f"'{path}': row {number} has perplexity {row['perplexity']}; it must be above 0")
    return rows


def shown_maps(rows: list[dict], bit_maps: dict[str, bit_map_pb2.BitMap]) -> list[tuple[dict, bit_map_pb2.BitMap]]:
    """The rows whose maps are drawn, cheapest first: across quantizers when
    there are any, else those of single quantizers."""
    chosen, seen = [], set()
    for row in _rows_to_show(rows):
        bit_map = bit_maps.get(row.get("bit_map", ""))
        if bit_map is not None and bit_map.name not in seen:
            seen.add(bit_map.name)
            chosen.append((row, bit_map))
    return chosen[:MOST_MAPS]


def map_label(row: dict) -> str:
    """What a row's map is called: "3 effective bits, across quantizers"."""
    name = "across quantizers" if row["quantizer"] == ANY else row["quantizer"]
    kind = row.get("budget_kind", "effective_bits")
    return f"{row.get('budget', row['effective_bits']):g} {kind.replace('_', ' ')}, {name}"


def _rows_to_show(rows: list[dict]) -> list[dict]:
    allocated = [row for row in rows if row["strategy"] == "loss-projected"]
    across = [row for row in allocated if row["quantizer"] == ANY]
    fallback = allocated or [row for row in rows if row["strategy"] != "fp32"]
    return sorted(across or fallback, key=lambda row: row["effective_bits"])


def fetch_bundle(client: Client, rows: list[dict]) -> Bundle:
    """Asks an allocator for what the rows were made from. Answers to the same
    request are the same bytes, so these are the maps that were measured.

    Raises:
      ValueError: the rows don't say what to ask for.
      RateQuantError: the allocator failed, or no longer has the calibration.
    """
    shown = _rows_to_show(rows)
    if not shown or not all(key in row for row in shown for key in _FOR_AN_ALLOCATOR):
        raise ValueError(f"the rows don't have {', '.join(_FOR_AN_ALLOCATOR)}; only `evaluate` writes them")
    first = shown[0]
    names = dict.fromkeys(row["quantizer"] for row in rows if row["strategy"] != "fp32" and row["quantizer"] != ANY)
    quantizers = tuple(name for name in names if parse_quantizer(name))
    source = MapSource(
        client, first["model"], first["calibration"], quantizers, first["sinks"], first["window"], first["context_tokens"]
    )  # fmt: skip
    maps = {}
    for row in shown:
        bit_map = source.bit_map(row["quantizer"], row["strategy"], row["budget_kind"], row["budget"])
        maps[bit_map.name] = bit_map
    return Bundle(source.full_calibration(), maps, source.curves())
