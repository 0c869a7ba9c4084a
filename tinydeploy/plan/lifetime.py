"""How full the arena is over time."""

from __future__ import annotations

from collections.abc import Mapping

from tinydeploy.plan.arena import Plan
from tinydeploy.plan.storage import Buffer


def live_bytes(plan: Plan, nodes: int) -> Mapping[int, int]:
    """Bytes that are live at each step, without what alignment adds; shared ones count once.

    Args:
        nodes: of the graph that was planned.

    Returns:
        By step: -1 is the input before the first node, `nodes` the output after the last one.
    """
    live = {}
    for step in range(-1, nodes + 1):
        size = end = 0
        for p in sorted(plan.placements, key=lambda p: p.offset):
            if p.buffer.first <= step <= p.buffer.last:
                # An output may lie over the input that its node reads for the last time.
                size += max(p.end - max(p.offset, end), 0)
                end = max(end, p.end)
        live[step] = size
    return live


def buffers_above(plan: Plan, nodes: int, limit: int) -> tuple[Buffer, ...]:
    """The buffers that are live where more than `limit` bytes are; at the peak where no step exceeds it."""
    live = live_bytes(plan, nodes)
    bound = min(limit, max(live.values()) - 1)
    steps = [step for step, size in live.items() if size > bound]
    return tuple(
        p.buffer for p in plan.placements if any(p.buffer.first <= s <= p.buffer.last for s in steps)
    )
