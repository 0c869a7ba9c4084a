"""Counts the executed instructions, and gives each to the layer on whose behalf it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.trace import Plan, Trace
from tinydeploy.emulate.cycles.tracer import make_tracer
from tinydeploy.emulate.image import Image
from tinydeploy.errors import DeployError


class InstructionCounter:
    """A block hook on ``cpu``; to be made before the first call on that core.

    The unit that is counted is the emulator's block, (address, size).
    """

    def __init__(self, cpu: Cpu, image: Image, plan: Plan) -> None:
        self._cpu, self._image = cpu, image
        self._tracer = make_tracer(cpu, plan)
        self._lengths: dict[tuple[int, int], int] = {}

    def start(self) -> None:
        """Forgets all counts."""
        self._tracer.start()

    def trace(self) -> Trace:
        """The blocks that were counted."""
        return self._tracer.trace()

    def stopped(self) -> bool:
        """Whether the limit of the plan stopped the run."""
        return self._tracer.stopped()

    def per_function(self, trace: Trace) -> Mapping[str, int]:
        """Executed instructions of each layer function and of ``NAME_run``, by name; unused ones left out."""
        totals: Counter[str] = Counter()
        for (owner, address, size), (times, _) in trace.blocks.items():
            totals[trace.owners[owner]] += times * self._length((address, size))
        return dict(sorted(totals.items()))

    def _length(self, block: tuple[int, int]) -> int:
        if block not in self._lengths:
            address, size = block
            if size <= 0:
                where = self._image.locate(address)
                raise DeployError("the emulator gave a block without a size", where=where)
            self._lengths[block] = self._instructions(self._cpu.read(address, size))
        return self._lengths[block]

    def _instructions(self, code: bytes) -> int:
        """How many instructions are in a block, which starts and ends at an instruction's edge."""
        count, position = 0, 0
        while position < len(code):
            position += self._cpu.architecture.length_at(code, position)
            count += 1
        return count


def blocks_of(trace: Trace) -> Mapping[tuple[int, int], int]:
    """How often each block (address, size in bytes) ran, whoever it ran for."""
    merged: Counter[tuple[int, int]] = Counter()
    for (_, address, size), (times, _) in trace.blocks.items():
        merged[address, size] += times
    return dict(merged)
