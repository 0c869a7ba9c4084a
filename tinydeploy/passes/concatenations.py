"""QUANTIZE in front of a concatenation becomes the concatenation's own change of scale."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ops import Concatenation, Quantize
from tinydeploy.ops.requantize import same_quantization
from tinydeploy.passes.rewrite import producers, reads, with_nodes


def fold_requantizations(graph: Graph) -> Graph:
    """Lets a concatenation read what a QUANTIZE between two integer scales read.

    TFLite needs that QUANTIZE where the scales differ; here a concatenation does the same arithmetic.

    Requires: a verified graph. Ensures: the same integers. Returns the graph itself where nothing changed.
    """
    made = producers(graph)

    def source(name: str | None, output: str) -> str | None:
        node = made.get(name or "")
        if node is None or not isinstance(node.op, Quantize):
            return name
        x, y = graph.node_inputs(node)[0], graph.value(node.outputs[0])
        if (
            x is None
            or x.is_constant
            or x.dtype is not y.dtype
            or not same_quantization(y, graph.value(output))
        ):
            return name
        return x.name

    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = node.inputs
        if isinstance(node.op, Concatenation):
            inputs = tuple(source(n, node.outputs[0]) for n in inputs)
        nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
        return graph
    folded = with_nodes(graph, nodes)
    count = reads(folded)
    return with_nodes(folded, (n for n in nodes if not isinstance(n.op, Quantize) or count[n.outputs[0]]))
