"""Offsets in the one static arena: first fit over several orders, then a bounded exact search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinydeploy.ir.graph import Graph
from tinydeploy.plan.storage import Buffer, Storage, assign_storage

ALIGNMENT = 4
"""Every buffer starts at a multiple of four bytes, so that kernels may load words."""

_SEARCH_STEPS = 20_000


@dataclass(frozen=True)
class Placement:
    """A buffer and its offset in bytes from the start of the arena."""

    buffer: Buffer
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.buffer.bytes


@dataclass(frozen=True)
class Plan:
    """The memory plan of a graph.

    Attributes:
        arena_bytes: exact size of the arena.
        lower_bound_bytes: the largest sum of sizes live at once; no plan with these live ranges is smaller.
        placements: every buffer, scratch included, by offset.
        storage: what shares what.
    """

    arena_bytes: int
    lower_bound_bytes: int
    placements: tuple[Placement, ...]
    storage: Storage

    def offset_of(self, value: str) -> int:
        """Offset of an activation."""
        return self._offset(self.storage.buffer_of[value])

    def scratch_offset(self, node: str) -> int | None:
        """Offset of a node's scratch, or None where it has none."""
        buffer = self.storage.scratch_of.get(node)
        return None if buffer is None else self._offset(buffer)

    def _offset(self, buffer: str) -> int:
        return next(p.offset for p in self.placements if p.buffer.name == buffer)


def plan_memory(graph: Graph) -> Plan:
    """Places every activation and scratch buffer of a graph; deterministic."""
    storage = assign_storage(graph)
    buffers = storage.buffers
    bound = lower_bound(buffers)
    best = min((_first_fit(order) for order in _orders(buffers)), key=_end)
    if _end(best) > bound:
        best = _search(buffers, best, bound)
    placements = tuple(sorted(best, key=lambda p: (p.offset, p.buffer.first, p.buffer.name)))
    return Plan(_end(best), bound, placements, storage)


def overlaps(a: Buffer, b: Buffer) -> bool:
    """Whether two buffers are live at the same node."""
    return a.first <= b.last and b.first <= a.last


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of sizes that are live at one node; all but the last to lie there are aligned."""
    steps = {b.first for b in buffers}
    return max((_live_bytes([b.bytes for b in buffers if b.first <= t <= b.last]) for t in steps), default=0)


def _live_bytes(sizes: Sequence[int]) -> int:
    aligned = sum(_align(s) for s in sizes)
    return aligned - max((_align(s) - s for s in sizes), default=0)


def _align(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def _end(placements: Iterable[Placement]) -> int:
    return max((p.end for p in placements), default=0)


def _orders(buffers: Sequence[Buffer]) -> Iterable[list[Buffer]]:
    def by_area(b: Buffer) -> tuple[int, int]:
        return (-b.bytes * (b.last - b.first + 1), b.first)

    yield sorted(buffers, key=lambda b: (-b.bytes, b.first, b.name))
    yield sorted(buffers, key=by_area)
    yield sorted(buffers, key=lambda b: (b.first - b.last, -b.bytes, b.first))
    yield sorted(buffers, key=lambda b: (b.first, -b.bytes))


def _first_fit(order: Sequence[Buffer]) -> list[Placement]:
    placed: list[Placement] = []
    for buffer in order:
        placed.append(Placement(buffer, _lowest_gap(buffer, placed)))
    return placed


def _lowest_gap(buffer: Buffer, placed: Sequence[Placement]) -> int:
    offset = 0
    for other in sorted((p for p in placed if overlaps(p.buffer, buffer)), key=lambda p: p.offset):
        if offset + buffer.bytes <= other.offset:
            break
        offset = max(offset, _align(other.end))
    return offset


def _search(buffers: Sequence[Buffer], best: list[Placement], bound: int) -> list[Placement]:
    """Depth-first over placement orders, cut where the best known end is reached; bounded steps.

    Some first-fit order yields an optimal packing, so an unbounded search would be exact.
    """
    steps = 0
    best_end = _end(best)

    def descend(placed: list[Placement], rest: list[Buffer]) -> None:
        nonlocal steps, best, best_end
        if not rest:
            best, best_end = list(placed), _end(placed)
            return
        for i, buffer in enumerate(rest):
            steps += 1
            if steps > _SEARCH_STEPS or best_end == bound:
                return
            placement = Placement(buffer, _lowest_gap(buffer, placed))
            if placement.end < best_end:
                descend([*placed, placement], rest[:i] + rest[i + 1 :])

    descend([], sorted(buffers, key=lambda b: (-b.bytes, b.first, b.name)))
    return best
