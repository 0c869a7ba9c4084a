"""Graphs with names that a page has to survive."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir.graph import Graph


def renamed(graph: Graph, prefix: str) -> Graph:
    """The same graph with other names of all tensors and layers."""

    def name(n: str | None) -> str | None:
        return None if n is None else prefix + n

    nodes = tuple(
        replace(
            n,
            name=prefix + n.name,
            inputs=tuple(name(x) for x in n.inputs),
            outputs=tuple(prefix + o for o in n.outputs),
        )
        for n in graph.nodes
    )
    return Graph(
        graph.name,
        {prefix + n: replace(v, name=prefix + n) for n, v in graph.values.items()},
        nodes,
        tuple(prefix + n for n in graph.inputs),
        tuple(prefix + n for n in graph.outputs),
    )
