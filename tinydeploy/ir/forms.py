"""How integers of fewer than eight bits are stored: four forms, to which every quantization scheme lowers.

A value's `data` always holds the logical integers, the weights as they take part in a sum; its form says how
the board stores them. So one integer engine serves all forms, and storage cannot change a result. The fourth
form is plain int8, a value without a form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

COEFFICIENT_MAX = 2**15 - 1
"""Largest coefficient of a bit plane, int16."""


@dataclass(frozen=True)
class Packed:
    """Integers of `bits` bits, 2 to 8, in [-2^(bits-1), 2^(bits-1) - 1].

    Of a constant: packed into bytes on the board. Of an activation: one byte each, within these limits.
    """

    bits: int

    @property
    def limits(self) -> tuple[int, int]:
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of so many elements without padding between them."""
        return -(-math.prod(shape) * self.bits // 8)


@dataclass(frozen=True)
class Codebook:
    """Indices of `bits` bits, 1 to 7, into one table of at most 2^bits int8 values.

    Attributes:
        table: ascending, without repetition.
    """

    bits: int
    table: tuple[int, ...]

    def indices(self, data: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The place of each element in the table, of the shape of `data`."""
        return np.searchsorted(np.array(self.table), data).astype(np.uint8)

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Indices and table."""
        return -(-math.prod(shape) * self.bits // 8) + len(self.table)


@dataclass(frozen=True, eq=False)
class Planes:
    """Weights as `sum_i coefficients[i, output] * signs[i]`: binary, ternary, several bases.

    Attributes:
        signs: int8 (planes, *shape of the weights), each -1, 0 or +1.
        coefficients: int16 (planes, outputs), relative to the weights' per-channel scale.
        axis: the axis of the weights that counts outputs.
    """

    signs: npt.NDArray[np.int8]
    coefficients: npt.NDArray[np.int16]
    axis: int

    @property
    def ternary(self) -> bool:
        """Whether a plane holds zeros, so that it takes two bits an element: present, and negative."""
        return bool((self.signs == 0).any())

    @property
    def bits(self) -> int:
        """Stored bits an element, all planes together."""
        return len(self.signs) * (2 if self.ternary else 1)

    def weights(self) -> npt.NDArray[np.int32]:
        """The logical integers, of the shape of the weights."""
        return self._sum(self.signs.astype(np.int32), self.coefficients.astype(np.int32))

    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Upper bound of what each weight adds to a sum of planes in any order, of the weights' shape."""
        return self._sum(np.abs(self.signs.astype(np.int64)), np.abs(self.coefficients.astype(np.int64)))

    def _sum(self, signs: npt.NDArray[Any], coefficients: npt.NDArray[Any]) -> npt.NDArray[Any]:
        outputs_last = np.moveaxis(signs, self.axis + 1, -1)
        spread = coefficients.reshape(len(signs), *(1,) * (outputs_last.ndim - 2), -1)
        total = (outputs_last * spread).sum(axis=0, dtype=signs.dtype)
        return np.ascontiguousarray(np.moveaxis(total, -1, self.axis))

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Planes, without padding between outputs, and int16 coefficients."""
        return -(-math.prod(shape) * self.bits // 8) + 2 * self.coefficients.size


@dataclass(frozen=True)
class Signs:
    """An activation whose elements are -1 or +1; convolutions over it pad with -1."""

    @property
    def limits(self) -> tuple[int, int]:
        return -1, 1


Form = Packed | Codebook | Planes | Signs
