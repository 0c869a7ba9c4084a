"""Cycles of one block of instructions, from the timing of its core alone: memory never waits here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.emulate.cycles.instructions import Instruction
from tinydeploy.emulate.cycles.pairs import issue_cycles
from tinydeploy.timing import CoreTiming

_SINGLE = ("load", "store")
_MEMORY = ("load", "store", "double", "multiple")


@dataclass(frozen=True)
class BlockCost:
    """What one run through a block costs.

    Attributes:
        issue: cycles of its instructions, where it falls through at its end.
        taken: cycles that leaving it by its last instruction adds.
        mispredicted: cycles that leaving it the rarer way adds, on a core that predicts branches.
        always_taken: whether it always leaves so.
        unknown: whether an instruction is in it whose cost is not known.
    """

    issue: int
    taken: int
    always_taken: bool
    unknown: bool
    mispredicted: int = 0

    def branches(self, times: int, taken: int) -> int:
        """Cycles of leaving it, for so many runs, of which so many did not go on behind it."""
        # A jump to the next instruction looks as if it fell through, and the last return has no successor.
        if self.always_taken:
            return self.taken * times
        return self.taken * taken + self.mispredicted * min(taken, times - taken)


def block_cost(block: Sequence[Instruction], timing: CoreTiming) -> BlockCost:
    """The cost of a block; the pipeline is taken to be empty where it starts."""
    pairs = timing.pairs
    issue = _one_at_a_time(block, timing) if pairs is None else issue_cycles(block, timing, pairs)
    last = block[-1] if block else None
    exits = {"branch": timing.taken_branch, "call": timing.taken_call, "return": timing.taken_return}
    return BlockCost(
        issue=issue,
        taken=0 if last is None or last.exit is None else exits[last.exit],
        always_taken=last is not None and last.exit is not None and not last.conditional,
        unknown=any(instruction.kind == "unknown" for instruction in block),
        mispredicted=0 if pairs is None else pairs.mispredicted_branch,
    )


def _one_at_a_time(block: Sequence[Instruction], timing: CoreTiming) -> int:
    issue = 0
    before: Instruction | None = None
    for instruction in block:
        issue += instruction_cost(instruction, before, timing)
        before = instruction
    return issue


def instruction_cost(instruction: Instruction, before: Instruction | None, timing: CoreTiming) -> int:
    """Cycles of one instruction behind another; None is a pipeline that is empty."""
    kind = instruction.kind
    if kind == "load":
        cost = timing.load_pipelined if _pipelined(instruction, before) else timing.load
    elif kind == "store":
        cost = timing.store_register_offset if instruction.register_offset else timing.store
    elif kind == "multiple":
        cost = timing.multiple_base + timing.multiple_word * instruction.words
    elif kind == "unknown":
        cost = timing.alu
    else:
        # Instructions of a unit that the core lacks never run; None is then as good as any figure.
        figure: int | None = getattr(timing, kind)
        cost = timing.alu if figure is None else figure
    if before is not None and before.kind not in _MEMORY and before.writes & instruction.address_from:
        cost += timing.address_dependency
    if before is not None and before.kind == "load" and before.writes & instruction.reads:
        cost += timing.load_use
    return cost


def _pipelined(instruction: Instruction, before: Instruction | None) -> bool:
    """Whether a load starts while the load or store of one register before it is still under way."""
    if before is None or before.kind not in _SINGLE or instruction.exit is not None:
        return False
    return before.kind == "store" or not before.writes & instruction.address_from
