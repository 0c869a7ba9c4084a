"""Linear quantization of weights: symmetric integers of 2 to 8 bits under one scale an output or a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinydeploy.ir.forms import Packed
from tinydeploy.quantize.schemes.base import Lowered, Rows, Scales, away_from_zero, least_squares, per_output

_SHRINKS = np.array([1.0, 0.85, 0.7, 0.55, 0.4, 0.28])
"""Where the search for the best scale starts, in parts of the scale that reaches the largest weight."""

_REFINEMENTS = 3


def integer_limits(bits: int, *, full: bool) -> tuple[int, int]:
    """Full range [-2^(b-1), 2^(b-1) - 1], or the restricted one [-(2^(b-1) - 1), 2^(b-1) - 1]."""
    high = (1 << (bits - 1)) - 1
    return -high - int(full), high


def scale_of_largest(largest: Scales, bits: int, *, full: bool) -> Scales:
    """The scale that spans [-largest, largest]: largest / 2^(b-1) or largest / (2^(b-1) - 1).

    In the full range the largest positive weight saturates, which is why weights are restricted. Source:
    H. Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation",
    2020, section 3.1.2 (scale quantization).
    """
    result: Scales = largest / -integer_limits(bits, full=full)[0]
    return result


def integers(rows: Rows, scales: Scales, limits: tuple[int, int]) -> Rows:
    """Rounded half away from zero and saturated; whole numbers as float64."""
    return away_from_zero(rows / per_output(scales)).clip(*limits)


@dataclass(frozen=True)
class Linear:
    """Symmetric integers, without a zero point.

    Attributes:
        bits: 2 to 8.
        full: use -2^(b-1) too.
        per_tensor: one scale for all outputs.
        fitting: `max` reaches the largest weight; `mse` takes the scale of the least mean squared error,
            which clips; by default `max` for 8 bits and `mse` below.
    """

    bits: int = 8
    full: bool = False
    per_tensor: bool = False
    fitting: Literal["max", "mse"] | None = None

    @property
    def name(self) -> str:
        return f"linear:{self.bits}"

    @property
    def limits(self) -> tuple[int, int]:
        return integer_limits(self.bits, full=self.full)

    def fit(self, rows: Rows) -> FittedLinear:
        whole = rows.reshape(1, -1) if self.per_tensor else rows
        scales = scale_of_largest(np.abs(whole).max(axis=1), self.bits, full=self.full)
        if (self.fitting or ("max" if self.bits == 8 else "mse")) == "mse":
            scales = best_scales(whole, scales, self.limits)
        return FittedLinear(self, rows, np.broadcast_to(scales, (len(rows),)))


@dataclass(frozen=True)
class FittedLinear:
    """See `Fitted`."""

    scheme: Linear
    rows: Rows
    scales: Scales

    def lower(self, scales: Scales) -> Lowered:
        q = integers(self.rows, scales, self.scheme.limits).astype(np.int32)
        return Lowered(q, None if self.scheme.bits == 8 else Packed(self.scheme.bits))


def best_scales(rows: Rows, start: Scales, limits: tuple[int, int]) -> Scales:
    """The scales (outputs,) of the least squared error, by alternating from several starts.

    Integers for a scale are the nearest ones, and the best scale for integers q is `<w, q> / <q, q>`; each
    step lowers the error. Source: the alternation of Lloyd, "Least squares quantization in PCM", 1982, for
    levels that are multiples of one number.
    """
    best, least = start, np.full(len(rows), np.inf)
    for shrink in _SHRINKS:
        scales = start * shrink
        for _ in range(_REFINEMENTS):
            scales = least_squares(rows, integers(rows, scales, limits), scales)
        q = integers(rows, scales, limits)
        error = ((rows - q * scales[:, None]) ** 2).sum(axis=1)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return best
