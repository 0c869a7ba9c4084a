"""Constant folding: a node that reads constants only becomes one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Value
from tinydeploy.ir.verify import site_of


def fold_constants(graph: Graph) -> Graph:
    """Evaluates every node whose inputs are all constants and that is no output of the graph.

    Requires a verified graph; ensures that each remaining node reads an activation, or writes an output.
    Returns the graph itself where nothing changed.
    """
    values = dict(graph.values)
    nodes: list[Node] = []
    for node in graph.nodes:
        current = replace(graph, values=values)
        inputs = [None if n is None else values[n] for n in node.inputs]
        constant = all(v is None or v.is_constant for v in inputs)
        if not constant or node.outputs[0] in graph.outputs:
            nodes.append(node)
            continue
        values[node.outputs[0]] = evaluate(current, node)
    if len(nodes) == len(graph.nodes):
        return graph
    used = {n for node in nodes for n in (*node.inputs, *node.outputs)} | {*graph.inputs, *graph.outputs}
    kept = {name: value for name, value in values.items() if name in used}
    return replace(graph, values=kept, nodes=tuple(nodes))


def evaluate(graph: Graph, node: Node) -> Value:
    """The output of a node that reads constants only, as a constant."""
    site = site_of(graph, node)
    arrays = [None if v is None else v.array[np.newaxis] for v in site.inputs]
    compute = node.op.run_float if site.output.dtype.is_float else node.op.run_integer
    data = np.ascontiguousarray(compute(site, arrays)[0])
    data.setflags(write=False)
    return replace(site.output, data=data)
