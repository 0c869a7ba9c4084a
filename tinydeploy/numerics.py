"""The one requantization rule: multiplier, shift and rounding, in integers only.

Source: TensorFlow Lite's double rounding, as `MultiplyByQuantizedMultiplier` (non-single-rounding
branch, tensorflow/lite/kernels/internal/common.cc) and `QuantizeMultiplier`
(tensorflow/lite/kernels/internal/quantization_util.cc) define it; the fixed-point functions are
those of gemmlowp's fixedpoint.h. Everything here is exact: no result depends on a float rounding
other than the one double-precision division that turns scales into a ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Multiplier:
    """A positive ratio as `mantissa * 2**(exponent - 31)`.

    Attributes:
        mantissa: int32 in [2**30, 2**31), or 0 for a ratio below 2**-32.
        exponent: power of two; positive is a left shift before, negative a right shift after the
            rounding high multiplication. In [-31, 30].
    """

    mantissa: int
    exponent: int

    @property
    def left_shift(self) -> int:
        return max(self.exponent, 0)

    @property
    def right_shift(self) -> int:
        return max(-self.exponent, 0)


def quantize_ratio(ratio: float) -> Multiplier:
    """Turns a non-negative real ratio into mantissa and exponent.

    Raises:
        ValueError: the ratio is negative, not finite, or 2**30 or more.
    """
    if not math.isfinite(ratio) or ratio < 0.0:
        raise ValueError(f"the scale ratio {ratio!r} is not a finite, non-negative number")
    if ratio == 0.0:
        return Multiplier(0, 0)
    fraction, exponent = math.frexp(ratio)
    # Half away from zero, as std::round does; Python's round() would go to even.
    mantissa = math.floor(fraction * 2.0**31 + 0.5)
    if mantissa == 2**31:
        mantissa //= 2
        exponent += 1
    if exponent < -31:
        return Multiplier(0, 0)
    if exponent > 30:
        raise ValueError(f"the scale ratio {ratio!r} is 2**30 or more")
    return Multiplier(mantissa, exponent)


def rounding_high_multiply(a: Int64Array, mantissa: npt.ArrayLike) -> Int64Array:
    """gemmlowp's SaturatingRoundingDoublingHighMul for a non-negative `mantissa`; exact in int64."""
    result: Int64Array = np.asarray(a * np.asarray(mantissa, dtype=np.int64))
    result += 1 << 30
    result >>= 31
    return result


def rounding_shift_right(v: Int64Array, shift: npt.ArrayLike) -> Int64Array:
    """Divides by 2**shift, half away from zero (gemmlowp's RoundingDivideByPOT); shift >= 0."""
    s = np.asarray(shift, dtype=np.int64)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    # In place, and no step that changes nothing: this is most of the engine's time.
    result: Int64Array = v >> 63
    if not (s > 0).all():
        # The sign counts where something is shifted out.
        result = result & np.where(s > 0, np.int64(-1), np.int64(0))
    result += v
    result += half
    result >>= s
    return result


def requantize(acc: npt.NDArray[Any], mantissa: npt.ArrayLike, exponent: npt.ArrayLike) -> Int64Array:
    """Multiplies int32 accumulators by `mantissa * 2**(exponent - 31)` with double rounding.

    Args:
        acc: accumulators of any shape; with a left shift they must still fit int32 (the caller
            proves it, see `left_shift_fits`).
        mantissa: scalar, or an array that broadcasts against `acc` (per output channel).
        exponent: like `mantissa`.

    Returns:
        int64 array of the broadcast shape, before the output zero point and the clamp.
    """
    e = np.asarray(exponent, dtype=np.int64)
    shifted = acc.astype(np.int64, copy=False)
    if (e > 0).any():
        shifted = shifted << np.maximum(e, 0)
    return rounding_shift_right(rounding_high_multiply(shifted, mantissa), np.maximum(-e, 0))


def left_shift_fits(bound: int, exponent: int) -> bool:
    """Whether every accumulator with |acc| <= bound stays an int32 after the left shift."""
    return bound << max(exponent, 0) <= INT32_MAX


def _saturate(v: int) -> int:
    return min(max(v, INT32_MIN), INT32_MAX)


def fixed_multiply(a: int, b: int) -> int:
    """Saturating rounding doubling high multiplication of two raw fixed-point int32."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    total = product + nudge
    return total >> 31 if total >= 0 else -((-total) >> 31)


def fixed_rescale(v: int, power: int) -> int:
    """Multiplies a raw int32 by 2**power: saturating to the left, half away from zero to the right."""
    if power >= 0:
        return _saturate(v << power)
    shift = -power
    return (v + (-1 if v < 0 else 0) + (1 << (shift - 1))) >> shift


def _exp_between_minus_quarter_and_zero(a: int) -> int:
    """exp(a) for raw Q0.31 `a` in [-1/4, 0): Taylor series of degree 4 around -1/8."""
    constant = 1895147668  # exp(-1/8)
    third = 715827883  # 1/3
    x = a + (1 << 28)
    x2 = fixed_multiply(x, x)
    x3 = fixed_multiply(x2, x)
    x4_over_4 = fixed_rescale(fixed_multiply(x2, x2), -2)
    tail = fixed_rescale(fixed_multiply(x4_over_4 + x3, third) + x2, -1)
    return constant + fixed_multiply(constant, x + tail)


# exp(-2**k) in Q0.31 for k = -2 .. 4
_EXP_FACTORS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)


def fixed_exp_negative(a: int, integer_bits: int) -> int:
    """exp(a) in Q0.31 for a raw int32 `a` <= 0 with `integer_bits` integer bits (at most 5)."""
    if a == 0:
        return INT32_MAX
    fractional_bits = 31 - integer_bits
    quarter = 1 << (fractional_bits - 2)
    reduced = (a & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_zero(fixed_rescale(reduced, integer_bits))
    remainder = reduced - a
    for power, factor in _EXP_FACTORS:
        if integer_bits > power and remainder & (1 << (fractional_bits + power)):
            result = fixed_multiply(result, factor)
    return result


def fixed_reciprocal_one_plus(a: int) -> int:
    """1 / (1 + a) in Q0.31 for raw Q0.31 `a` in [0, 1): three Newton-Raphson steps."""
    total = a + INT32_MAX
    half_denominator = (total + 1) >> 1
    x = 1515870810 + fixed_multiply(half_denominator, -1010580540)  # 48/17 - 32/17 d, in Q2.29
    for _ in range(3):
        error = (1 << 29) - fixed_multiply(half_denominator, x)
        x += fixed_rescale(fixed_multiply(x, error), 2)
    # Q2.29 halved is the same raw number read as Q1.30; Q0.31 needs one more bit to the left.
    return fixed_rescale(x, 1)


def fixed_logistic(a: int, integer_bits: int) -> int:
    """1 / (1 + exp(-a)) in Q0.31 for a raw int32 `a` with `integer_bits` integer bits."""
    if a == 0:
        return 1 << 30
    positive = fixed_reciprocal_one_plus(fixed_exp_negative(-abs(a), integer_bits))
    return positive if a > 0 else INT32_MAX - positive
