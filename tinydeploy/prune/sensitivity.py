"""How the accuracy falls when one group alone is pruned, and which ratios that allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.prune.apply import remove
from tinydeploy.prune.groups import Groups
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
        left: channels of the group then; the divisor rounds them up.
    """

    group: str
    ratio: float
    score: float
    macs: int
    left: int


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

    def to_json(self) -> dict[str, object]:
        return {
            "baseline": self.baseline,
            "points": [asdict(p) for p in self.points],
        }


def scan_sensitivity(
    graph: Graph,
    groups: Groups,
    importance: Importance,
    score: Score,
    options: SelectOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Prunes every group by every ratio in RATIOS, one at a time, and scores the network without training.

    Groups with a ratio of their own in `options.ratios` are left out.
    """
    options = options or SelectOptions()
    alone = replace(options, ratios={})
    baseline = score(graph)
    # Ratios that the divisor rounds to the same channels are scored once.
    known = {frozenset[int](): (baseline, graph_macs(graph))}
    points: list[SensitivityPoint] = []
    scanned = [g for g in groups.groups if g.name not in options.ratios]
    for group in scanned:
        for ratio in RATIOS:
            removed = select_by_ratio(groups, importance, {group.name: ratio}, alone)
            if removed not in known:
                smaller = remove(graph, groups, removed)
                known[removed] = score(smaller), graph_macs(smaller)
            left = len(group.channels) - len(removed)
            points.append(SensitivityPoint(group.name, ratio, *known[removed], left))
            progress(len(points), len(scanned) * len(RATIOS))
    return Sensitivity(baseline, tuple(points))


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
    best = select_by_ratio(groups, importance, {}, options)
    low, high = 0.0, drop
    for _ in range(steps):
        middle = (low + high) / 2
        removed = select_by_ratio(groups, importance, scan.ratios_within(middle), options)
        if scan.baseline - score(remove(graph, groups, removed)) <= drop:
            best, low = removed, middle
        else:
            high = middle
    return best
