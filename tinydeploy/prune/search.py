"""The largest network within a limit that must be measured, with few measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinydeploy.ir.graph import Graph
from tinydeploy.prune.apply import remove
from tinydeploy.prune.cost import Cost
from tinydeploy.prune.groups import Groups
from tinydeploy.prune.select import Removals, first_at_most


@dataclass(frozen=True)
class Found:
    """The answer of a search.

    Attributes:
        removed: channels to remove; None where even the smallest network is above the limit.
        measured: the measured cost without them, or of the smallest network.
        measurements: how often the network was built and run.
    """

    removed: frozenset[int] | None
    measured: float
    measurements: int


def fewest_removed(
    graph: Graph,
    groups: Groups,
    order: Removals,
    measure: Cost,
    proxy: Cost,
    limit: float,
    whole: float,
    progress: Callable[[int], None] = lambda done: None,
) -> Found:
    """Removes blocks in their order until the measured cost is at most `limit`.

    The measured cost is taken to be a straight line in the cheap `proxy` between the two nearest
    measurements, and what that foretells is measured next (regula falsi); where a measurement leaves more
    than half of the candidates, bisection follows. The answer was measured itself, so that a cost that does
    not fall with every block still keeps the limit.

    Args:
        measure: of the smaller graph; costly.
        proxy: cheap, and about proportional to the measured cost.
        whole: the measured cost of `graph`, above the limit.
        progress: called with the number of measurements.
    """
    done = 0

    def at(count: int) -> tuple[int, float, float]:
        nonlocal done
        smaller = remove(graph, groups, order.first(count))
        found = count, measure(smaller), proxy(smaller)
        done += 1
        progress(done)
        return found

    low, high = (-1, whole, proxy(graph)), at(len(order.blocks))
    if high[1] > limit:
        return Found(None, high[1], done)
    halve = False
    while high[0] - low[0] > 1:
        middle = (low[0] + high[0]) // 2
        if not halve:
            share = (limit - high[1]) / (low[1] - high[1])
            foretold = high[2] + share * (low[2] - high[2])
            guess = first_at_most(graph, groups, order, proxy, foretold, max(low[0], 0))
            middle = min(max(high[0] if guess is None else guess, low[0] + 1), high[0] - 1)
        size = high[0] - low[0]
        found = at(middle)
        if found[1] <= limit:
            high = found
        else:
            low = found
        halve = not halve and high[0] - low[0] > size / 2
    return Found(order.first(high[0]), high[1], done)
