"""The real numbers that the integers of an activation stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.analysis.bits import stored_bits
from tinydeploy.ir.types import Array, Value


@dataclass(frozen=True)
class Grid:
    """The reals `scale (k - zero)` for the integers k in [0, levels).

    Attributes:
        bits: that an element takes.
    """

    scale: float
    zero: int
    levels: int
    bits: int

    @staticmethod
    def of(value: Value) -> Grid:
        """Of an integer activation; k is 0 for the least integer that it can hold."""
        low, high = value.limits
        return Grid(value.quant.scale, value.quant.zero_point - low, high - low + 1, stored_bits(value))

    def index(self, x: Array) -> Array:
        """The integers nearest to `x`, int32, saturated."""
        k = np.rint(x.astype(np.float64) / self.scale) + self.zero
        inside: Array = np.clip(k, 0, self.levels - 1)
        return inside.astype(np.int32)

    def real(self, k: Array) -> Array:
        result: Array = ((k - self.zero) * self.scale).astype(np.float32)
        return result
