"""A clamp that stands alone becomes the fused activation of the one op that feeds it."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Op
from tinydeploy.ops import Activation
from tinydeploy.passes.rewrite import producers, reads, with_nodes

_FUSING = (
    ops.Add,
    ops.AveragePool2D,
    ops.Conv2D,
    ops.DepthwiseConv2D,
    ops.FullyConnected,
    ops.MaxPool2D,
    ops.Mul,
    ops.Relu,
)

# One clamp after another, where the two together are one of the kinds again.
_TOGETHER = {
    (Activation.RELU, Activation.RELU6): Activation.RELU6,
    (Activation.RELU6, Activation.RELU): Activation.RELU6,
}


def fuse_activations(graph: Graph) -> Graph:
    """Fuses each RELU into its producer where nothing else reads the value between them.

    Requires: a float graph in execution order. Ensures: the same arithmetic; the clamped value keeps its
    name. Returns the graph itself where nothing changed.
    """
    count, made = reads(graph), producers(graph)
    nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        source = node.inputs[0]
        if not isinstance(node.op, ops.Relu) or source is None or count[source] != 1 or source not in made:
            continue
        producer = nodes[made[source].name]
        op = _fused(producer.op, node.op.activation)
        if op is None or not graph.value(source).dtype.is_float:
            continue
        # The producer writes what the clamp wrote, and keeps its own name, which says more.
        nodes[producer.name] = replace(producer, op=op, outputs=node.outputs)
        made[node.outputs[0]] = producer
        del nodes[node.name]
    return graph if len(nodes) == len(graph.nodes) else with_nodes(graph, nodes.values())


def _fused(op: Op, activation: Activation) -> Op | None:
    if not isinstance(op, _FUSING):
        return None
    if op.activation in (Activation.NONE, activation):
        return replace(op, activation=activation)
    together = _TOGETHER.get((op.activation, activation))
    return None if together is None else replace(op, activation=together)
