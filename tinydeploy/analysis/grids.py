"""Integers in the place of reals at any number of bits, simulated in float: what int8 is a case of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.analysis.layers import OUTPUT_AXIS, is_linear
from tinydeploy.engine import run_all
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, Quantization, constant
from tinydeploy.quantize.scales import Range


@dataclass(frozen=True)
class Grid:
    """The reals `scale (k - zero)` for the integers k in [0, levels).

    Attributes:
        bits: of k.
    """

    scale: float
    zero: int
    bits: int

    @property
    def levels(self) -> int:
        return 1 << self.bits

    @property
    def peak(self) -> float:
        """Half of what it spans, a step included: the peak of a signal that fills it."""
        return self.scale * self.levels / 2

    def index(self, x: Array) -> Array:
        """The integers nearest to `x`, int32, saturated."""
        k = np.rint(x.astype(np.float64) / self.scale) + self.zero
        inside: Array = np.clip(k, 0, self.levels - 1)
        return inside.astype(np.int32)

    def real(self, k: Array) -> Array:
        result: Array = ((k - self.zero) * self.scale).astype(np.float32)
        return result

    @staticmethod
    def spanning(span: Range, bits: int) -> Grid:
        """The asymmetric grid whose ends are those of a range that holds zero; zero is one of its points."""
        levels = (1 << bits) - 1
        width = span.high - span.low
        scale = width / levels if width > 0.0 else 1.0
        return Grid(scale, min(max(round(-span.low / scale), 0), levels), bits)

    @staticmethod
    def of(quantization: Quantization, low: int, bits: int) -> Grid:
        """That of a tensor whose integers start at `low`."""
        return Grid(quantization.scale, quantization.zero_point - low, bits)


def rounded_weights(weights: Array, axis: int, bits: int) -> tuple[Array, Array]:
    """Weights as symmetric integers of b bits in [-(2^(b-1) - 1), 2^(b-1) - 1] per output channel leave them.

    One bit leaves the sign and the mean magnitude of the channel, which is the least squared error. Source of
    that: Rastegari et al., "XNOR-Net" (2016), section 3.1.

    Returns:
        The weights, float32, and the step of each output channel, (channels,).
    """
    others = tuple(a for a in range(weights.ndim) if a != axis)
    w = weights.astype(np.float64)
    if bits == 1:
        mean = np.abs(w).mean(axis=others, keepdims=True)
        return (np.where(w < 0, -mean, mean)).astype(np.float32), 2.0 * mean.reshape(-1)
    top = (1 << (bits - 1)) - 1
    steps = np.abs(w).max(axis=others, keepdims=True) / top
    steps = np.where(steps > 0, steps, 1.0)
    return (np.clip(np.rint(w / steps), -top, top) * steps).astype(np.float32), steps.reshape(-1)


def with_rounded_weights(graph: Graph, bits: Mapping[str, int]) -> Graph:
    """A float graph with the weights of some layers as so many bits leave them, by the layer's name."""
    values = dict(graph.values)
    for node in graph.nodes:
        if node.name in bits and is_linear(node):
            name = str(node.inputs[1])
            data, _ = rounded_weights(graph.value(name).array, OUTPUT_AXIS[type(node.op)], bits[node.name])
            values[name] = constant(name, data)
    return replace(graph, values=values)


def run_on_grids(graph: Graph, inputs: Sequence[Array], grids: Mapping[str, Grid]) -> dict[str, Array]:
    """Like `engine.run_all` of a float graph, with every named tensor on its grid; returns the integers.

    Tensors without a grid stay real and are not returned.
    """
    rounding = _Rounding(grids)
    run_all(graph, [rounding.take(n, x) for n, x in zip(graph.inputs, inputs, strict=True)], rounding.take)
    return rounding.integers


class _Rounding:
    def __init__(self, grids: Mapping[str, Grid]) -> None:
        self._grids = grids
        self.integers: dict[str, Array] = {}

    def take(self, name: str, x: Array) -> Array:
        grid = self._grids.get(name)
        if grid is None:
            return x
        self.integers[name] = grid.index(x)
        return grid.real(self.integers[name])
