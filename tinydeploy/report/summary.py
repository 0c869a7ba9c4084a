"""`inspect --json`: what a model consists of."""

from __future__ import annotations

from tinydeploy.ir.graph import Border, Graph, Node
from tinydeploy.ir.show import attributes
from tinydeploy.ir.types import Value
from tinydeploy.ir.verify import graph_macs, node_macs
from tinydeploy.profiling import graph_params


def graph_summary(graph: Graph, model: str) -> dict[str, object]:
    """The JSON document of a graph."""
    return {
        "model": model,
        "macs": graph_macs(graph),
        "params": graph_params(graph),
        "transposes": transposes(graph),
        "inputs": [_port(graph, *pair) for pair in zip(graph.inputs, graph.input_borders, strict=True)],
        "outputs": [_port(graph, *pair) for pair in zip(graph.outputs, graph.output_borders, strict=True)],
        "ops": [_node(graph, node) for node in graph.nodes],
    }


def transposes(graph: Graph) -> dict[str, int]:
    """How often data changes its order: between layers, and at the borders for the source's sake."""
    borders = (*graph.input_borders, *graph.output_borders)
    return {
        "layers": sum(node.op.kind == "TRANSPOSE" for node in graph.nodes),
        "borders": sum(b.layout is not None for b in borders),
    }


def _port(graph: Graph, name: str, border: Border) -> dict[str, object]:
    value = graph.value(name)
    shape = value.shape if border.layout is None else border.layout.shape
    return {**_value(value), "float_in_source_model": border.is_float, "source_shape": list(shape)}


def _node(graph: Graph, node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "op": node.op.kind,
        "attributes": attributes(node.op),
        "inputs": list(node.inputs),
        "outputs": [_value(graph.value(n)) for n in node.outputs],
        "macs": node_macs(graph, node),
    }


def _value(value: Value) -> dict[str, object]:
    document: dict[str, object] = {
        "name": value.name,
        "dtype": value.dtype.value,
        "shape": list(value.shape),
    }
    if value.quantization is not None and not value.quantization.per_channel:
        document["scale"] = value.quantization.scale
        document["zero_point"] = value.quantization.zero_point
    return document
