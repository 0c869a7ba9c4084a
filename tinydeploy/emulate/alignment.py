"""Finds, during a run, the accesses that a real core refuses and the emulator lets pass: unaligned ones.

Which accesses these are, the instruction set says. An Armv6-M core faults on any unaligned access, and there
the emulator does too.
"""

from __future__ import annotations

from typing import Any

from tinydeploy.emulate.accesses import Access
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.image import Image

_FLAG_BITS = {"n": 31, "z": 30, "c": 29, "v": 28}


class AlignmentWatch:
    """Hooks on the accesses of ``accesses``; to be made before the first call on that core."""

    def __init__(self, cpu: Cpu, image: Image, accesses: tuple[Access, ...]) -> None:
        self._cpu, self._image = cpu, image
        self._found: dict[int, str] = {}
        for access in accesses:
            cpu.on_instruction(access.address, self._hook(access))

    def start(self) -> None:
        """Forgets what was found."""
        self._found.clear()

    def faults(self) -> tuple[str, ...]:
        """The first offence of each instruction: ``kws_run+0x1a: ldrd at unaligned address 0x20000001``."""
        return tuple(text for _, text in sorted(self._found.items()))

    def _hook(self, access: Access) -> Any:
        cpu, mask = self._cpu, access.alignment - 1
        conditional = 1 <= access.condition <= 14

        def check(_uc: Any, address: int, _size: int, _data: Any) -> None:
            target = cpu.register(access.base) + access.displacement
            if access.index is not None:
                target += cpu.register(access.index) << access.shift
            if not target & mask or address in self._found:
                return
            # The hook is called for a skipped instruction of an IT block too.
            if not conditional or passes(access.condition, cpu.register("cpsr")):
                where, wrapped = self._image.locate(address), target & 0xFFFFFFFF
                self._found[address] = f"{where}: {access.text} at unaligned address 0x{wrapped:08x}"

        return check


def passes(condition: int, flags: int) -> bool:
    """Whether an instruction with capstone's condition code is executed under the flags of CPSR."""
    n, z, c, v = ((flags >> _FLAG_BITS[name]) & 1 for name in "nzcv")
    # Capstone counts from 1 in the architecture's order: EQ NE HS LO MI PL VS VC HI LS GE LT GT LE AL.
    holds = (z, c, n, v, c and not z, n == v, n == v and not z)
    if not 1 <= condition <= 14:
        return True
    pair, negated = divmod(condition - 1, 2)
    return bool(holds[pair]) != bool(negated)
