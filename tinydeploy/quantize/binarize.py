"""Layers that multiply by XNOR read signs: SIGN, and where they pad, PAD with -1, come in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, DType, Value
from tinydeploy.ir.verify import verify
from tinydeploy.quantize.calibrate import group_size, run_groups
from tinydeploy.quantize.histogram import Histogram
from tinydeploy.quantize.recipe import Recipe, linear_nodes

_ROUNDS = 50


def binarize(graph: Graph, inputs: Sequence[Array], recipe: Recipe) -> Graph:
    """A float graph in which the layers that the recipe says read two levels; the graph itself where none is.

    What holds numbers of both signs becomes `beta * sign(x)` with beta the mean of |x| (XNOR-Net), and the
    convolution pads with -beta. What a clamp left without negative numbers becomes 0 or the level that is
    nearest in the mean square; there the integer -1 stands for 0, so that padding with -1 is padding with 0.

    Args:
        inputs: calibration data, as `calibrate` takes them.

    Raises:
        DeployError: a pattern of the recipe matches no layer, or the data does not fit.
    """
    assigned = recipe.assign(graph)
    made = {node.outputs[0]: node for node in graph.nodes}
    chosen = [
        node for node in linear_nodes(graph) if assigned.of(node).signs and not _reads_signs(node, made)
    ]
    if not chosen:
        return graph
    tensors = {str(node.inputs[0]) for node in chosen}
    histograms = {name: Histogram() for name in tensors}
    for arrays in run_groups(graph, inputs, group_size(graph)):
        for name, histogram in histograms.items():
            histogram.add(arrays[name])
    signs = {name: ops.Sign(*levels(h)) for name, h in histograms.items()}
    result = _rewritten(graph, {node.name for node in chosen}, signs)
    verify(result)
    return result


def levels(histogram: Histogram) -> tuple[float, float]:
    """The two levels for numbers that were seen: `(-beta, beta)`, or `(0, level)` for numbers from 0 up."""
    h = histogram
    if h.width == 0.0:
        return -1.0, 1.0
    centres = np.clip((h.edges[:-1] + h.edges[1:]) / 2, h.low, h.high)
    if h.low < 0.0:
        beta = float(np.average(np.abs(centres), weights=h.counts))
        return -beta, beta
    level = h.high
    for _ in range(_ROUNDS):
        above = centres >= level / 2
        moved = float(np.average(centres[above], weights=h.counts[above]))
        if moved == level:
            break
        level = moved
    return 0.0, level


def _reads_signs(node: Node, made: dict[str, Node]) -> bool:
    """Whether SIGN stands in front already, perhaps behind PAD."""
    before = made.get(str(node.inputs[0]))
    if before is not None and isinstance(before.op, ops.Pad):
        before = made.get(str(before.inputs[0]))
    return before is not None and isinstance(before.op, ops.Sign)


def _rewritten(graph: Graph, chosen: set[str], signs: dict[str, ops.Sign]) -> Graph:
    values, nodes = dict(graph.values), []
    names = {node.name for node in graph.nodes}
    done: dict[str, str] = {}

    def add(name: str, op: ops.Sign | ops.Pad, source: str, shape: tuple[int, ...]) -> str:
        if name in values or name in names:
            raise DeployError(f"the name {name!r} is taken", where=graph.source or graph.name)
        values[name] = Value(name, DType.FLOAT32, shape)
        nodes.append(Node(name, op, (source,), (name,)))
        return name

    for node in graph.nodes:
        if node.name not in chosen:
            nodes.append(node)
            continue
        x = str(node.inputs[0])
        sign, shape = signs[x], graph.value(x).shape
        if x not in done:
            done[x] = add(f"{x}/sign", sign, x, shape)
        source, op = done[x], node.op
        if isinstance(op, ops.Conv2D | ops.DepthwiseConv2D) and not op.padding.none and sign.low < 0.0:
            p = op.padding
            widths = ((0, 0), (p.top, p.bottom), (p.left, p.right), (0, 0))
            padded = tuple(n + sum(w) for n, w in zip(shape, widths, strict=True))
            source = add(f"{node.name}/padded", ops.Pad(widths, sign.low), source, padded)
            op = replace(op, padding=ops.Padding())
        nodes.append(replace(node, op=op, inputs=(source, *node.inputs[1:])))
    return replace(graph, values=values, nodes=tuple(nodes))
