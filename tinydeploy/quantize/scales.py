"""Ranges of real numbers to scales and zero points, and float parameters to integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.types import Array, Quantization
from tinydeploy.numerics import INT32_MAX

LEVELS = 255
"""Steps between the lowest and the highest int8."""

MIN_SCALE = 2.0**-60
"""Below this, a product of two scales could leave the normal float32 numbers, in which files hold it."""

MAX_MAGNITUDE = 2.0**60
"""Larger activations and weights are refused, for the same reason."""

UNSEEN_SCALE = 2.0**-7
"""The scale of a tensor that was zero throughout: any does, and this one spans about [-1, 1]."""

_MARGIN = 1.0 + 2.0**-20
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


def activation_quantization(span: Range, least_scale: float = 0.0) -> Quantization:
    """The asymmetric int8 quantization that spans `span`; its zero point is an integer, so zero is exact.

    A scale that `least_scale` raises widens both ends of the range in proportion.

    Source: `ChooseQuantizationParams` in tensorflow/lite/kernels/internal/quantization_util.h.
    """
    width = span.high - span.low
    if width == 0.0:
        return Quantization((_float32(UNSEEN_SCALE, least_scale),), (0,))
    scale = _float32(width / LEVELS, max(least_scale, MIN_SCALE))
    # Relative to the width, so that a tiny one does not overflow the division.
    zero_point = int(np.floor(-128.0 - LEVELS * (span.low / width) + 0.5))
    return Quantization((scale,), (min(max(zero_point, -128), 127),))


def _float32(scale: float, least: float) -> float:
    """The float32 nearest to `scale`, or the lowest that is not below `least`."""
    single = np.float32(max(scale, least))
    if float(single) < least:
        single = np.nextafter(single, np.float32(np.inf))
    return float(single)


@dataclass(frozen=True)
class LinearConstants:
    """The integer constants of a linear layer.

    Attributes:
        weights: int8 in [-127, 127], of the float weights' shape.
        scales: one positive float32 value an output channel.
        bias: int32 (outputs,) at `S_in * S_w`, or None.
    """

    weights: npt.NDArray[np.int8]
    scales: tuple[float, ...]
    bias: npt.NDArray[np.int32] | None

    def bound(self, axis: int, reach: int) -> int:
        """Largest |accumulator| for inputs with |q - Z| <= reach."""
        sums = _channels(self.weights, axis).astype(np.int64)
        bias = 0 if self.bias is None else np.abs(self.bias.astype(np.int64))
        return int((np.abs(sums).sum(axis=1) * reach + bias).max())


def quantize_linear(weights: Array, bias: Array | None, axis: int, input_scale: float) -> LinearConstants:
    """Symmetric int8 weights per output channel, and the int32 bias that belongs to them.

    Args:
        weights: float, with the output channels along `axis`.
        bias: float (outputs,), or None.

    Source: `SymmetricPerChannelQuantization` in
    tensorflow/compiler/mlir/lite/quantization/lite/toco_legacy/quantization_utils.cc.
    """
    rows = _channels(weights, axis).astype(np.float64)
    largest = np.abs(rows).max(axis=1)
    real_bias = np.zeros(len(rows)) if bias is None else bias.astype(np.float64)
    # A channel of zeros takes the scale that its bias needs, or one that the layer has anyway.
    scales = np.where(largest > 0, np.maximum(largest / 127, MIN_SCALE), 0.0)
    scales = _fit_biases(rows, scales, real_bias, input_scale)
    harmless = scales.max() if scales.max() > 0 else 1.0 / 127
    scales = np.where(scales > 0, np.maximum(scales, MIN_SCALE), harmless).astype(np.float32)
    wide = scales.astype(np.float64)
    q = _round(rows / wide[:, None]).clip(-127, 127).astype(np.int8)
    folded = np.moveaxis(weights, axis, 0).shape
    integers = np.ascontiguousarray(np.moveaxis(q.reshape(folded), 0, axis))
    q_bias = None if bias is None else _round(real_bias / (input_scale * wide)).astype(np.int32)
    return LinearConstants(integers, tuple(float(s) for s in scales), q_bias)


def _fit_biases(rows: Array, scales: Array, bias: Array, input_scale: float) -> Array:
    """Raises the scale of each channel whose bias would not fit beside its products in an int32.

    Such a bias is over 2**30 products' steps, and the output's range contains it: the bits that the weights
    of that channel lose are far below one step of the output.
    """
    safe = np.where(scales > 0, scales, 1.0)
    q = np.minimum(_round(np.abs(rows) / safe[:, None]), 127)
    # Raw inputs reach 128 and the zero point 128, each times the sum of the weights.
    room = np.maximum(INT32_MAX - 256.0 * q.sum(axis=1), 1.0)
    needed = np.abs(bias) / (input_scale * room) * _MARGIN
    result: Array = np.maximum(scales, needed)
    return result


def least_output_scale(products: float, bound: int) -> float:
    """The output scale from which accumulators of up to `bound` survive the left shift of their ratio.

    Args:
        products: the real value of one accumulator step, `S_in * S_w` for a linear layer.
    """
    exponent = min(max((INT32_MAX // max(bound, 1)).bit_length() - 1, 0), 30)
    return products * 2.0**-exponent * _MARGIN


def _channels(weights: Array, axis: int) -> Array:
    return np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)


def _round(x: Array) -> Array:
    """Half away from zero, in double precision."""
    result: Array = np.trunc(x + np.copysign(0.5, x))
    return result
