"""The configurations an evaluation compares, and their bit maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ratequant.errors import RateQuantError
from ratequant.evaluate.map_source import ANY, MapSource
from ratequant.evaluate.options import BASELINE, EvaluateOptions
from ratequant.v1 import bit_map_pb2

# Answers that say "there is no such map", and not that something is wrong.
_NO_SUCH_MAP = {
    "BUDGET_BELOW_MINIMUM",
    "BUDGET_ABOVE_MAXIMUM",
    "BUDGET_NEEDS_ONE_QUANTIZER",
    "OBJECTIVE_NEEDS_ONE_QUANTIZER",
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One query: a quantizer (or "any" of the compared ones), a strategy and a
    budget of kind "code_bits" or "effective_bits"."""

    quantizer: str
    strategy: str
    budget_kind: str
    budget: float

    @property
    def uniform(self) -> Configuration:
        """What this one's difference is taken to: uniform at the same budget."""
        return dataclasses.replace(self, strategy="uniform")

    @property
    def query(self) -> str:
        """Quantizer and budget, for people."""
        return f"{self.quantizer} at {self.budget:g} {self.budget_kind.replace('_', ' ')}"

    def __str__(self) -> str:
        return f"{self.query}, {self.strategy}"


def configurations(options: EvaluateOptions) -> list[Configuration]:
    """All configurations in the order of the rows: first the code widths of
    every quantizer, then "any" beside every quantizer at each number of
    effective bits. Uniform is always among them; "paper", which knows one
    quantizer's curve only, isn't among those of "any"."""
    strategies = ["uniform"] + [s for s in options.strategies if s not in ("uniform", BASELINE)]
    by_code_bits = [
        Configuration(quantizer, strategy, "code_bits", bits)
        for quantizer in options.quantizers
        for bits in options.code_bits
        for strategy in strategies
    ]
    by_effective_bits = [
        Configuration(quantizer, strategy, "effective_bits", bits)
        for bits in options.effective_bits
        for quantizer in (ANY, *options.quantizers)
        for strategy in strategies
        if not (quantizer == ANY and strategy == "paper")
    ]
    return by_code_bits + by_effective_bits


@dataclasses.dataclass
class Maps:
    """Bit maps by configuration, and why the others have none."""

    maps: dict[Configuration, bit_map_pb2.BitMap]
    skipped: dict[Configuration, str]

    @property
    def distinct(self) -> dict[str, bit_map_pb2.BitMap]:
        """Every different map once, by resource name."""
        return {bit_map.name: bit_map for bit_map in self.maps.values()}


def fetch_maps(
    source: MapSource,
    wanted: list[Configuration],
    report: Callable[[str], None] = lambda text: None,
) -> Maps:
    """Asks the allocator for the map of every configuration. `report` is told
    once for each quantizer and budget why there is none.

    Raises:
      RateQuantError: the allocator failed, or has no map for any of them.
    """
    found = Maps({}, {})
    told = set()
    last_error = None
    for configuration in wanted:
        try:
            found.maps[configuration] = source.bit_map(*dataclasses.astuple(configuration))
        except RateQuantError as error:
            if error.reason not in _NO_SUCH_MAP:
                raise
            last_error = error
            found.skipped[configuration] = error.message
            line = f"no map for {configuration.query}: {error.message}"
            if line not in told:
                told.add(line)
                report(line)
    if not found.maps and last_error is not None:
        raise last_error
    return found
