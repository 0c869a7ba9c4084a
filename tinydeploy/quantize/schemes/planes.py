"""What the schemes of bit planes share: signs with float coefficients become integers under one scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.forms import COEFFICIENT_MAX
from tinydeploy.quantize.schemes.base import Lowered, Scales

_ROOM = 2**29
"""What products may take of an accumulator, so that bias and products together stay below 2^30: the fastest
kernels carry twice the sum in an int32."""

_INPUT_REACH = 256
"""Largest input plus largest zero point, both of which multiply the sum of the coefficients."""


@dataclass(frozen=True)
class FittedPlanes:
    """Weights as `sum_i coefficients[i, output] * signs[i, output, :]`. See `Fitted`.

    The integer coefficients of one plane are all 1, and of several as large as sums of int8 inputs admit in
    an int32, and no larger than that all of them together are an int16, which kernels multiply two at a time.

    Attributes:
        signs: int8 (planes, outputs, products), each -1, 0 or +1.
        coefficients: float64 (planes, outputs).
    """

    signs: npt.NDArray[np.int8]
    coefficients: npt.NDArray[np.float64]

    @property
    def scales(self) -> Scales:
        result: Scales = np.abs(self.coefficients).max(axis=0) / self._largest
        return result

    @property
    def _largest(self) -> int:
        """Of the integer coefficients."""
        planes, _, products = self.signs.shape
        if planes == 1:
            return 1
        return max(min(_ROOM // (_INPUT_REACH * products), COEFFICIENT_MAX) // planes, 1)

    def lower(self, scales: Scales) -> Lowered:
        safe = np.where(scales > 0, scales, 1.0)
        whole = np.rint(self.coefficients / safe).clip(-self._largest, self._largest).astype(np.int16)
        rows = (self.signs * whole[:, :, None].astype(np.int32)).sum(axis=0, dtype=np.int32)
        return Lowered(rows, None, self.signs, whole)


def signs_of(x: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """+1 where x >= 0, else -1."""
    return np.where(x >= 0, 1, -1).astype(np.int8)
