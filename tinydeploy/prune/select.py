"""Which channels go: a ratio of every group, or as many as a goal in MACs or parameters demands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.prune.apply import remove
from tinydeploy.prune.groups import Group, Groups

Importance = Mapping[int, float]


@dataclass(frozen=True)
class SelectOptions:
    """How channels are selected.

    Attributes:
        divisor: a group keeps a multiple of this many channels, so that kernels that take several channels
            at a time stay full; a group with fewer channels keeps them all.
        minimum: the least fraction of a group that stays when a goal is pursued.
    """

    divisor: int = 4
    minimum: float = 0.125


def select_by_ratio(
    groups: Groups,
    importance: Importance,
    ratio: float | Mapping[str, float],
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """Removes the fraction `ratio` of every group, the least important first, rounded down to the divisor.

    Args:
        ratio: for all groups, or by group name (0 for those that are not named).

    Raises:
        DeployError: a ratio outside [0, 1).
    """
    options = options or SelectOptions()
    removed: set[int] = set()
    for group in groups.groups:
        r = ratio if isinstance(ratio, float | int) else ratio.get(group.name, 0.0)
        if not 0.0 <= r < 1.0:
            raise DeployError(f"the pruning ratio {r} is not in [0, 1)", where="--prune")
        keep = _round_up(len(group.channels) * (1.0 - r), len(group.channels), options.divisor)
        removed.update(_ranked(group, importance)[: len(group.channels) - keep])
    return frozenset(removed)


def select_by_macs(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    fraction: float,
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """Removes the least important channels, over all groups, until at most `fraction` of the MACs is left."""
    return _select(graph, groups, importance, fraction, options or SelectOptions(), graph_macs, "macs")


def select_by_params(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    fraction: float,
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """The same for the number of weights and biases."""
    return _select(graph, groups, importance, fraction, options or SelectOptions(), _params, "params")


def _params(graph: Graph) -> int:
    return sum(v.elements for v in graph.constants())


def _select(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    fraction: float,
    options: SelectOptions,
    cost: Callable[[Graph], int],
    what: str,
) -> frozenset[int]:
    if not 0.0 < fraction <= 1.0:
        raise DeployError(f"the goal {what}={fraction:.0%} is not in (0, 100]", where="--prune")
    blocks = _blocks(groups, importance, options)
    goal = fraction * cost(graph)

    def removed(count: int) -> frozenset[int]:
        return frozenset(root for block in blocks[:count] for root in block)

    if cost(remove(graph, groups, removed(len(blocks)))) > goal:
        raise DeployError(
            f"even the smallest allowed network keeps more than {fraction:.0%} of the {what}",
            where="--prune",
            hint=f"at least {options.minimum:.0%} of every group and a multiple of {options.divisor} stay",
        )
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        if cost(remove(graph, groups, removed(middle))) <= goal:
            high = middle
        else:
            low = middle + 1
    return removed(low)


def _blocks(groups: Groups, importance: Importance, options: SelectOptions) -> list[tuple[int, ...]]:
    """Blocks of `divisor` channels of one group, over all groups, the least important first.

    The order within a group is its own order of importance, so that a prefix is always possible.
    """
    blocks: list[tuple[float, int, tuple[int, ...]]] = []
    for number, group in enumerate(groups.groups):
        score = 0.0
        for block in group_blocks(group, importance, options):
            score = max(score, sum(importance[r] for r in block) / len(block))
            blocks.append((score, number, block))
    return [block for _, _, block in sorted(blocks, key=lambda b: (b[0], b[1]))]


def group_blocks(group: Group, importance: Importance, options: SelectOptions) -> list[tuple[int, ...]]:
    """What may go of a group, the least important first; a multiple of the divisor stays."""
    ranked = _ranked(group, importance)
    size = len(ranked)
    keep = _round_up(size * options.minimum, size, options.divisor)
    first = (size - keep) % options.divisor or options.divisor
    stops = [0, *range(first, size - keep + 1, options.divisor)] if size > keep else [0]
    return [tuple(ranked[a:b]) for a, b in pairwise(stops)]


def _ranked(group: Group, importance: Importance) -> list[int]:
    return sorted((c.root for c in group.channels), key=lambda root: (importance[root], root))


def _round_up(wanted: float, size: int, divisor: int) -> int:
    """The least multiple of `divisor` that is at least `wanted`, between 1 and `size`."""
    # A ratio such as 0.3 of 10 channels must not become 7.000000001 and round up.
    whole = int(-(-(wanted - 1e-9) // divisor)) * divisor
    return min(max(whole, min(divisor, size)), size)
