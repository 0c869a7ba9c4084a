"""Float weights and biases of a linear layer to integers, by any scheme."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.forms import Form
from tinydeploy.ir.types import Array
from tinydeploy.numerics import INT32_MAX
from tinydeploy.quantize.scales import MARGIN, MIN_SCALE
from tinydeploy.quantize.schemes import INT8, Scheme, folded
from tinydeploy.quantize.schemes.base import Fitted, Scales, away_from_zero, per_output


@dataclass(frozen=True)
class LinearConstants:
    """The integer constants of a linear layer.

    Attributes:
        weights: of the float weights' shape: int8, or int32 sums for bit planes.
        scales: one positive float32 value an output channel, or one for all.
        bias: int32 (outputs,) at `S_in * S_w`, or None.
        form: how the weights are stored; None for int8.
        sums: (outputs,): what the magnitudes of the weights of each output add up to, in any order.
    """

    weights: npt.NDArray[np.int8] | npt.NDArray[np.int32]
    scales: tuple[float, ...]
    bias: npt.NDArray[np.int32] | None
    form: Form | None
    sums: npt.NDArray[np.int64]

    def bound(self, reach: int) -> int:
        """Largest |accumulator| for inputs with |q - Z| <= reach."""
        bias = 0 if self.bias is None else np.abs(self.bias.astype(np.int64))
        return int((self.sums * reach + bias).max())


def quantize_linear(
    weights: Array, bias: Array | None, axis: int, input_scale: float, scheme: Scheme = INT8
) -> LinearConstants:
    """Weights by a scheme, and the int32 bias that belongs to them.

    Args:
        weights: float, with the output channels along `axis`.
        bias: float (outputs,), or None.

    Source, for int8: `SymmetricPerChannelQuantization` in
    tensorflow/compiler/mlir/lite/quantization/lite/toco_legacy/quantization_utils.cc.
    """
    fitted = scheme.fit(folded(weights, axis))
    return linear_constants(fitted, weights.shape, bias, axis, input_scale, one_scale=scheme.per_tensor)


def linear_constants(
    fitted: Fitted,
    shape: tuple[int, ...],
    bias: Array | None,
    axis: int,
    input_scale: float,
    *,
    one_scale: bool,
) -> LinearConstants:
    """The same from a scheme that was fitted already, as scales settle in several rounds.

    Args:
        one_scale: whether all outputs share one.
    """
    outputs = shape[axis]
    real_bias = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    scales = np.where(fitted.scales > 0, np.maximum(fitted.scales, MIN_SCALE), 0.0)
    scales = _fit_biases(fitted, scales, real_bias, input_scale)
    if one_scale:
        scales = np.full(outputs, scales.max())
    # A channel of zeros takes the scale that its bias needs, or one that the layer has anyway.
    harmless = scales.max() if scales.max() > 0 else 1.0 / 127
    single = np.where(scales > 0, np.maximum(scales, MIN_SCALE), harmless).astype(np.float32)
    wide = single.astype(np.float64)
    lowered = fitted.lower(wide)
    integers, form = lowered.shaped(shape, axis)
    q_bias = None if bias is None else away_from_zero(real_bias / (input_scale * wide)).astype(np.int32)
    return LinearConstants(
        integers if lowered.signs is not None else integers.astype(np.int8),
        (float(single[0]),) if one_scale else tuple(float(s) for s in single),
        q_bias,
        form,
        lowered.magnitudes().sum(axis=1),
    )


def _fit_biases(fitted: Fitted, scales: Scales, bias: Array, input_scale: float) -> Scales:
    """Raises the scale of each channel whose bias would not fit beside its products in an int32.

    Such a bias is over 2**30 products' steps, and the output's range contains it: the bits that the weights
    of that channel lose are far below one step of the output.
    """
    sums = fitted.lower(per_output(scales)[:, 0]).magnitudes().sum(axis=1)
    # Raw inputs reach 128 and the zero point 128, each times the sum of the weights.
    room = np.maximum(INT32_MAX - 256.0 * sums, 1.0)
    needed = np.abs(bias) / (input_scale * room) * MARGIN
    result: Scales = np.maximum(scales, needed)
    return result
