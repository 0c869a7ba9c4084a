"""What is measured of the tensors that flow: a float graph beside its quantized self, on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinydeploy.analysis.divergence import kl_of_counts
from tinydeploy.analysis.grids import Grid
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ops import Activation
from tinydeploy.quantize.calibrate import group_size, run_groups
from tinydeploy.quantize.rules import Ends, fused
from tinydeploy.quantize.ties import clamps_behind

BINS = 64
"""Of a histogram: more would compare how few samples fall into each."""

RunIntegers = Callable[[Sequence[Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Compared:
    """A float graph and what its quantized self computes.

    Attributes:
        grids: of the tensors that both have, by name.
        integers: for real inputs (samples, *shape), the indices on the grids, by name.
    """

    real: Graph
    grids: Mapping[str, Grid]
    integers: RunIntegers


@dataclass
class Statistics:
    """Sums over all samples and elements of one tensor; a clamp that follows alone is applied first.

    Attributes:
        signal, noise: mean of f^2 and of (f - q)^2.
        steady: mean over channels and samples of the squared mean over pixels: what of the signal is the same
            at every pixel.
        peak: largest |f|.
        passing: the share of elements strictly between the ends of the clamp.
        counts, quantized: histograms of f and q; a bin is as many points of the grid as leave BINS bins.
    """

    elements: int = 0
    signal: float = 0.0
    noise: float = 0.0
    steady: float = 0.0
    peak: float = 0.0
    passing: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    quantized: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, f: Array, k: Array, grid: Grid, ends: Ends) -> None:
        """Takes in reals and, of the same shape, indices on the grid."""
        wide, q = _clamp(f.astype(np.float64), ends), _clamp(grid.real(k).astype(np.float64), ends)
        before, self.elements = self.elements, self.elements + f.size
        share = f.size / self.elements
        self.signal += share * (float(np.mean(wide**2)) - self.signal)
        self.noise += share * (float(np.mean((wide - q) ** 2)) - self.noise)
        pixels = wide.reshape(len(wide), -1, wide.shape[-1]).mean(axis=1)
        self.steady += share * (float(np.mean(pixels**2)) - self.steady)
        self.passing += share * (float(np.mean(_inside(wide, ends))) - self.passing)
        self.peak = max(self.peak, float(np.abs(wide).max()))
        merged = max(grid.levels // BINS, 1)
        found, placed = (
            np.bincount(grid.index(x).ravel() // merged, minlength=grid.levels // merged) for x in (wide, q)
        )
        self.counts, self.quantized = (
            (self.counts + found, self.quantized + placed) if before else (found, placed)
        )

    @property
    def rms(self) -> float:
        return float(np.sqrt(self.signal))

    @property
    def divergences(self) -> tuple[float, float]:
        """KL of float from quantized, and of quantized from float, in nats."""
        return kl_of_counts(self.counts, self.quantized)


def measure_tensors(compared: Compared, inputs: Sequence[Array]) -> dict[str, Statistics]:
    """The statistics of each tensor that flows and has a grid, in execution order.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.

    Raises:
        DeployError: the data do not fit the inputs.
    """
    graph = compared.real
    flowing = [*graph.inputs, *(n for node in graph.nodes for n in node.outputs)]
    found = {name: Statistics() for name in flowing if name in compared.grids}
    ends = {**_fused_ends(graph), **clamps_behind(graph)}
    size = group_size(graph)
    for number, arrays in enumerate(run_groups(graph, inputs, size)):
        integers = compared.integers([x[number * size : (number + 1) * size] for x in inputs])
        for name, statistics in found.items():
            if name in integers:
                given = ends.get(name, (None, None))
                statistics.add(arrays[name], integers[name], compared.grids[name], given)
    return {name: s for name, s in found.items() if s.elements}


def _fused_ends(graph: Graph) -> dict[str, Ends]:
    """The ends of fused activations, beyond which nothing can lie."""
    ends = {node.outputs[0]: fused(node.op) for node in graph.nodes}
    return {name: a.range for name, a in ends.items() if a is not Activation.NONE}


def _clamp(x: Array, ends: Ends) -> Array:
    low, high = ends
    return x if low is None and high is None else np.clip(x, low, high)


def _inside(x: Array, ends: Ends) -> Array:
    low, high = ends
    inside = np.ones(x.shape, np.bool_)
    if low is not None:
        inside &= x > low
    if high is not None:
        inside &= x < high
    return inside
