"""How deep the stack went: painted words that changed, and the stack pointer's own lowest value."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.image import Image


def paint(cpu: Cpu) -> None:
    """Fills the whole stack with the paint."""
    cpu.write(cpu.layout.stack_bottom, _paint(cpu.layout.stack_bytes).tobytes())


def painted_over(cpu: Cpu) -> int:
    """Bytes from the lowest changed word to the top of the stack."""
    layout = cpu.layout
    words = np.frombuffer(cpu.read(layout.stack_bottom, layout.stack_bytes), dtype=np.uint32)
    changed = np.flatnonzero(words != _paint(layout.stack_bytes))
    return 0 if changed.size == 0 else layout.stack_bytes - 4 * int(changed[0])


@functools.cache
def _paint(size: int) -> npt.NDArray[np.uint32]:
    """Pseudo-random: a program's own values pass for paint by a chance of 2^-32 a word."""
    return np.random.default_rng(20240229).integers(0, 1 << 32, size // 4, dtype=np.uint32)


class StackWatch:
    """Follows the stack pointer behind each instruction that lowers it; made before the first call.

    Paint alone misses the words of a frame that were reserved and not written, and an interrupt would still
    be stacked below them.
    """

    def __init__(self, cpu: Cpu, image: Image) -> None:
        self._cpu = cpu
        self._lowest = cpu.layout.stack_top
        for address in set(cpu.architecture.behind_lowering(image)):
            cpu.on_instruction(address, self._look)

    def start(self) -> None:
        """Forgets the lowest value."""
        self._lowest = self._cpu.layout.stack_top

    def deepest(self) -> int:
        """Bytes between the stack pointer at entry and its lowest value."""
        return self._cpu.layout.stack_top - self._lowest

    def _look(self, _uc: Any, _address: int, _size: int, _data: Any) -> None:
        self._lowest = min(self._lowest, self._cpu.register("sp"))
