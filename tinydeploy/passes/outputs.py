"""Every output of a graph becomes something that a layer computes from the inputs, or copies."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Value
from tinydeploy.ops import Reshape
from tinydeploy.passes.constants import evaluate


def copy_outputs(graph: Graph) -> Graph:
    """Gives a place of its own to an output that no layer writes, or that constants alone decide.

    An input that is an output too is copied to a new output; a layer that reads constants only becomes
    the copy of its result.

    Requires a verified graph on which constants were folded; ensures that each output is written by a
    node, and that each node has an activation among its inputs or is a RESHAPE of a constant. Returns
    the graph itself where nothing changed.
    """
    return _copy_inputs(_copy_constants(graph))


def _copy_constants(graph: Graph) -> Graph:
    values = dict(graph.values)
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = [values[n] for n in node.inputs if n is not None]
        if not inputs or not all(v.is_constant for v in inputs):
            nodes.append(node)
            continue
        output = graph.value(node.outputs[0])
        name = _unused(f"{output.name} folded", values)
        folded = evaluate(replace(graph, values=values), node)
        values[name] = replace(folded, name=name)
        nodes.append(replace(node, op=Reshape(output.shape), inputs=(name,)))
    if nodes == list(graph.nodes):
        return graph
    return replace(graph, values=values, nodes=tuple(nodes))


def _copy_inputs(graph: Graph) -> Graph:
    values = dict(graph.values)
    nodes, outputs = list(graph.nodes), list(graph.outputs)
    for i, name in enumerate(graph.outputs):
        if name not in graph.inputs:
            continue
        value: Value = values[name]
        outputs[i] = _unused(f"{name} copied", values)
        values[outputs[i]] = replace(value, name=outputs[i])
        taken = dict.fromkeys(n.name for n in nodes)
        nodes.append(Node(_unused(f"copy of {name}", taken), Reshape(value.shape), (name,), (outputs[i],)))
    if outputs == list(graph.outputs):
        return graph
    return replace(graph, values=values, nodes=tuple(nodes), outputs=tuple(outputs))


def _unused(name: str, taken: dict[str, Value] | dict[str, None]) -> str:
    while name in taken:
        name += "_"
    return name
