"""Several binary bases a layer: weights as a sum of sign patterns with coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.quantize.schemes.base import Rows
from tinydeploy.quantize.schemes.planes import FittedPlanes, signs_of

_RIDGE = 1e-9
"""Keeps the normal equations solvable where two bases are equal."""


def offsets(count: int) -> npt.NDArray[np.float64]:
    """u_i, spread evenly over [-1, 1]; 0 for one base."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1)


def bases(
    rows: Rows, mean: npt.ArrayLike, deviation: npt.ArrayLike, u: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """`B_i = sign(W - mean(W) + u_i std(W))`: int8 (bases, *shape of rows).

    Args:
        mean, deviation: of the weights; they broadcast against `rows`.
    """
    shift = u.reshape(-1, *(1,) * rows.ndim) * np.asarray(deviation)
    return signs_of(rows - np.asarray(mean) + shift)


def coefficients(rows: Rows, signs: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Of the least squares `sum_i alpha_i B_i = W`, output by output: (bases, outputs)."""
    b = signs.astype(np.float64)
    gram = np.einsum("iop,jop->oij", b, b) + _RIDGE * rows.shape[1] * np.eye(len(b))
    right = np.einsum("iop,op->oi", b, rows)
    return np.ascontiguousarray(np.linalg.solve(gram, right[:, :, None])[:, :, 0].T)


@dataclass(frozen=True)
class AbcNet:
    """N bases with the mean and the sample standard deviation of each output, alpha by least squares.

    Source: Lin et al., "Towards Accurate Binary Convolutional Neural Network", 2017, section 3.1.

    Attributes:
        planes: N, 1 to 8.
    """

    planes: int = 3

    per_tensor = False

    @property
    def name(self) -> str:
        return f"abc:{self.planes}"

    def fit(self, rows: Rows) -> FittedPlanes:
        mean = rows.mean(axis=1, keepdims=True)
        deviation = rows.std(axis=1, ddof=1, keepdims=True) if rows.shape[1] > 1 else np.zeros_like(mean)
        signs = bases(rows, mean, deviation, offsets(self.planes))
        return FittedPlanes(signs, coefficients(rows, signs))
