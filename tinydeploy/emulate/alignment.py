"""Finds, during a run, the accesses that a real core refuses and the emulator lets pass: unaligned ones.

Every core faults on an unaligned LDM, STM, LDRD, STRD, exclusive, acquire or VFP access. An Armv6-M core
faults on any unaligned access, and there the emulator does too.
What is relative to the stack pointer or to the program counter is not watched, as it is aligned by
construction: the low two bits of SP read as zero, and literal offsets are multiples of four where alignment
is demanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.image import Image
from tinydeploy.emulate.thumb import decode
from tinydeploy.emulate.toolchain import load_extra
from tinydeploy.targets import Core

_MULTIPLE = ("ldm", "stm", "vldm", "vstm", "fldm", "fstm")
_WORDS_ALWAYS = (*_MULTIPLE, "ldrd", "strd", "vldr", "vstr", "ldrexd", "strexd")
_BY_NAME = {"ldrex": 4, "strex": 4, "ldrexh": 2, "strexh": 2, "lda": 4, "stl": 4, "ldah": 2, "stlh": 2}
_BY_NAME |= {"ldaex": 4, "stlex": 4, "ldaexh": 2, "stlexh": 2}
_FLAG_BITS = {"n": 31, "z": 30, "c": 29, "v": 28}


@dataclass(frozen=True)
class Access:
    """An instruction whose address has to be a multiple of ``alignment``.

    The address is ``base + (index << shift) + displacement``; ``condition`` is capstone's code, for an
    instruction in an IT block, which may be skipped.
    """

    address: int
    text: str
    alignment: int
    base: str
    index: str | None
    shift: int
    displacement: int
    condition: int


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

        def check(_uc: Any, address: int, _size: int, _data: Any) -> None:
            target = cpu.register(access.base) + access.displacement
            if access.index is not None:
                target += cpu.register(access.index) << access.shift
            if not target & mask or address in self._found:
                return
            # The hook is called for a skipped instruction of an IT block too.
            if passes(access.condition, cpu.register("cpsr")):
                where, wrapped = self._image.locate(address), target & 0xFFFFFFFF
                self._found[address] = f"{where}: {access.text} at unaligned address 0x{wrapped:08x}"

        return check


def find_accesses(core: Core, image: Image) -> tuple[Access, ...]:
    """The instructions of ``image`` whose alignment only a run can tell; none on Armv6-M.

    Raises:
        MissingExtraError: capstone is not installed.
    """
    if core.architecture == "armv6-m":
        return ()
    return tuple(_accesses(core, image))


def passes(condition: int, flags: int) -> bool:
    """Whether an instruction with capstone's condition code is executed under the flags of CPSR."""
    n, z, c, v = ((flags >> _FLAG_BITS[name]) & 1 for name in "nzcv")
    # Capstone counts from 1 in the architecture's order: EQ NE HS LO MI PL VS VC HI LS GE LT GT LE AL.
    holds = (z, c, n, v, c and not z, n == v, n == v and not z)
    if not 1 <= condition <= 14:
        return True
    pair, negated = divmod(condition - 1, 2)
    return bool(holds[pair]) != bool(negated)


def _accesses(core: Core, image: Image) -> Iterator[Access]:
    for _piece, address, _code, insn in decode(image, v8=core.architecture == "armv8-m.main"):
        if insn is None:
            continue
        name = insn.insn_name()
        alignment = _alignment(name)
        if alignment == 0:
            continue
        base, index, shift, displacement = _operand(insn, name)
        if base in ("sp", "pc", None):
            continue
        yield Access(address, insn.mnemonic, alignment, base, index, shift, displacement, int(insn.cc))


def _alignment(name: str) -> int:
    """The alignment in bytes that an access demands, 0 where any address will do."""
    if name.startswith(_WORDS_ALWAYS):
        return 4
    return _BY_NAME.get(name, 0)


def _operand(insn: Any, name: str) -> tuple[Any, str | None, int, int]:
    """Base register, index register, shift and displacement of a memory operand."""
    memory_operand = load_extra("capstone.arm_const", "capstone").ARM_OP_MEM
    if name.startswith(_MULTIPLE):
        return insn.reg_name(insn.operands[0].reg), None, 0, 0
    for operand in insn.operands:
        if operand.type == memory_operand:
            memory = operand.mem
            index = insn.reg_name(memory.index) if memory.index else None
            # A post-indexed access uses the base as it is.
            displacement = 0 if insn.post_index else memory.disp
            return insn.reg_name(memory.base), index, int(operand.shift.value or memory.lshift), displacement
    return None, None, 0, 0
