"""The accesses that a real core refuses where they are unaligned and the emulator lets pass: which there are.

Every Cortex-M core faults on an unaligned LDM, STM, LDRD, STRD, exclusive, acquire or VFP access.
What is relative to the stack pointer or to the program counter is left out, as it is aligned by
construction: the low two bits of SP read as zero, and literal offsets are multiples of four where alignment
is demanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinydeploy.emulate.image import Image
from tinydeploy.emulate.thumb import decode
from tinydeploy.emulate.toolchain import load_extra

_MULTIPLE = ("ldm", "stm", "vldm", "vstm", "fldm", "fstm")
_WORDS_ALWAYS = (*_MULTIPLE, "ldrd", "strd", "vldr", "vstr", "ldrexd", "strexd")
_BY_NAME = {"ldrex": 4, "strex": 4, "ldrexh": 2, "strexh": 2, "lda": 4, "stl": 4, "ldah": 2, "stlh": 2}
_BY_NAME |= {"ldaex": 4, "stlex": 4, "ldaexh": 2, "stlexh": 2}


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


def find_accesses(image: Image, *, v8: bool) -> tuple[Access, ...]:
    """The instructions of ``image``, Thumb code from Armv7-M on, whose alignment only a run can tell.

    Raises:
        MissingExtraError: capstone is not installed.
    """
    return tuple(_accesses(image, v8))


def _accesses(image: Image, v8: bool) -> Iterator[Access]:
    for _piece, address, _code, insn in decode(image, v8=v8):
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
