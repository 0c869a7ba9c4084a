"""Counts a run with Python's hooks, for want of a compiler: the same counts as ``runtime/td_trace.c``."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tinydeploy.emulate.alignment import passes
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.cache import Cache
from tinydeploy.emulate.cycles.loads import ALWAYS, Load
from tinydeploy.emulate.cycles.trace import NOBODY, BlockKey, FlashCount, Plan, Trace, Way


class PureTracer:
    """A Tracer in Python; to be made before the first call on its core.

    Args:
        way: how reads of the flash are seen.
        loads: the loads of the image, for the way "addresses".
    """

    def __init__(self, cpu: Cpu, plan: Plan, way: Way, loads: tuple[Load, ...] = ()) -> None:
        self._cpu, self._plan = cpu, plan
        caches = plan.caches
        self._line = caches.line_bytes if caches else 0
        self._instructions = Cache(caches.instruction_lines if caches else 0)
        self._data = Cache(caches.data_lines if caches else 0)
        if caches is not None and caches.unified:
            self._data = self._instructions
        self._loads = {load.address: load for load in loads}
        self.start()
        # The hook costs more than the block that it counts, so what is not asked for is not in it.
        cpu.on_block(self._on_block if caches else self._on_block_only)
        if way == "reads":
            cpu.on_read(*plan.flash, self._on_read)
        elif way == "addresses":
            for start, end in plan.code:
                cpu.on_instructions(start, end, self._on_instruction)

    def start(self) -> None:
        self._times: dict[BlockKey, int] = defaultdict(int)
        self._taken: dict[BlockKey, int] = defaultdict(int)
        owners = len(self._plan.owners)
        self._counts = [[0] * owners for _ in range(4)]
        self._current = self._plan.first
        self._previous: BlockKey | None = None
        self._end = self._last_line = -2
        self._halfwords = 0
        self._instructions.clear()
        self._data.clear()

    def trace(self) -> Trace:
        blocks = {key: (times, self._taken.get(key, 0)) for key, times in self._times.items()}
        flash = tuple(FlashCount(*counts) for counts in zip(*self._counts, strict=True))
        return Trace(self._plan.owners, blocks, flash)

    def stopped(self) -> bool:
        return self._plan.limit is not None and self._halfwords > self._plan.limit

    def _on_block_only(self, uc: Any, address: int, size: int, _data: Any) -> None:
        plan = self._plan
        position = plan.position(address)
        if position != NOBODY and plan.owner_at[position] != NOBODY:
            self._current = int(plan.owner_at[position])
        if self._previous is not None and address != self._end:
            self._taken[self._previous] += 1
        key = (self._current, address, size)
        self._times[key] += 1
        self._previous, self._end = key, address + size
        self._halfwords += size // 2
        if self.stopped():
            uc.emu_stop()

    def _on_block(self, uc: Any, address: int, size: int, data: Any) -> None:
        self._on_block_only(uc, address, size, data)
        misses, following, _, _ = self._counts
        for line in self._lines(address, size):
            if line == self._last_line:
                continue
            if self._instructions.misses(line):
                misses[self._current] += 1
                following[self._current] += line == self._last_line + 1
            self._last_line = line

    def _on_read(self, _uc: Any, _type: int, address: int, size: int, _value: int, _data: Any) -> None:
        self._read(address, size)

    def _on_instruction(self, _uc: Any, address: int, _size: int, _data: Any) -> None:
        load = self._loads.get(address)
        if load is None:
            return
        cpu = self._cpu
        # Capstone counts conditions from 1.
        if load.condition != ALWAYS and not passes(load.condition + 1, cpu.register("cpsr")):
            return
        target = load.literal + load.displacement
        target += cpu.register(load.base) if load.base else 0
        target += cpu.register(load.index) << load.shift if load.index else 0
        for done in range(0, load.size, load.unit):
            self._read((target + done) & 0xFFFFFFFF, load.unit)

    def _read(self, address: int, size: int) -> None:
        lines = self._lines(address, size)
        if lines:
            self._counts[2][self._current] += 1
            self._counts[3][self._current] += sum(self._data.misses(line) for line in lines)

    def _lines(self, address: int, size: int) -> range:
        """Numbers of the lines of the flash that hold these bytes."""
        start, end = self._plan.flash
        if address < start or address + size > end:
            return range(0)
        return range((address - start) // self._line, (address + size - 1 - start) // self._line + 1)
