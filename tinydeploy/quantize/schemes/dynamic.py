"""The range of a layer's weights, from the least to the greatest, in evenly spaced levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.quantize.schemes.base import Rows
from tinydeploy.quantize.schemes.codebook import FittedCodebook

_TABLE_MAX = 127


@dataclass(frozen=True)
class MinMaxRange:
    """`wq = round((2^b - 1) (w - min) / (max - min))`, back to the range; min and max of the whole layer.

    Integers of one sign with a zero point at one side have no kernel, so the levels become the table of a
    codebook: what they are rounded by is at most 1/254 of the largest weight. Batch normalization that is
    folded afterwards multiplies each output's scale and leaves the indices.

    Attributes:
        bits: 2 to 7.
    """

    bits: int = 4

    per_tensor = False

    @property
    def name(self) -> str:
        return f"dynamic:{self.bits}"

    def levels(self, rows: Rows) -> Rows:
        """Each weight at its level."""
        low, high = float(rows.min()), float(rows.max())
        steps = (1 << self.bits) - 1
        if low == high:
            return rows
        whole: Rows = np.floor(steps * (rows - low) / (high - low) + 0.5) / steps * (high - low) + low
        return whole

    def fit(self, rows: Rows) -> FittedCodebook:
        low, high = float(rows.min()), float(rows.max())
        reach = max(abs(low), abs(high))
        if reach == 0.0:
            return FittedCodebook(self.bits, rows, (0,), np.zeros(len(rows)))
        table = np.unique(np.rint(np.linspace(low, high, 1 << self.bits) / reach * _TABLE_MAX)).astype(int)
        return FittedCodebook(
            self.bits, rows, tuple(int(t) for t in table), np.full(len(rows), reach / _TABLE_MAX)
        )
