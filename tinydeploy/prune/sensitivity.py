"""How the accuracy falls when one group alone is pruned, and which ratios that allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.prune.apply import remove
from tinydeploy.prune.groups import Group, Groups
from tinydeploy.prune.select import Importance, SelectOptions, select_by_ratio

RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)

Score = Callable[[Graph], float]
"""Accuracy of a graph, larger is better."""


@dataclass(frozen=True)
class SensitivityPoint:
    """One group pruned by one ratio, all else untouched.

    Attributes:
        score: accuracy then.
        macs: of the whole network then.
    """

    group: str
    ratio: float
    score: float
    macs: int


@dataclass(frozen=True)
class Sensitivity:
    """The scan: the accuracy of the whole network, and one point for each group and ratio."""

    baseline: float
    points: tuple[SensitivityPoint, ...]

    def ratios_within(self, drop: float) -> dict[str, float]:
        """For each group the largest ratio up to which its own accuracy drop stays within `drop`."""
        result: dict[str, float] = {}
        stopped: set[str] = set()
        for point in sorted(self.points, key=lambda p: p.ratio):
            if point.group in stopped:
                continue
            if self.baseline - point.score <= drop:
                result[point.group] = point.ratio
            else:
                stopped.add(point.group)
        return result


def scan_sensitivity(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    score: Score,
    options: SelectOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Prunes every group by every ratio in RATIOS, one at a time, and scores the network without training."""
    options = options or SelectOptions()
    points: list[SensitivityPoint] = []
    total = len(groups.groups) * len(RATIOS)
    for group in groups.groups:
        for ratio in RATIOS:
            points.append(_point(graph, groups, importance, score, options, (group, ratio)))
            progress(len(points), total)
    return Sensitivity(score(graph), tuple(points))


def _point(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    score: Score,
    options: SelectOptions,
    at: tuple[Group, float],
) -> SensitivityPoint:
    group, ratio = at
    removed = select_by_ratio(groups, importance, {group.name: ratio}, options)
    smaller = remove(graph, groups, removed)
    return SensitivityPoint(group.name, ratio, score(smaller), graph_macs(smaller))


def choose_ratios(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    scan: Sensitivity,
    score: Score,
    drop: float,
    options: SelectOptions | None = None,
    steps: int = 6,
) -> frozenset[int]:
    """The channels to remove so that the whole network loses at most `drop`, before any fine-tuning.

    One threshold for the drop of each group alone is searched by bisection: groups lose accuracy together,
    so the threshold that holds for all is below the drop that is allowed.
    """
    options = options or SelectOptions()
    best: frozenset[int] = frozenset()
    low, high = 0.0, drop
    for _ in range(steps):
        middle = (low + high) / 2
        removed = select_by_ratio(groups, importance, scan.ratios_within(middle), options)
        if scan.baseline - score(remove(graph, groups, removed)) <= drop:
            best, low = removed, middle
        else:
            high = middle
    return best
