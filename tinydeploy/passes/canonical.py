"""One form for what formats write in several ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.ir.forms import Planes
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Quantization, Value
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Conv2D, DepthwiseConv2D


def canonical(graph: Graph) -> Graph:
    """A depthwise convolution of one input channel becomes a convolution, which it equals.

    TFLite has two operators for it and ONNX one; a model gives the same C from either file.

    Requires a verified graph; ensures that no DepthwiseConv2D reads a single channel. Returns the graph
    itself where nothing changed.
    """
    values = dict(graph.values)
    nodes: list[Node] = []
    for node in graph.nodes:
        site = site_of(graph, node)
        shared = (
            sum(n == node.inputs[1] for other in graph.nodes for n in other.inputs) > 1
            if (len(node.inputs) > 1)
            else True
        )
        if (
            not isinstance(node.op, DepthwiseConv2D)
            or site.input(0).shape[3] != 1
            or shared
            or _planes(site.input(1))
        ):
            nodes.append(node)
            continue
        op = node.op
        weights = _as_convolution(site.input(1))
        values[weights.name] = weights
        nodes.append(replace(node, op=Conv2D(op.strides, op.dilations, op.padding, op.activation)))
    if nodes == list(graph.nodes):
        return graph
    return replace(graph, values=values, nodes=tuple(nodes))


def _planes(weights: Value) -> bool:
    """Bit planes have their axes in their form as well, and the C is the same either way."""
    return isinstance(weights.form, Planes)


def _as_convolution(weights: Value) -> Value:
    """[1, H, W, outputs] as [outputs, H, W, 1]."""
    data = np.ascontiguousarray(np.transpose(weights.array, (3, 1, 2, 0)))
    data.setflags(write=False)
    quant = weights.quantization
    if quant is not None and quant.axis is not None:
        quant = Quantization(quant.scales, quant.zero_points, 0)
    return replace(weights, shape=data.shape, data=data, quantization=quant)
