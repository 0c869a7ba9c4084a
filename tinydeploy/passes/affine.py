"""Products and sums with constants, as batch norms leave them, go into the weights before them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, Value, constant
from tinydeploy.ops import Activation
from tinydeploy.passes.rewrite import producers, reads, with_nodes

Linear = ops.Conv2D | ops.DepthwiseConv2D | ops.FullyConnected


def fold_affine(graph: Graph) -> Graph:
    """Folds MUL and ADD by a constant per channel into the linear layer that alone feeds them.

    Requires: a float graph in execution order. Ensures: the same outputs to float rounding; folded constants
    are computed in double precision and rounded once; the batch-norm scale of a product goes to the layer.
    Returns the graph itself where nothing changed.
    """
    return _Folding(graph).run()


@dataclass
class _Scaled:
    """A linear layer on its way: weights and bias in double precision."""

    node: Node
    weights: Array
    bias: Array


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._reads = reads(graph)
        self._made = producers(graph)
        self._nodes: dict[str, Node] = {n.name: n for n in graph.nodes}
        self._scaled: dict[str, _Scaled] = {}
        self._norms = dict(graph.norm_scales)

    def run(self) -> Graph:
        for node in self._graph.nodes:
            self._fold(node)
        if not self._scaled:
            return self._graph
        values: dict[str, Value] = {}
        for name, scaled in self._scaled.items():
            self._nodes[name] = self._finished(scaled, values)
        graph = replace(self._graph, norm_scales=self._norms)
        return with_nodes(graph, self._nodes.values(), values)

    def _fold(self, node: Node) -> None:
        if not isinstance(node.op, ops.Add | ops.Mul):
            return
        source, data = self._operands(node)
        if source is None or data is None or self._reads[source] != 1 or source not in self._made:
            return
        producer = self._nodes[self._made[source].name]
        op = producer.op
        if not isinstance(op, Linear) or op.activation is not Activation.NONE:
            return
        shape = self._graph.value(source).shape
        # Per channel only: the constant varies along the last axis, if at all, and adds no axis.
        if data.ndim > len(shape) or data.size not in (1, shape[-1]) or data.size != data.shape[-1:][0]:
            return
        if self._graph.value(node.outputs[0]).shape != shape:
            return
        scaled = self._scaled.get(producer.name) or self._start(producer)
        if scaled is None:
            return
        channel = np.broadcast_to(data.astype(np.float64).ravel(), (shape[-1],))
        if isinstance(node.op, ops.Mul):
            axis = 3 if isinstance(op, ops.DepthwiseConv2D) else 0
            along = [1] * scaled.weights.ndim
            along[axis] = -1
            scaled.weights = scaled.weights * channel.reshape(along)
            scaled.bias = scaled.bias * channel
            if node.name in self._norms:
                self._norms[producer.name] = self._norms.pop(node.name)
        else:
            scaled.bias = scaled.bias + channel
        fused = replace(op, activation=node.op.activation)
        self._nodes[producer.name] = scaled.node = replace(producer, op=fused, outputs=node.outputs)
        self._scaled[producer.name] = scaled
        self._made[node.outputs[0]] = scaled.node
        del self._nodes[node.name]

    def _operands(self, node: Node) -> tuple[str | None, Array | None]:
        """The activation's name and the constant's data, whichever way round they stand."""
        values = self._graph.node_inputs(node)
        for i, value in enumerate(values):
            other = values[1 - i]
            if value is not None and value.data is not None and other is not None and other.data is None:
                return (other.name, value.data) if value.dtype.is_float and value.data.ndim else (None, None)
        return None, None

    def _start(self, node: Node) -> _Scaled | None:
        values = self._graph.node_inputs(node)
        if values[1] is None or values[1].data is None or not values[1].dtype.is_float:
            return None
        weights = values[1].data.astype(np.float64)
        bias = values[2] if len(values) > 2 else None
        if bias is not None and bias.data is None:
            return None
        outputs = weights.shape[3] if isinstance(node.op, ops.DepthwiseConv2D) else weights.shape[0]
        data = np.zeros(outputs) if bias is None or bias.data is None else bias.data.astype(np.float64)
        return _Scaled(node, weights, data)

    def _finished(self, scaled: _Scaled, values: dict[str, Value]) -> Node:
        """The node with constants of its own; the old ones may belong to other nodes as well."""
        source, weights = scaled.node.inputs[0], scaled.node.inputs[1]
        names = (f"{weights}.folded", f"{scaled.node.name}.bias.folded")
        data = (scaled.weights, scaled.bias)
        for name, array in zip(names, data, strict=True):
            values[name] = constant(name, array.astype(np.float32))
        return replace(scaled.node, inputs=(source, *names))
