"""The weights of a network: their steps, their noise, and how far their peak lies above their rms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.analysis.layers import OUTPUT_AXIS, LinearLayer
from tinydeploy.analysis.noise import decibels_of
from tinydeploy.ir.forms import Packed
from tinydeploy.ir.graph import Graph
from tinydeploy.passes.twin import real_constant


@dataclass(frozen=True)
class WeightStatistics:
    """Of one layer's weights, in real units.

    Attributes:
        power: mean square.
        peak_power: mean over the output channels of the squared peak, which is what their steps follow.
        rounding: the noise that a formula predicts, `step^2 / 12` averaged over the channels; None for
            codebooks and bit planes, whose levels are not uniform.
        noise: mean square of what quantization changed; None where the float weights are not known.
    """

    power: float
    peak_power: float
    rounding: float | None
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
    def rounding_db(self) -> float | None:
        """Predicted."""
        return None if self.rounding is None else _ratio_db(self.power, self.rounding)


def weight_statistics(layer: LinearLayer, graph: Graph, real: Graph | None) -> WeightStatistics:
    """Of a layer of an integer graph.

    Args:
        real: the float graph that it was made of, or None.
    """
    value = graph.value(str(layer.node.inputs[1]))
    rounded = real_constant(value).astype(np.float64)
    weights, noise = rounded, None
    if real is not None:
        node = next(n for n in real.nodes if n.name == layer.node.name)
        weights = real.value(str(node.inputs[1])).array.astype(np.float64)
        noise = float(np.mean((weights - rounded) ** 2))
    axis = OUTPUT_AXIS[type(layer.node.op)]
    peaks = np.abs(weights).max(axis=tuple(a for a in range(weights.ndim) if a != axis))
    uniform = value.form is None or isinstance(value.form, Packed)
    steps = np.array(value.quant.scales)
    return WeightStatistics(
        float(np.mean(weights**2)),
        float(np.mean(peaks**2)),
        float(np.mean(steps**2)) / 12 if uniform else None,
        noise,
    )


def _ratio_db(signal: float, noise: float) -> float:
    return float("inf") if noise == 0.0 else decibels_of(signal / noise)
