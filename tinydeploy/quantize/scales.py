"""Ranges of real numbers to scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinydeploy.ir.types import Quantization
from tinydeploy.numerics import INT32_MAX

LEVELS = 255
"""Steps between the lowest and the highest int8."""

MIN_SCALE = 2.0**-60
"""Below this, a product of two scales could leave the normal float32 numbers, in which files hold it."""

MAX_MAGNITUDE = 2.0**60
"""Larger activations and weights are refused, for the same reason."""

UNSEEN_SCALE = 2.0**-7
"""The scale of a tensor that was zero throughout: any does, and this one spans about [-1, 1]."""

MARGIN = 1.0 + 2.0**-20
"""Lifts a bound above what rounding to float32 and to a 31-bit multiplier can undo."""


@dataclass(frozen=True)
class Range:
    """Real numbers that a tensor's integers have to span: low <= 0 <= high, so that zero is exact."""

    low: float
    high: float

    @staticmethod
    def of(low: float, high: float) -> Range:
        """The range from `low` to `high`, widened to contain zero."""
        return Range(min(float(low), 0.0), max(float(high), 0.0))

    def hull(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))

    def clamp(self, low: float | None, high: float | None) -> Range:
        """What a clamp leaves of it; None is an open end."""
        return Range.of(
            self.low if low is None else max(self.low, low),
            self.high if high is None else min(self.high, high),
        )

    def within(self, other: Range, slack: float) -> bool:
        return self.low >= other.low - slack and self.high <= other.high + slack


LevelKind = Literal["even", "lloyd", "abc"]


@dataclass(frozen=True)
class Activations:
    """How the integers of an activation are chosen: one byte each, of which `bits` are used.

    Attributes:
        bits: 2 to 8; of Lloyd's levels 2 to 4, and of ABC-Net's as many as bases, from 1 on.
        symmetric: without a zero point, in the restricted range; else affine.
        levels: at which distances. What is not even is made by STAIRCASE, and held in eight bits.
    """

    bits: int = 8
    symmetric: bool = False
    levels: LevelKind = "even"

    @property
    def label(self) -> str:
        """`4`, or `abc3`."""
        return str(self.bits) if self.levels == "even" else f"{self.levels}{self.bits}"

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1


INT8_ACTIVATIONS = Activations()


def activation_quantization(
    span: Range, least_scale: float = 0.0, how: Activations = INT8_ACTIVATIONS
) -> Quantization:
    """The quantization that spans `span`: `S = (r_max - r_min) / (q_max - q_min)`,
    `Z = round(q_min - r_min / S)`. The zero point is an integer, so zero is exact.

    A scale that `least_scale` raises widens both ends of the range in proportion.

    Source: `ChooseQuantizationParams` in tensorflow/lite/kernels/internal/quantization_util.h.
    """
    width = span.high - span.low
    if width == 0.0:
        return Quantization((_float32(UNSEEN_SCALE, least_scale),), (0,))
    low, high = how.limits
    if how.symmetric:
        reach = max(span.high, -span.low)
        return Quantization((_float32(reach / high, max(least_scale, MIN_SCALE)),), (0,))
    scale = _float32(width / (high - low), max(least_scale, MIN_SCALE))
    # Relative to the width, so that a tiny one does not overflow the division.
    zero_point = int(np.floor(low - (high - low) * (span.low / width) + 0.5))
    return Quantization((scale,), (min(max(zero_point, low), high),))


def _float32(scale: float, least: float) -> float:
    """The float32 nearest to `scale`, or the lowest that is not below `least`."""
    single = np.float32(max(scale, least))
    if float(single) < least:
        single = np.nextafter(single, np.float32(np.inf))
    return float(single)


def least_output_scale(products: float, bound: int) -> float:
    """The output scale from which accumulators of up to `bound` survive the left shift of their ratio.

    Args:
        products: the real value of one accumulator step, `S_in * S_w` for a linear layer.
    """
    exponent = min(max((INT32_MAX // max(bound, 1)).bit_length() - 1, 0), 30)
    return products * 2.0**-exponent * MARGIN
