"""What CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED share: multipliers, folded bias, the overflow proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.errors import DeployError
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import DType, Value
from tinydeploy.numerics import INT32_MAX
from tinydeploy.ops.requantize import (
    Activation,
    Requantization,
    multiplier,
    requantization,
    require,
    require_activation,
)


@dataclass(frozen=True)
class LinearParameters:
    """The integer constants of a linear layer.

    Attributes:
        bias: int32 (outputs,), as the model has it, zeros where it has none.
        folded_bias: int32 (outputs,): `bias - Z_in * sum(weights)`, for raw inputs, padding = Z_in.
        requantization: mantissas and exponents of length 1 or outputs.
    """

    bias: npt.NDArray[np.int32]
    folded_bias: npt.NDArray[np.int32]
    requantization: Requantization


def linear_parameters(site: Site, activation: Activation, output_axis: int) -> LinearParameters:
    """Derives the constants and proves that no int32 accumulation can overflow, in any order of addition.

    The ratio is `S_in * S_w / S_out` in double precision.

    Args:
        output_axis: the axis of the weights that counts output channels.

    Raises:
        DeployError: an accumulator, a folded bias or a left shift could leave int32.
    """
    x, weights, bias = site.input(0), site.input(1), site.optional(2)
    w = _by_output(weights.array.astype(np.int64), output_axis)
    b = np.zeros(w.shape[0], np.int64) if bias is None else bias.array.astype(np.int64)
    zero_point = x.quant.zero_point
    folded = b - zero_point * w.sum(axis=1)
    planes = weights.form if isinstance(weights.form, Planes) else None
    sizes = np.abs(w) if planes is None else _by_output(planes.magnitudes(), output_axis)
    magnitude = sizes.sum(axis=1)
    low, high = x.limits
    raw_bound = np.abs(folded) + magnitude * max(-low, high)
    channel = int(raw_bound.argmax())
    if raw_bound[channel] > INT32_MAX:
        raise DeployError(
            f"the accumulator of output channel {channel} can reach {int(raw_bound[channel])}, beyond int32",
            hint="the bias or the number of inputs is too large for exact int32 accumulation",
        )
    scales = weights.quant.scales
    ratios = [x.quant.scale * s / site.output.quant.scale for s in scales]
    reach = max(high - zero_point, zero_point - low)
    bound = int((np.abs(b) + magnitude * reach).max())
    r = requantization([multiplier(ratio) for ratio in ratios], activation, site.output, bound)
    return LinearParameters(b.astype(np.int32), folded.astype(np.int32), r)


def _by_output(weights: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
    """(outputs, products of one output)."""
    return np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)


def check_linear(site: Site, output_axis: int) -> None:
    """Support limits of a linear layer: int8 in and out, symmetric int8 weights, int32 bias or none.

    Weights in bit planes are int32: the sums of their coefficients.
    """
    x, weights, bias, y = site.input(0), site.input(1), site.optional(2), site.output
    require_activation(x)
    require_activation(y)
    require(weights.is_constant, f"the weights {weights.name!r} are not a constant")
    require(
        weights.dtype is (DType.INT32 if isinstance(weights.form, Planes) else DType.INT8),
        f"the weights {weights.name!r} are {weights.dtype.value}; int8 is supported",
        "convert the model again with int8 weights",
    )
    _check_weight_quantization(weights, output_axis)
    if bias is not None:
        outputs = weights.shape[output_axis]
        require(bias.is_constant, f"the bias {bias.name!r} is not a constant")
        require(bias.dtype is DType.INT32, f"the bias {bias.name!r} is {bias.dtype.value}, not int32")
        require(bias.shape == (outputs,), f"the bias {bias.name!r} has shape {bias.shape}, not ({outputs},)")


def _check_weight_quantization(weights: Value, output_axis: int) -> None:
    require(weights.quantization is not None, f"the weights {weights.name!r} have no scale")
    quant = weights.quant
    require(
        not any(quant.zero_points),
        f"the weights {weights.name!r} have a zero point other than 0",
        "asymmetric weights cost a sum per output; convert again with symmetric int8 weights",
    )
    if quant.per_channel:
        require(
            quant.axis == output_axis,
            f"the weights {weights.name!r} are quantized along axis {quant.axis}, not {output_axis}",
        )
