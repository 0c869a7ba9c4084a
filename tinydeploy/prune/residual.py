"""Where residual blocks end."""

from __future__ import annotations

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ops import Add


def residual_sums(graph: Graph) -> tuple[Node, ...]:
    """The additions of two activations; one that adds a constant joins nothing."""
    return tuple(n for n in graph.nodes if isinstance(n.op, Add) and len(_flowing(graph, n)) > 1)


def _flowing(graph: Graph, node: Node) -> list[str]:
    return [n for n in node.inputs if n is not None and not graph.value(n).is_constant]
