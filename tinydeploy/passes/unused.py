"""Dead nodes: those that no output depends on."""

from __future__ import annotations

from tinydeploy.ir.graph import Graph
from tinydeploy.passes.rewrite import with_nodes


def drop_unused(graph: Graph) -> Graph:
    """Removes nodes that no output needs, and values that nobody names.

    Requires: nodes in execution order. Ensures: the same outputs.
    """
    needed: set[str | None] = set(graph.outputs)
    live = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            live.append(node)
            needed.update(node.inputs)
    return with_nodes(graph, reversed(live))
