"""Cycles of a traced run: what the instructions cost, what taken branches add, and what the flash adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from tinydeploy.emulate.cycles.cost import BlockCost, block_cost
from tinydeploy.emulate.cycles.instructions import Instruction
from tinydeploy.emulate.cycles.trace import FlashCount, Trace
from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming
from tinydeploy.timing import CoreTiming

_WORD = 4

Decode = Callable[[bytes, int], Iterable[Instruction]]
"""Gives the instructions of a block, from its bytes and its address."""


@dataclass(frozen=True)
class Cycles:
    """Where the cycles go; all in core clock cycles.

    Attributes:
        issue: of the instructions themselves, loads and stores included.
        branches: refills of the pipeline behind taken branches.
        flash_fetch: waits for code from flash.
        flash_read: waits for constants, such as weights, from flash.
    """

    issue: int = 0
    branches: int = 0
    flash_fetch: int = 0
    flash_read: int = 0

    @property
    def total(self) -> int:
        return self.issue + self.branches + self.flash_fetch + self.flash_read

    def __add__(self, other: Cycles) -> Cycles:
        return Cycles(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def scaled(self, flash: float, branches: float) -> Cycles:
        """The same with the waits for flash and the refills behind branches multiplied, in whole cycles."""
        return Cycles(
            self.issue,
            round(self.branches * branches),
            round(self.flash_fetch * flash),
            round(self.flash_read * flash),
        )

    def to_json(self) -> dict[str, object]:
        """The parts, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def cycles_of(
    trace: Trace,
    timing: CoreTiming,
    flash: FlashTiming | None,
    read: Callable[[int, int], bytes],
    decode: Decode,
) -> Mapping[str, Cycles]:
    """Cycles of each function that was traced, by name; unused ones left out.

    Args:
        timing: of the core.
        flash: of the board, whose caches were simulated in the trace; None for memory that never waits.
        read: gives the bytes of code at an address.
        decode: gives the instructions of a block at an address.

    Raises:
        DeployError: an instruction was executed whose cost is not known.
    """
    costs: dict[tuple[int, int], BlockCost] = {}
    totals = [Cycles()] * len(trace.owners)
    for (owner, address, size), (times, taken) in trace.blocks.items():
        if (address, size) not in costs:
            costs[address, size] = _cost_at(decode, read(address, size), address, timing)
        cost = costs[address, size]
        totals[owner] += Cycles(issue=times * cost.issue, branches=cost.branches(times, taken))
    if flash is not None:
        totals = [total + flash_cycles(n, flash) for total, n in zip(totals, trace.flash, strict=True)]
    found = zip(trace.owners, totals, strict=True)
    return {name: total for name, total in sorted(found) if total.total}


def _cost_at(decode: Decode, code: bytes, address: int, timing: CoreTiming) -> BlockCost:
    cost = block_cost(tuple(decode(code, address)), timing)
    if cost.unknown:
        raise DeployError("an instruction is not known, and so its cost is not", where=f"0x{address:08x}")
    return cost


def flash_cycles(count: FlashCount, flash: FlashTiming) -> Cycles:
    """Waits of the core for the lines that one owner's code fetched.

    A cache adds the cycle in which it finds that it has not the line. A prefetch that is on has begun the
    next line when the line before it arrived: it is early by the cycle that each word of that line takes.
    """
    fetch = flash.wait_states + (1 if flash.icache_bytes else 0)
    data = flash.wait_states + (1 if flash.dcache_bytes else 0)
    ahead = min(fetch, flash.line_bytes // _WORD) if flash.prefetch_enabled else 0
    return Cycles(
        flash_fetch=count.fetch_misses * fetch - count.fetch_next * ahead,
        flash_read=count.read_misses * data,
    )
