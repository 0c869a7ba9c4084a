"""How full the arena is over time."""

from __future__ import annotations

from collections.abc import Mapping

from tinydeploy.plan.arena import Plan
from tinydeploy.plan.storage import Buffer


def live_bytes(plan: Plan, nodes: int) -> Mapping[int, int]:
    """Bytes that are live at each step, without what alignment adds.

    Args:
        nodes: of the graph that was planned.

    Returns:
        By step: -1 is the input before the first node, `nodes` the output after the last one.
    """
    change = dict.fromkeys(range(-1, nodes + 2), 0)
    for p in plan.placements:
        change[p.buffer.first] += p.buffer.bytes
        change[p.buffer.last + 1] -= p.buffer.bytes
    live, now = {}, 0
    for step in range(-1, nodes + 1):
        now += change[step]
        live[step] = now
    return live


def buffers_above(plan: Plan, nodes: int, limit: int) -> tuple[Buffer, ...]:
    """The buffers that are live where more than `limit` bytes are; at the peak where no step exceeds it."""
    live = live_bytes(plan, nodes)
    bound = min(limit, max(live.values()) - 1)
    steps = [step for step, size in live.items() if size > bound]
    return tuple(
        p.buffer for p in plan.placements if any(p.buffer.first <= s <= p.buffer.last for s in steps)
    )
