"""Numbers with standard errors, and how they are written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from ratequant.report.axes import format_tick


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number with its standard error, None where none is known."""

    value: float
    stderr: float | None

    @classmethod
    def total(cls, parts: Iterable[Estimate]) -> Estimate:
        """The sum. Groups see the same sequences and err together, so their
        standard errors are added: the most that the sum's can be."""
        parts = list(parts)
        errors = [part.stderr for part in parts if part.stderr is not None]
        return cls(math.fsum(part.value for part in parts), math.fsum(errors) if len(errors) == len(parts) else None)

    def scaled(self, factor: float) -> Estimate:
        """The estimate times a number."""
        return Estimate(self.value * factor, None if self.stderr is None else self.stderr * factor)

    def differs(self, other: Estimate) -> bool:
        """Whether the two are more than two standard errors of their difference
        apart, as independent ones; always, where an error isn't known."""
        error = math.hypot(self.stderr or 0.0, other.stderr or 0.0)
        return abs(self.value - other.value) > 2 * error


def format_value(value: float) -> str:
    """Three significant digits."""
    return format_tick(float(f"{value:.3g}"))


def format_estimate(estimate: Estimate) -> str:
    """ "0.0123 ± 0.0045": two digits of the error, and the value as far as they
    reach; a power of ten of their own where both are small."""
    value, stderr = estimate.value, estimate.stderr
    if not stderr or not value:
        return format_value(value)
    exponent = math.floor(math.log10(abs(value)))
    if exponent >= -3:
        return _with_error(value, stderr)
    power = 10.0**exponent
    return f"({_with_error(value / power, stderr / power)})·{format_tick(power)}"


def _with_error(value: float, stderr: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"
