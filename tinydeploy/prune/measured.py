"""Which channels go, by measuring: each step removes the block that costs the least loss for what it saves.

Source: Yang et al. 2018, "NetAdapt", algorithm 1, with the loss after recalibration in place of a short
fine-tuning, and the change of the loss divided by the change of the cost, so that blocks of any size compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.prune.apply import remove
from tinydeploy.prune.cost import Cost
from tinydeploy.prune.groups import Groups, kept_channels
from tinydeploy.prune.select import Importance, SelectOptions, group_blocks, removal_order

Loss = Callable[[Graph, Mapping[str, Array]], float]
"""The loss of a smaller graph, given the indices of the channels that stay of each value of the whole one."""


def select_by_loss(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    goal: float,
    cost: Cost,
    loss: Loss,
    options: SelectOptions | None = None,
    progress: Callable[[float], None] = lambda cost: None,
) -> frozenset[int]:
    """Removes blocks of channels until `cost` is at most `goal`.

    Args:
        importance: the order within each group.
        cost: MACs, parameters or anything that falls with every channel.
        progress: called with the cost after each step.

    Raises:
        DeployError: not even the smallest allowed network reaches the goal.
    """
    options = options or SelectOptions()
    removed = removal_order(graph, groups, importance, options).fixed
    free = [g for g in groups.groups if g.name not in options.ratios]
    waiting = [group_blocks(g, importance, options) for g in free]

    def measured(candidate: frozenset[int]) -> tuple[float, float]:
        smaller = remove(graph, groups, candidate)
        return cost(smaller), loss(smaller, kept_channels(groups, candidate))

    now, value = measured(removed)
    while now > goal:
        tried = [
            (number, *measured(removed | frozenset(blocks[0])))
            for number, blocks in enumerate(waiting)
            if blocks
        ]
        if not tried:
            raise DeployError(
                "even the smallest allowed network misses the goal",
                where="--prune",
                hint=f"at least {options.minimum:.0%} of a group and a multiple of {options.divisor} stay",
            )
        best = min(tried, key=lambda t: (t[2] - value) / max(now - t[1], 1e-12))
        number, now, value = best
        removed |= frozenset(waiting[number].pop(0))
        progress(now)
    return removed
