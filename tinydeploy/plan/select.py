"""Fast kernels where the arena allows them."""

from __future__ import annotations

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import node_macs
from tinydeploy.plan.arena import plan_memory
from tinydeploy.plan.kernels import PORTABLE, Kernels, choose_kernels

_MOST_NODES = 500


def select_kernels(graph: Graph, *, has_dsp: bool, spare_bytes: int) -> Kernels:
    """The kernel of every layer: fast ones, as long as their scratch costs little RAM.

    Args:
        has_dsp: the core has the DSP extension.
        spare_bytes: by how much the arena may exceed that of the portable kernels. The layers with the most
            multiply-accumulates come first.
    """
    portable = choose_kernels(graph)
    # Each layer costs a plan; a graph of that size has no place on a microcontroller anyway.
    if not has_dsp or len(graph.nodes) > _MOST_NODES:
        return portable
    fast = choose_kernels(graph, has_dsp=True)
    limit = plan_memory(graph, portable).arena_bytes + spare_bytes
    if plan_memory(graph, fast).arena_bytes <= limit:
        return fast
    chosen = dict(portable)
    for node in sorted(graph.nodes, key=lambda n: -node_macs(graph, n)):
        if fast[node.name].name == PORTABLE:
            continue
        trial = {**chosen, node.name: fast[node.name]}
        if plan_memory(graph, trial).arena_bytes <= limit:
            chosen = trial
    return chosen
