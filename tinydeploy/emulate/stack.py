"""How deep the stack went: painted words that changed, and the stack pointer's own lowest value."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy.emulate.cpu import STACK_BOTTOM, STACK_BYTES, STACK_TOP, Cpu
from tinydeploy.emulate.image import Image

# Pseudo-random, so that a program's own values cannot pass for paint except by a chance of 2^-32 a word.
PAINT = np.random.default_rng(20240229).integers(0, 1 << 32, STACK_BYTES // 4, dtype=np.uint32)
_PAINT_BYTES = PAINT.tobytes()


def paint(cpu: Cpu) -> None:
    """Fills the whole stack with the paint."""
    cpu.write(STACK_BOTTOM, _PAINT_BYTES)


def painted_over(cpu: Cpu) -> int:
    """Bytes from the lowest changed word to the top of the stack."""
    words = np.frombuffer(cpu.read(STACK_BOTTOM, STACK_BYTES), dtype=np.uint32)
    changed = np.flatnonzero(words != PAINT)
    return 0 if changed.size == 0 else STACK_BYTES - 4 * int(changed[0])


class StackWatch:
    """Follows the stack pointer behind each instruction that lowers it; made before the first call.

    Paint alone misses the words of a frame that were reserved and not written, and an interrupt would still
    be stacked below them.
    """

    def __init__(self, cpu: Cpu, image: Image) -> None:
        self._cpu = cpu
        self._lowest = STACK_TOP
        for address in set(cpu.architecture.behind_lowering(image)):
            cpu.on_instruction(address, self._look)

    def start(self) -> None:
        """Forgets the lowest value."""
        self._lowest = STACK_TOP

    def deepest(self) -> int:
        """Bytes between the stack pointer at entry and its lowest value."""
        return STACK_TOP - self._lowest

    def _look(self, _uc: Any, _address: int, _size: int, _data: Any) -> None:
        self._lowest = min(self._lowest, self._cpu.register("sp"))
