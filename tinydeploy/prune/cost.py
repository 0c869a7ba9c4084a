"""What a channel costs, and what removing one saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.prune.apply import remove
from tinydeploy.prune.groups import Group, Groups

Cost = Callable[[Graph], float]
"""A number that falls as channels go."""


def parameters(graph: Graph) -> int:
    """Elements of all constants."""
    return sum(v.elements for v in graph.constants())


def activations(graph: Graph) -> int:
    """Elements of all tensors that are computed."""
    return sum(graph.value(name).elements for node in graph.nodes for name in node.outputs)


COSTS: Mapping[str, Cost] = {
    "macs": graph_macs,
    "latency": graph_macs,
    "params": parameters,
    "flash": parameters,
    "ram": activations,
}
"""What stands for each goal: cheap to count, and near enough to rank channels by."""


def cost_of(kind: str) -> Cost:
    """The cost behind a goal; a ratio counts MACs."""
    return COSTS.get(kind, graph_macs)


def savings(graph: Graph, groups: Groups, cost: Cost, divisor: int) -> dict[str, float]:
    """The share of the cost that one channel of each group saves, by the group's name.

    Of the graph as it is: what a channel saves falls as its neighbours go, for all groups alike at first.
    """
    whole = max(cost(graph), 1.0)
    return {g.name: _saving(graph, groups, g, cost, divisor) / whole for g in groups.groups}


def _saving(graph: Graph, groups: Groups, group: Group, cost: Cost, divisor: int) -> float:
    some = [c.root for c in group.channels[: max(min(divisor, len(group.channels) - 1), 0)]]
    if not some:
        return 0.0
    return (cost(graph) - cost(remove(graph, groups, frozenset(some)))) / len(some)
