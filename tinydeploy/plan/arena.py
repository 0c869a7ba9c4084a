"""Offsets in the one static arena: first fit over several orders, both ends, then a bounded exact search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tinydeploy.ir.graph import Graph
from tinydeploy.plan.kernels import Kernels, choose_kernels
from tinydeploy.plan.storage import Buffer, Storage, assign_storage

ALIGNMENT = 4
"""Every buffer starts at a multiple of four bytes, so that kernels may load words."""

_SEARCH_STEPS = 20_000
_SEARCH_BUFFERS = 200
_TWO_ENDED_STEPS = 1_000
_TWO_ENDED_SIZES = 8
_TWO_ENDED_BUFFERS = 2_000


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


def plan_memory(graph: Graph, kernels: Kernels | None = None) -> Plan:
    """Places every activation and scratch buffer of a graph; deterministic.

    Args:
        kernels: the kernel of every layer; the portable ones where not given.
    """
    storage = assign_storage(graph, choose_kernels(graph) if kernels is None else kernels)
    placements = pack(storage.buffers)
    return Plan(_end(placements), lower_bound(storage.buffers), placements, storage)


def pack(buffers: Sequence[Buffer]) -> tuple[Placement, ...]:
    """Offsets at which no two buffers that are live together overlap, in the order of the offsets.

    One exception: a buffer may overlap the one that it names as `over`, as far as its `lead` allows.
    """
    bound = lower_bound(buffers)
    best = min((_first_fit(order) for order in _orders(buffers)), key=_end)
    if any(b.over for b in buffers):
        # The heuristics may do better with fewer freedoms.
        offsets = {p.buffer.name: p.offset for p in pack([replace(b, over=None) for b in buffers])}
        best = min(best, [Placement(b, offsets[b.name]) for b in buffers], key=_end)
    for improve, most in ((_two_ended, _TWO_ENDED_BUFFERS), (_search, _SEARCH_BUFFERS)):
        if _end(best) > bound and len(buffers) <= most:
            best = improve(buffers, best, bound)
    return tuple(sorted(best, key=lambda p: (p.offset, p.buffer.first, p.buffer.name)))


def overlaps(a: Buffer, b: Buffer) -> bool:
    """Whether two buffers are live at the same node."""
    return a.first <= b.last and b.first <= a.last


def may_overlap(a: Placement, b: Placement) -> bool:
    """Whether `a` lies as its layer may write it while it reads `b`."""
    return a.buffer.over == b.buffer.name and a.offset + a.buffer.lead <= b.offset


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of sizes that are live at one node; all but the last to lie there are aligned."""
    steps = {b.first for b in buffers}
    return max((_live_bytes([b for b in buffers if b.first <= t <= b.last]) for t in steps), default=0)


def _live_bytes(live: Sequence[Buffer]) -> int:
    sizes = {b.name: b.bytes for b in live}
    for b in live:
        # Both together take no less than one that starts before the other by the lead.
        if b.over in sizes:
            other = sizes.pop(b.over)
            sizes[b.name] = min(max(b.lead + other, b.bytes), b.bytes + other)
    aligned = sum(_align(s) for s in sizes.values())
    return aligned - max((_align(s) - s for s in sizes.values()), default=0)


def _align(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def _align_down(n: int) -> int:
    return n // ALIGNMENT * ALIGNMENT


def _end(placements: Iterable[Placement]) -> int:
    return max((p.end for p in placements), default=0)


def _orders(buffers: Sequence[Buffer]) -> Iterable[list[Buffer]]:
    def by_area(b: Buffer) -> tuple[int, int]:
        return (-b.bytes * (b.last - b.first + 1), b.first)

    yield sorted(buffers, key=lambda b: (-b.bytes, b.first, b.name))
    yield sorted(buffers, key=lambda b: (-b.first, -b.bytes, b.name))
    yield sorted(buffers, key=lambda b: (-b.bytes, -b.first, b.name))
    yield sorted(buffers, key=by_area)
    yield sorted(buffers, key=lambda b: (b.first - b.last, -b.bytes, b.first))
    yield sorted(buffers, key=lambda b: (b.first, -b.bytes))


def _first_fit(order: Sequence[Buffer]) -> list[Placement]:
    placed: list[Placement] = []
    for buffer in order:
        placed.append(Placement(buffer, _lowest_gap(buffer, placed)))
    return placed


def _blocked(buffer: Buffer, other: Placement) -> tuple[int, int] | None:
    """The offsets between which `buffer` cannot lie because of another one; None where it can anywhere."""
    if not overlaps(other.buffer, buffer):
        return None
    low, high = other.offset - buffer.bytes, other.end
    if buffer.over == other.buffer.name:
        low = max(low, other.offset - buffer.lead)
    elif other.buffer.over == buffer.name:
        high = min(high, other.offset + other.buffer.lead)
    return low, high


def _blocks(buffer: Buffer, placed: Sequence[Placement]) -> list[tuple[int, int]]:
    return [block for p in placed if (block := _blocked(buffer, p)) is not None]


def _lowest_gap(buffer: Buffer, placed: Sequence[Placement]) -> int:
    offset = 0
    for low, high in sorted(_blocks(buffer, placed)):
        if offset <= low:
            break
        offset = max(offset, _align(high))
    return offset


def _highest_gap(buffer: Buffer, placed: Sequence[Placement], size: int) -> int:
    """The highest free offset below `size`; negative where there is none."""
    offset = _align_down(size - buffer.bytes)
    for low, high in sorted(_blocks(buffer, placed), key=lambda block: -block[1]):
        if offset >= high:
            break
        offset = min(offset, _align_down(low))
    return offset


def _two_ended(buffers: Sequence[Buffer], best: list[Placement], bound: int) -> list[Placement]:
    """Fills arenas of given sizes in execution order, by turns from the bottom and from the top.

    That is what a chain of layers needs: its output lies at the end where its input does not.
    """
    slack = _end(best) - bound
    by_size = sorted(buffers, key=lambda b: (b.first, -b.bytes, b.name))
    # What dies at once lies at an end, and what lives longer beside it.
    by_life = sorted(buffers, key=lambda b: (b.first, b.last, -b.bytes, b.name))
    for step in range(_TWO_ENDED_SIZES):
        size = _align(bound + slack * step // _TWO_ENDED_SIZES)
        for order in (by_size, by_life):
            found = _fill(order, size) if size < _end(best) + ALIGNMENT else None
            if found is not None:
                # From the lowest on, each falls as far as it can.
                dropped = _first_fit([p.buffer for p in sorted(found, key=lambda p: p.offset)])
                return min(best, found, dropped, key=_end)
    return best


def _fill(order: Sequence[Buffer], size: int) -> list[Placement] | None:
    """Places the buffers in this order inside `size` bytes; None where the bounded search finds no way."""
    placed: list[Placement] = []

    def ends(top: bool) -> Iterator[tuple[Placement, bool]]:
        buffer = order[len(placed)]
        for at_top in (top, not top):
            offset = _highest_gap(buffer, placed, size) if at_top else _lowest_gap(buffer, placed)
            if 0 <= offset <= size - buffer.bytes:
                yield Placement(buffer, offset), at_top

    # Not recursive, because a graph may have more layers than Python has stack.
    choices = [ends(False)]
    for _ in range(2 * len(order) + _TWO_ENDED_STEPS):
        chosen = next(choices[-1], None)
        if chosen is None:
            choices.pop()
            if not choices:
                return None
            placed.pop()
            continue
        placed.append(chosen[0])
        if len(placed) == len(order):
            return placed
        choices.append(ends(not chosen[1]))
    return None


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
