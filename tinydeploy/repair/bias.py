"""Bias correction: what quantization adds to the mean of a layer's outputs is taken out of its bias.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.2 and its appendix (empirical).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, Quantization, Value, constant
from tinydeploy.numerics import INT32_MAX
from tinydeploy.passes.twin import real_constant
from tinydeploy.repair.moments import Moments, activation_moments
from tinydeploy.repair.walk import Step, walk


def correct_biases(real: Graph, integer: Graph, inputs: Sequence[Array]) -> Graph:
    """Takes the mean error of each output channel on the samples out of its bias, layer after layer.

    The error is that before the activation, between the float graph and the integer graph with all earlier
    layers corrected, so it holds what they still pass on.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.

    Raises:
        DeployError: a bias would leave what the integer rule admits.
    """

    def change(step: Step) -> tuple[Value, ...]:
        return step.integer_site.input(1), _shifted(step, -mean_error(step))

    return walk(real, integer, inputs, change)


def correct_biases_analytically(real: Graph, integer: Graph, inputs: Sequence[Array]) -> Graph:
    """Takes `(W_q - W) E[x]` out of each bias, with the means E[x] of the layers' inputs computed.

    Only mean and variance of each element of the network's input are measured; those of every tensor behind
    it follow by `activation_moments`. Layers whose input has none stay as they are.

    Args:
        inputs: as for `correct_biases`.
    """
    moments = activation_moments(real, inputs)

    def change(step: Step) -> tuple[Value, ...]:
        known = moments.get(str(step.real.inputs[0]))
        if known is None:
            return tuple(v for v in step.integer_site.inputs[1:] if v is not None)
        return step.integer_site.input(1), _shifted(step, -_expected_error(step, known))

    return walk(real, integer, [x[:1] for x in inputs], change)


def mean_error(step: Step) -> Array:
    """By output channel, float64: quantized minus float, before the activation, in real units."""
    bias, rounded = step.site.optional(2), step.integer_site.optional(2)
    wanted = step.output(step.x, step.site.input(1).array, None if bias is None else bias.array)
    given = step.output(
        step.x_quantized,
        real_constant(step.integer_site.input(1)),
        None if rounded is None else real_constant(rounded),
    )
    channels = wanted.shape[-1]
    error: Array = (given.astype(np.float64) - wanted).reshape(-1, channels).mean(axis=0)
    return error


def _expected_error(step: Step, moments: Moments) -> Array:
    wrong = real_constant(step.integer_site.input(1)).astype(np.float64) - step.site.input(1).array
    error = step.output(moments.mean[np.newaxis].astype(np.float32), wrong.astype(np.float32), None)
    mean: Array = error.reshape(-1, error.shape[-1]).mean(axis=0, dtype=np.float64)
    return mean


def _shifted(step: Step, shift: Array) -> Value:
    """The integer bias moved by so much in real units, to the nearest step; made where there was none."""
    bias, x, weights = step.integer_site.optional(2), step.integer_site.input(0), step.integer_site.input(1)
    if bias is None:
        scales = tuple(float(np.float32(x.quant.scale * s)) for s in weights.quant.scales)
        quant = Quantization(scales, (0,) * len(scales), 0 if len(scales) > 1 else None)
        bias = constant(f"{step.integer.name}/bias", np.zeros(len(shift), np.int32), quant)
    moved = bias.array + np.rint(shift / np.array(bias.quant.scales))
    data = np.clip(moved, -INT32_MAX, INT32_MAX).astype(np.int32)
    data.setflags(write=False)
    return replace(bias, data=data)
