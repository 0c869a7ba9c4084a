"""Layers whose activations take levels that are not even: STAIRCASE comes in front of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, DType, Value
from tinydeploy.ir.verify import verify
from tinydeploy.quantize.binarize import binarize
from tinydeploy.quantize.calibrate import group_size, run_groups
from tinydeploy.quantize.densities import half_wave_levels
from tinydeploy.quantize.histogram import Histogram
from tinydeploy.quantize.parametric import moments
from tinydeploy.quantize.recipe import Recipe, linear_nodes
from tinydeploy.quantize.rules import Tie, rule_of
from tinydeploy.quantize.scales import Activations

_ROUNDS = 100
_LEAST_STEP = 1e-3
"""Of a step that least squares would make negative, in parts of the largest magnitude seen."""


def few_levels(graph: Graph, inputs: Sequence[Array], recipe: Recipe) -> Graph:
    """A float graph in which layers read signs and staircases as the recipe says; itself where none does.

    A STAIRCASE stands in front of a layer with weights whose activations take levels that are not even.
    Exceptions: what the network is given keeps its eight bits; and Lloyd's levels are made for what a ReLU
    leaves, so a tensor with negative numbers keeps even ones, of as many bits.

    Args:
        inputs: calibration data, as `calibrate` takes them.

    Raises:
        DeployError: as `Recipe.assign`, or the data does not fit.
    """
    graph = binarize(graph, inputs, recipe)
    wanted = _wanted(graph, recipe)
    if not wanted:
        return graph
    tensors = {str(node.inputs[0]) for node in graph.nodes if node.name in wanted}
    histograms = {name: Histogram() for name in tensors}
    for arrays in run_groups(graph, inputs, group_size(graph)):
        for name, histogram in histograms.items():
            histogram.add(arrays[name])
    result = _rewritten(graph, wanted, partial(_fitted, histograms))
    verify(result)
    return result


def _wanted(graph: Graph, recipe: Recipe) -> dict[str, Activations]:
    """By the name of the layer."""
    assigned = recipe.assign(graph)
    given, stairs = set(graph.inputs), set()
    for node in graph.nodes:
        if isinstance(node.op, ops.Sign | ops.Staircase):
            stairs.add(node.outputs[0])
        elif rule_of(graph, node).tie is Tie.COPY:
            for known in (given, stairs):
                if node.inputs[0] in known:
                    known.add(node.outputs[0])
    found = {}
    for node in linear_nodes(graph):
        treatment = assigned.of(node)
        how = treatment.activations
        if how.levels == "even" or treatment.signs or node.inputs[0] in given | stairs:
            continue
        found[node.name] = how
    return found


def _fitted(histograms: Mapping[str, Histogram], x: str, how: Activations) -> ops.Staircase | None:
    h = histograms[x]
    if how.levels == "abc":
        return base_steps(h, how.bits)
    return None if h.low < 0.0 else half_wave_steps(h, how.bits)


def _rewritten(
    graph: Graph,
    wanted: Mapping[str, Activations],
    make: Callable[[str, Activations], ops.Staircase | None],
) -> Graph:
    values, nodes = dict(graph.values), []
    taken = {*values, *(node.name for node in graph.nodes)}
    done: dict[tuple[str, Activations], str] = {}
    for node in graph.nodes:
        x, how = str(node.inputs[0]), wanted.get(node.name)
        if how is not None and (x, how) not in done:
            op, name = make(x, how), f"{x}/{how.label}"
            if op is not None:
                if name in taken:
                    raise DeployError(f"the name {name!r} is taken", where=graph.source or graph.name)
                values[name] = Value(name, DType.FLOAT32, graph.value(x).shape)
                nodes.append(Node(name, op, (x,), (name,)))
            done[x, how] = x if op is None else name
        source = x if how is None else done[x, how]
        nodes.append(node if source == x else replace(node, inputs=(source, *node.inputs[1:])))
    return replace(graph, values=values, nodes=tuple(nodes))


def half_wave_steps(histogram: Histogram, bits: int) -> ops.Staircase:
    """Lloyd's levels of a rectified Gaussian (HWGQ), and 0, for numbers that were seen, none below 0.

    The deviation is the root mean square of the positive ones; no level lies beyond the largest.
    """
    unit = np.array([0.0, *half_wave_levels(bits)])
    if histogram.width == 0.0:
        return nearest(unit)
    m = moments(histogram)
    sigma = min(math.hypot(m.deviation, m.centre), histogram.high / unit[-1])
    return nearest(unit * (sigma or 1.0))


def nearest(levels: npt.NDArray[np.float64]) -> ops.Staircase:
    """The staircase to the nearest of ascending levels."""
    middles = (levels[1:] + levels[:-1]) / 2
    return ops.Staircase(tuple(map(float, middles)), tuple(map(float, levels)))


def base_steps(histogram: Histogram, bases: int) -> ops.Staircase:
    """`sum_n beta_n H_n(x)` of the least squared error, each H a step from -1 to +1 at a threshold.

    Numbers none of which are below 0 get steps from 0 to 2 beta instead, so that 0 stays 0. Coefficients by
    least squares and thresholds half way between levels, in turns. Source: Lin, Zhao and Pan, "Towards
    Accurate Binary Convolutional Neural Network" (NIPS 2017), section 3.2, for the form; there both are
    learned, and where they start is not said.
    """
    h = histogram
    if h.width == 0.0:
        return nearest(np.arange(bases + 1.0) / bases)
    x, counts = np.clip((h.edges[:-1] + h.edges[1:]) / 2, h.low, h.high), h.counts.astype(np.float64)
    signed = h.low < 0.0
    thresholds = _spread(x, counts if signed else np.where(x > h.width, counts, 0.0), bases)
    levels = np.zeros(bases + 1)
    for _ in range(_ROUNDS):
        beta = _coefficients(x, counts, thresholds, signed=signed)
        beta = np.maximum(beta, _LEAST_STEP * max(h.high, -h.low))
        levels = np.concatenate([[0.0], np.cumsum(2.0 * beta)]) - (beta.sum() if signed else 0.0)
        moved = (levels[1:] + levels[:-1]) / 2
        if np.array_equal(moved, thresholds):
            break
        thresholds = moved
    return nearest(levels)


def _spread(
    x: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], bases: int
) -> npt.NDArray[np.float64]:
    """Numbers between which there are equally many; any ascending ones where almost all are zero."""
    if counts.sum() == 0.0:
        return float(np.abs(x).max()) * (np.arange(bases) + 0.5) / bases
    shares = np.cumsum(counts) / counts.sum()
    return x[np.searchsorted(shares, (np.arange(bases) + 0.5) / bases)]


def _coefficients(
    x: npt.NDArray[np.float64],
    counts: npt.NDArray[np.float64],
    thresholds: npt.NDArray[np.float64],
    *,
    signed: bool,
) -> npt.NDArray[np.float64]:
    """beta of the least squares, (bases,)."""
    passed = (x >= thresholds[:, np.newaxis]).astype(np.float64)
    steps = 2.0 * passed - 1.0 if signed else 2.0 * passed
    weighted = steps * counts
    # The ridge keeps two steps at one place solvable.
    gram = weighted @ steps.T + 1e-9 * counts.sum() * np.eye(len(thresholds))
    beta: npt.NDArray[np.float64] = np.linalg.solve(gram, weighted @ x)
    return beta
