"""Requantization as the ops use it: scales to multipliers, fused activations to clamps, and checks."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy import numerics
from tinydeploy.errors import DeployError
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, DType, Quantization, Value

INT8_REACH = 255
"""Largest |q - Z| of an 8-bit element."""


class Activation(enum.Enum):
    """A clamp in real units, fused into the op that produces the value."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    RELU_N1_TO_1 = "relu_n1_to_1"

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Lower and upper end in real units; None where it is open."""
        return _RANGES[self]

    def apply(self, x: Array) -> Array:
        """The float clamp."""
        low, high = self.range
        return x if low is None and high is None else np.clip(x, low, high)


_RANGES: dict[Activation, tuple[float | None, float | None]] = {
    Activation.NONE: (None, None),
    Activation.RELU: (0.0, None),
    Activation.RELU6: (0.0, 6.0),
    Activation.RELU_N1_TO_1: (-1.0, 1.0),
}


@dataclass(frozen=True)
class Requantization:
    """How int32 accumulators become elements of the output: per output channel, or one for all.

    `q = clamp(requantize(acc, mantissas, exponents) + zero_point, low, high)`

    Attributes:
        bound: proved largest |acc|.
    """

    mantissas: tuple[int, ...]
    exponents: tuple[int, ...]
    zero_point: int
    low: int
    high: int
    bound: int

    @property
    def right_shifts_only(self) -> bool:
        """Whether every shift is to the right and its rounding constant can be added inside int32."""
        return all(e < 0 and self.bound + (1 << (-e - 1)) <= numerics.INT32_MAX for e in self.exponents)

    def apply(self, acc: Array, dtype: DType) -> Array:
        """Requantizes accumulators whose last axis is the channel (or any axis, with one multiplier)."""
        return self.apply_wide(acc).astype(dtype.numpy)

    def apply_wide(self, acc: Array) -> npt.NDArray[np.int64]:
        """The same as int64."""
        q = numerics.requantize(acc, np.array(self.mantissas), np.array(self.exponents)) + self.zero_point
        clamped: npt.NDArray[np.int64] = np.clip(q, self.low, self.high)
        return clamped


def quantize_real(value: float, quantization: Quantization) -> int:
    """A real number in quantized units, unclamped, rounded half away from zero in float32.

    Source: `Quantize` in tensorflow/lite/kernels/kernel_util.cc.
    """
    with np.errstate(over="ignore"):
        ratio = np.float32(value) / np.float32(quantization.scale)
    if not np.isfinite(ratio) or abs(ratio) > 2.0**30:
        raise DeployError(f"{value} is not representable at scale {quantization.scale!r}")
    return quantization.zero_point + int(np.trunc(ratio + np.copysign(np.float32(0.5), ratio)))


def clamp_range(activation: Activation, value: Value) -> tuple[int, int]:
    """Smallest and largest output element under a fused activation.

    Source: `CalculateActivationRangeQuantized` in tensorflow/lite/kernels/kernel_util.cc.
    """
    low, high = value.limits
    real_low, real_high = activation.range
    if real_low is not None:
        low = max(low, quantize_real(real_low, value.quant))
    if real_high is not None:
        high = min(high, quantize_real(real_high, value.quant))
    if low > high:
        raise DeployError(
            f"the fused activation {activation.value} leaves no value of {value.name!r}",
            hint="the zero point and scale of that tensor do not contain the activation's range",
        )
    return low, high


def multiplier(ratio: float) -> numerics.Multiplier:
    """`numerics.quantize_ratio` with the error that a user understands."""
    try:
        return numerics.quantize_ratio(ratio)
    except ValueError as error:
        raise DeployError(str(error), hint="the scales of this layer are damaged or extreme") from None


def requantization(
    multipliers: Sequence[numerics.Multiplier], activation: Activation, output: Value, bound: int
) -> Requantization:
    """Requantization of accumulators within ±bound to `output`; one multiplier, or one per channel.

    Raises:
        DeployError: a left shift of such an accumulator could leave int32.
    """
    low, high = clamp_range(activation, output)
    for m in multipliers:
        if not numerics.left_shift_fits(bound, m.exponent):
            raise DeployError(
                f"an accumulator of up to {bound} shifted left by {m.exponent} bits does not fit int32",
                hint="the output scale is far smaller than the products it holds; quantize the layer again",
            )
    return Requantization(
        tuple(m.mantissa for m in multipliers),
        tuple(m.exponent for m in multipliers),
        output.quant.zero_point,
        low,
        high,
        bound,
    )


def single(ratio: float, activation: Activation, output: Value, bound: int) -> Requantization:
    """One multiplier for the whole tensor."""
    return requantization([multiplier(ratio)], activation, output, bound)


def require(condition: bool, fact: str, hint: str = "") -> None:
    """Raises DeployError(fact) where a support limit is not met."""
    if not condition:
        raise DeployError(fact, hint=hint)


def require_activation(value: Value, *dtypes: DType) -> None:
    """The value is a per-tensor quantized activation of one of `dtypes` (int8 by default)."""
    allowed = dtypes or (DType.INT8,)
    names = " or ".join(d.value for d in allowed)
    require(
        value.dtype in allowed,
        f"tensor {value.name!r} is {value.dtype.value}, and this op takes {names}",
        "convert the model with full-integer (int8) quantization",
    )
    require(value.quantization is not None, f"tensor {value.name!r} has no scale and zero point")
    require(not value.quant.per_channel, f"the activation {value.name!r} is quantized per channel")


def same_quantization(a: Value, b: Value) -> bool:
    """Whether elements of one may be copied into the other."""
    return a.quant.scale == b.quant.scale and a.quant.zero_point == b.quant.zero_point


def rescale(x: Value, y: Value) -> Requantization:
    """The requantization of `q_x - Z_x` into the units of `y`; proves its left shift."""
    return single(x.quant.scale / y.quant.scale, Activation.NONE, y, INT8_REACH)


def require_same_quantization(a: Value, b: Value) -> None:
    """Both values have the same scale and zero point, so that elements may be copied."""
    require(
        same_quantization(a, b),
        f"tensors {a.name!r} and {b.name!r} differ in scale or zero point, and this op copies elements",
    )


def is_float(site: Site) -> bool:
    """Whether the op stands in the float part of a graph, where quantization does not matter."""
    return site.output.dtype.is_float


def check_activations(site: Site, check_integer: Callable[[Site], None]) -> None:
    """Float in gives float out; otherwise the op's own integer check decides."""
    if is_float(site):
        for value in site.inputs:
            require(
                value is None or value.dtype.is_float,
                f"a float output from {value.name if value else None!r}, which is not float",
                "only DEQUANTIZE does that; convert the model to float or to full-integer quantization,"
                " not to a hybrid of both (dynamic range)",
            )
        return
    check_integer(site)
