"""What every quantization scheme of weights does, and how its result becomes a stored form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.forms import Form, Planes

Rows = npt.NDArray[np.float64]
"""Float weights output by output: (outputs, products of one output)."""

Scales = npt.NDArray[np.float64]
"""One positive number an output; 0 where nothing asks for one, since the output's weights are all zero."""


@dataclass(frozen=True)
class Lowered:
    """Weights as integers, output by output.

    Attributes:
        rows: (outputs, products); with planes, the sums of their coefficients.
        form: Packed, Codebook or None for int8; None with planes too.
        signs: int8 (planes, outputs, products), or None.
        coefficients: int16 (planes, outputs), or None.
    """

    rows: npt.NDArray[np.int32]
    form: Form | None = None
    signs: npt.NDArray[np.int8] | None = None
    coefficients: npt.NDArray[np.int16] | None = None

    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Upper bound of what each weight adds to a sum in any order: (outputs, products)."""
        if self.signs is None or self.coefficients is None:
            return np.abs(self.rows.astype(np.int64))
        sizes = np.abs(self.coefficients.astype(np.int64))
        total: npt.NDArray[np.int64] = (np.abs(self.signs) * sizes[:, :, None]).sum(axis=0)
        return total

    def shaped(self, shape: Sequence[int], axis: int) -> tuple[npt.NDArray[np.int32], Form | None]:
        """The integers with the weights' own shape, outputs along `axis`, and their form."""
        data = unfolded(self.rows, shape, axis)
        if self.signs is None or self.coefficients is None:
            return data, self.form
        signs = np.stack([unfolded(plane, shape, axis) for plane in self.signs])
        return data, Planes(signs, self.coefficients, axis)


class Fitted(Protocol):
    """A scheme fitted to the weights of one layer; scales may still rise for the sake of a bias."""

    @property
    def scales(self) -> Scales:
        """(outputs,): what the weights alone ask for; all equal where the scheme is per tensor."""

    def lower(self, scales: Scales) -> Lowered:
        """The integers at these scales, positive and at least those of the fit."""


class Scheme(Protocol):
    """One way to quantize weights; float centroids, thresholds and coefficients exist in here only."""

    @property
    def name(self) -> str:
        """As in `--scheme` and in reports: `codebook:4`."""

    @property
    def per_tensor(self) -> bool:
        """Whether all outputs share one scale."""

    def fit(self, rows: Rows) -> Fitted:
        """Fits to float weights; the same weights always give the same fit."""


def folded(weights: npt.NDArray[Any], axis: int) -> Rows:
    """Weights of any shape, output by output."""
    return np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)


def unfolded(rows: npt.NDArray[Any], shape: Sequence[int], axis: int) -> npt.NDArray[Any]:
    """Numbers output by output as weights of `shape` with outputs along `axis`."""
    rest = [n for a, n in enumerate(shape) if a != axis]
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[axis], *rest), 0, axis))


def away_from_zero(x: Rows) -> Rows:
    """Rounded, half away from zero, in double precision."""
    result: Rows = np.trunc(x + np.copysign(0.5, x))
    return result


def per_output(scales: Scales) -> Rows:
    """(outputs, 1), with 1 in the place of 0, to divide by."""
    return np.where(scales > 0, scales, 1.0)[:, None]


def least_squares(rows: Rows, q: Rows, otherwise: Scales) -> Scales:
    """The scale that brings q nearest to each row; `otherwise` where q is zero throughout."""
    products, squares = (rows * q).sum(axis=1), (q * q).sum(axis=1)
    usable = (squares > 0) & (products > 0)
    result: Scales = np.where(usable, products / np.where(usable, squares, 1.0), otherwise)
    return result
