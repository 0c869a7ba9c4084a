"""Which channels go: a ratio of every group, or as many as a goal in MACs or parameters demands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.prune.apply import remove
from tinydeploy.prune.cost import Cost, cost_of, savings
from tinydeploy.prune.groups import Group, Groups

Importance = Mapping[int, float]

SCOPES = ("global", "layer", "measured")
Scope = Literal["global", "layer", "measured"]


@dataclass(frozen=True)
class SelectOptions:
    """How channels are selected.

    Attributes:
        divisor: a group keeps a multiple of this many channels, so that kernels that take several channels
            at a time stay full; a group with fewer channels keeps them all.
        minimum: the least fraction of a group that stays when channels of all groups are ranked together.
        scope: `global` ranks the channels of all groups together, `layer` takes the same fraction of every
            group, `measured` (for goals in macs and params) tries each group and takes the channels that
            cost the least loss; None is `layer` for a ratio and `global` for a goal.
        ratios: by group name, for groups that follow neither the ratio nor the goal.
        cost_aware: ranks by importance per saved cost instead of importance alone, where groups compete.
    """

    divisor: int = 4
    minimum: float = 0.125
    scope: Scope | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    cost_aware: bool = False

    def check(self) -> None:
        """Raises DeployError for options that make no sense."""
        if self.scope is not None and self.scope not in SCOPES:
            raise DeployError(
                f"{self.scope!r} is no scope", where="--prune-scope", hint=f"one of {', '.join(SCOPES)}"
            )


@dataclass(frozen=True)
class Removals:
    """Nested sets of channels to remove: each holds the one before it and a block more.

    Attributes:
        fixed: what goes in any case.
        blocks: in the order in which they go.
    """

    fixed: frozenset[int]
    blocks: tuple[tuple[int, ...], ...]

    def first(self, count: int) -> frozenset[int]:
        """The channels of `fixed` and the first `count` blocks."""
        return self.fixed.union(root for block in self.blocks[:count] for root in block)


def select_by_ratio(
    groups: Groups,
    importance: Importance,
    ratio: float | Mapping[str, float],
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """Removes the fraction `ratio` of every group, the least important first, rounded down to the divisor.

    Args:
        ratio: for all groups, or by group name (0 for those that are not named); `options.ratios` come first.

    Raises:
        DeployError: a ratio outside [0, 1).
    """
    options = options or SelectOptions()
    removed: set[int] = set()
    for group in groups.groups:
        r = ratio if isinstance(ratio, float | int) else ratio.get(group.name, 0.0)
        removed.update(_least(group, importance, options.ratios.get(group.name, r), options.divisor))
    return frozenset(removed)


def _least(group: Group, importance: Importance, ratio: float, divisor: int) -> list[int]:
    if not 0.0 <= ratio < 1.0:
        raise DeployError(f"the pruning ratio {ratio} is not in [0, 1)", where="--prune")
    size = len(group.channels)
    return _ranked(group, importance)[: size - _round_up(size * (1.0 - ratio), size, divisor)]


def select_over_all(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    ratio: float,
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """Removes at most the fraction `ratio` of all channels together, the least important of all groups first.

    Channels of groups in `options.ratios` do not count.

    Raises:
        DeployError: a ratio outside [0, 1), or one that the least fraction of each group does not allow.
    """
    options = options or SelectOptions()
    if not 0.0 <= ratio < 1.0:
        raise DeployError(f"the pruning ratio {ratio} is not in [0, 1)", where="--prune")
    order = removal_order(graph, groups, importance, options)
    free = sum(len(g.channels) for g in groups.groups if g.name not in options.ratios)
    most = sum(len(block) for block in order.blocks)
    if ratio * free > most + options.divisor:
        raise DeployError(
            f"a ratio of {ratio:.0%} leaves fewer channels than the smallest allowed network",
            where="--prune",
            hint=_smallest(options),
        )
    count, gone = 0, 0
    # A ratio such as 0.3 of 10 channels is 2.9999999996 and must still take three.
    while count < len(order.blocks) and gone + len(order.blocks[count]) <= ratio * free + 1e-9:
        gone += len(order.blocks[count])
        count += 1
    return order.first(count)


def select_by_macs(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    fraction: float,
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """Removes the least important channels, over all groups, until at most `fraction` of the MACs is left."""
    return _select(graph, groups, importance, fraction, options or SelectOptions(), "macs")


def select_by_params(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    fraction: float,
    options: SelectOptions | None = None,
) -> frozenset[int]:
    """The same for the number of weights and biases."""
    return _select(graph, groups, importance, fraction, options or SelectOptions(), "params")


def _select(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    fraction: float,
    options: SelectOptions,
    what: str,
) -> frozenset[int]:
    if not 0.0 < fraction <= 1.0:
        raise DeployError(f"the goal {what}={fraction:.0%} is not in (0, 100]", where="--prune")
    cost = cost_of(what)
    order = removal_order(graph, groups, importance, options, cost)
    goal = fraction * cost(graph)
    count = first_at_most(graph, groups, order, cost, goal)
    if count is None:
        raise DeployError(
            f"even the smallest allowed network keeps more than {fraction:.0%} of the {what}",
            where="--prune",
            hint=_smallest(options),
        )
    return order.first(count)


def _smallest(options: SelectOptions) -> str:
    return f"at least {options.minimum:.0%} of every group and a multiple of {options.divisor} stay"


def first_at_most(
    graph: Graph, groups: Groups, order: Removals, cost: Cost, goal: float, low: int = 0
) -> int | None:
    """The least number of blocks, from `low` on, without which the cost is at most `goal`; None for none."""
    high = len(order.blocks)
    if cost(remove(graph, groups, order.first(high))) > goal:
        return None
    while low < high:
        middle = (low + high) // 2
        if cost(remove(graph, groups, order.first(middle))) <= goal:
            high = middle
        else:
            low = middle + 1
    return low


def removal_order(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    options: SelectOptions,
    cost: Cost | None = None,
) -> Removals:
    """Blocks of `divisor` channels of one group, in the order in which they go.

    With the scope `global` the least important block of all groups comes next. Cost-aware, that is the block
    with the least importance for what it saves: pruning as a knapsack, filled greedily by value for weight
    (Aflalo et al. 2020, "Knapsack Pruning with Inner Distillation", section 3; Molchanov et al. 2017,
    "Pruning Convolutional Neural Networks for Resource Efficient Inference", section 2.2, subtract the cost
    with a factor to be tuned instead). With the scope `layer` every group shrinks by the same fraction. The
    order within a group is its own order of importance, so that a prefix is always possible.
    """
    options.check()
    fixed = {
        root
        for g in groups.groups
        if g.name in options.ratios
        for root in _least(g, importance, options.ratios[g.name], options.divisor)
    }
    saved = savings(graph, groups, cost or cost_of("macs"), options.divisor) if options.cost_aware else None
    blocks: list[tuple[float, int, tuple[int, ...]]] = []
    for number, group in enumerate(groups.groups):
        if group.name in options.ratios:
            continue
        worth = 1.0 if saved is None else max(saved[group.name], 1e-12)
        gone, score = 0, 0.0
        for block in group_blocks(group, importance, options):
            gone += len(block)
            if options.scope == "layer":
                score = gone / len(group.channels)
            else:
                score = max(score, sum(importance[r] for r in block) / len(block) / worth)
            blocks.append((score, number, block))
    ordered = sorted(blocks, key=lambda b: (b[0], b[1]))
    return Removals(frozenset(fixed), tuple(block for _, _, block in ordered))


def group_blocks(group: Group, importance: Importance, options: SelectOptions) -> list[tuple[int, ...]]:
    """The channels of one group that may go, the least important first; the first block evens it out."""
    ranked = _ranked(group, importance)
    size = len(ranked)
    keep = _round_up(size * options.minimum, size, options.divisor)
    first = (size - keep) % options.divisor
    edges = ([0] if first else []) + list(range(first, size - keep + 1, options.divisor))
    return [tuple(ranked[a:b]) for a, b in pairwise(edges)]


def _ranked(group: Group, importance: Importance) -> list[int]:
    return sorted((c.root for c in group.channels), key=lambda root: (importance[root], root))


def _round_up(wanted: float, size: int, divisor: int) -> int:
    """The least multiple of `divisor` that is at least `wanted`, between 1 and `size`."""
    # A ratio such as 0.3 of 10 channels must not become 7.000000001 and round up.
    whole = int(-(-(wanted - 1e-9) // divisor)) * divisor
    return min(max(whole, min(divisor, size)), size)
