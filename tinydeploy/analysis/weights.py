"""The weights of a network: their steps, their noise, and how far their peak lies above their rms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.analysis.grids import rounded_weights
from tinydeploy.analysis.layers import OUTPUT_AXIS, LinearLayer
from tinydeploy.analysis.noise import decibels_of
from tinydeploy.ir.graph import Graph
from tinydeploy.passes.twin import real_constant


@dataclass(frozen=True)
class WeightStatistics:
    """Of one layer's weights, in real units; peaks are those of each output channel.

    Attributes:
        power: mean square.
        peak_power: mean over the channels of the squared peak, which is what their steps follow.
        step_power: mean over the channels of the squared step.
        noise: mean square of what quantization changed; None where the float weights are not known.
    """

    power: float
    peak_power: float
    step_power: float
    noise: float | None

    @property
    def zeta_db(self) -> float:
        """Peak over rms, with a peak a channel."""
        return decibels_of(self.peak_power / self.power) if self.power else float("inf")

    @property
    def sqnr_db(self) -> float | None:
        """Measured."""
        return None if self.noise is None else _ratio_db(self.power, self.noise)

    @property
    def rounding_db(self) -> float:
        """Predicted: `step^2 / 12` a channel."""
        return _ratio_db(self.power, self.step_power / 12)


def weight_statistics(graph: Graph, layer: LinearLayer) -> WeightStatistics:
    """Of a float layer rounded to its bits per output channel, or of an integer one as it is."""
    value = graph.value(str(layer.node.inputs[1]))
    axis = OUTPUT_AXIS[type(layer.node.op)]
    if value.dtype.is_float:
        real = value.array
        rounded, steps = rounded_weights(real, axis, layer.weight_bits)
        noise = float(np.mean((real.astype(np.float64) - rounded) ** 2))
    else:
        real, steps, noise = real_constant(value), np.array(value.quant.scales), None
    others = tuple(a for a in range(real.ndim) if a != axis)
    peaks = np.abs(real).max(axis=others).astype(np.float64)
    return WeightStatistics(
        float(np.mean(real.astype(np.float64) ** 2)),
        float(np.mean(peaks**2)),
        float(np.mean(steps**2)),
        noise,
    )


def _ratio_db(signal: float, noise: float) -> float:
    return float("inf") if noise == 0.0 else decibels_of(signal / noise)
