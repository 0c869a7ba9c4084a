"""What the rewriting passes share: who reads a value, and graphs without some of their nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Value


def reads(graph: Graph) -> Counter[str]:
    """How often each value is read; leaving the graph as an output counts as well."""
    count = Counter(name for node in graph.nodes for name in node.inputs if name is not None)
    count.update(graph.outputs)
    return count


def producers(graph: Graph) -> dict[str, Node]:
    """The node that computes each value."""
    return {node.outputs[0]: node for node in graph.nodes}


def with_nodes(graph: Graph, nodes: Iterable[Node], values: Mapping[str, Value] | None = None) -> Graph:
    """The graph with other nodes, and without the values that then nobody names."""
    kept = tuple(nodes)
    used = {n for node in kept for n in (*node.inputs, *node.outputs)} | {*graph.inputs, *graph.outputs}
    known = {**graph.values, **(values or {})}
    names = {node.name for node in kept}
    return replace(
        graph,
        nodes=kept,
        values={name: v for name, v in known.items() if name in used},
        norm_scales={name: scale for name, scale in graph.norm_scales.items() if name in names},
    )
