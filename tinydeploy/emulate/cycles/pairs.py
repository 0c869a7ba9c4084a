"""Cycles of a block on a core that issues up to two instructions in a cycle, in order.

A scoreboard: an instruction goes in the first cycle in which its operands are there, its unit is free and the
instruction before it has gone. Memory never waits, and the pipeline is empty where the block starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tinydeploy.emulate.cycles.instructions import Instruction
from tinydeploy.timing import CoreTiming, PairTiming

_MULTIPLIES = (
    "multiply",
    "multiply_accumulate",
    "multiply_long",
    "multiply_accumulate_long",
    "multiply_dual",
)
_FLOATS = ("float_alu", "float_multiply_add")
_ALONE = ("divide", "double", "multiple", "special", "float_divide", "unknown")


@dataclass
class _Cycle:
    """One cycle of issue: what has gone in it."""

    number: int
    gone: list[str] = field(default_factory=list)
    closed: bool = False


def issue_cycles(block: Sequence[Instruction], timing: CoreTiming, pairs: PairTiming) -> int:
    """Cycles from the first instruction to the one in which the block's successor can begin."""
    ready: dict[str, int] = {}
    cycle = _Cycle(0)
    for instruction in block:
        earliest = max(_needed(instruction, ready, pairs), cycle.number)
        unit = _unit(instruction)
        if earliest > cycle.number or not _fits(instruction, unit, cycle, pairs):
            cycle = _Cycle(max(earliest, cycle.number + 1) if cycle.gone else earliest)
        cycle.gone.append(unit)
        busy = _busy(instruction, timing)
        for register, latency in _results(instruction, pairs):
            ready[register] = cycle.number + busy - 1 + latency
        if unit == "alone":
            cycle = _Cycle(cycle.number + busy - 1, cycle.gone, closed=True)
    return cycle.number + 1 if cycle.gone else 0


def _needed(instruction: Instruction, ready: dict[str, int], pairs: PairTiming) -> int:
    """The first cycle in which all operands are there."""
    late = pairs.accumulator_late if instruction.kind in _MULTIPLIES else pairs.store_data_late
    times = [0]
    for register in instruction.reads & ready.keys():
        time = ready[register]
        if register in instruction.address_from or register in instruction.early:
            time += pairs.address_early
        elif register in instruction.late:
            time -= late
        times.append(time)
    return max(times)


def _fits(instruction: Instruction, unit: str, cycle: _Cycle, pairs: PairTiming) -> bool:
    """Whether an instruction can go together with what has gone in a cycle."""
    if not cycle.gone:
        return True
    if cycle.closed or len(cycle.gone) > 1 or "alone" in (unit, *cycle.gone) or instruction.first_only:
        return False
    limits = {"load": pairs.loads, "alu": 2}
    return cycle.gone.count(unit) < limits.get(unit, 1)


def _unit(instruction: Instruction) -> str:
    kind = instruction.kind
    if kind in _ALONE or (kind in ("load", "store") and instruction.exit is not None):
        return "alone"
    if instruction.exit is not None:
        return "branch"
    if kind in _MULTIPLIES:
        return "multiply"
    if kind in _FLOATS:
        return "float"
    if kind == "alu":
        return "shift" if instruction.shifts else "alu"
    return kind


def _busy(instruction: Instruction, timing: CoreTiming) -> int:
    """Cycles for which nothing else is issued, the first included."""
    if instruction.kind == "multiple":
        return timing.multiple_base + timing.multiple_word * instruction.words
    if instruction.kind in ("divide", "double", "special"):
        return int(getattr(timing, instruction.kind))
    return timing.float_divide or 1 if instruction.kind == "float_divide" else 1


def _results(instruction: Instruction, pairs: PairTiming) -> Iterator[tuple[str, int]]:
    """Each register that is written, and after how many cycles it can be computed with."""
    kind = instruction.kind
    if kind == "load":
        latency = pairs.narrow_load_latency if instruction.narrow else pairs.load_latency
    elif kind in _MULTIPLIES:
        latency = pairs.multiply_latency
    elif kind == "float_multiply_add":
        latency = pairs.float_multiply_add_latency
    elif kind in _FLOATS:
        latency = pairs.float_latency
    else:
        latency = 1
    for register in instruction.writes:
        yield register, latency
    for register in instruction.moves:
        yield register, 0
