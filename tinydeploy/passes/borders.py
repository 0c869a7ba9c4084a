"""QUANTIZE and DEQUANTIZE at a graph's inputs and outputs become a property of the border."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ops import Dequantize, Quantize


def strip_borders(graph: Graph) -> Graph:
    """Leaves integer inputs and outputs where a float model was wrapped around an integer one.

    A float input that one QUANTIZE and nothing else reads becomes that node's integer output; a float
    output that DEQUANTIZE computes becomes its integer input. `Border` keeps the original name and the
    fact that it was float. A change of one integer scale to another stays an op.

    Requires: a graph whose nodes are in execution order.
    Ensures: the same integer arithmetic; the same object where there was nothing to strip.
    """
    return _strip_outputs(_strip_inputs(graph))


def _strip_inputs(graph: Graph) -> Graph:
    inputs, borders = list(graph.inputs), list(graph.input_borders)
    gone: list[Node] = []
    readers: dict[str | None, list[Node]] = {}
    for node in graph.nodes:
        for read in node.inputs:
            readers.setdefault(read, []).append(node)
    outputs = set(graph.outputs)
    for i, name in enumerate(graph.inputs):
        nodes = readers.get(name, [])
        if not graph.value(name).dtype.is_float or len(nodes) != 1 or name in outputs:
            continue
        result = nodes[0].outputs[0]
        # A QUANTIZE whose result leaves the graph at once is all that the model does.
        if isinstance(nodes[0].op, Quantize) and result not in outputs:
            inputs[i] = result
            borders[i] = replace(graph.input_borders[i], is_float=True)
            gone.append(nodes[0])
    if not gone:
        return graph
    stripped = _without(graph, gone, set(graph.inputs) - set(inputs))
    return replace(stripped, inputs=tuple(inputs), input_borders=tuple(borders))


def _strip_outputs(graph: Graph) -> Graph:
    outputs, borders = list(graph.outputs), list(graph.output_borders)
    producers = {n.outputs[0]: n for n in graph.nodes if isinstance(n.op, Dequantize)}
    read = {name for n in graph.nodes for name in n.inputs}
    taken = {*graph.inputs, *graph.outputs}
    gone: list[Node] = []
    for i, name in enumerate(graph.outputs):
        node = producers.get(name)
        if node is None or name in read:
            continue
        source = node.inputs[0]
        # An output that is also an input, a constant or another output has no place of its own.
        if source is None or source in taken or graph.value(source).is_constant:
            continue
        taken.add(source)
        outputs[i] = source
        borders[i] = replace(graph.output_borders[i], is_float=True)
        gone.append(node)
    if not gone:
        return graph
    stripped = _without(graph, gone, {n.outputs[0] for n in gone})
    return replace(stripped, outputs=tuple(outputs), output_borders=tuple(borders))


def _without(graph: Graph, nodes: list[Node], values: set[str]) -> Graph:
    gone = {n.name for n in nodes}
    return replace(
        graph,
        nodes=tuple(n for n in graph.nodes if n.name not in gone),
        values={k: v for k, v in graph.values.items() if k not in values},
    )
