"""Where each load reads, said so that its address can be computed in front of it.

The second way of seeing reads: a hook on reads disturbs some code in the emulator (the instruction behind a
conditional load of an IT block was skipped).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinydeploy.emulate.image import Image
from tinydeploy.emulate.thumb import decode
from tinydeploy.emulate.toolchain import load_extra

ALWAYS = 14


@dataclass(frozen=True)
class Load:
    """A load whose address is ``literal + base + (index << shift) + displacement``.

    Attributes:
        base, index: registers by name, None where there is none.
        literal: the address that is known already, for a load relative to the program counter.
        condition: of an instruction in an IT block, numbered from EQ = 0; ALWAYS where there is none.
        unit: bytes of one access of the memory.
        size: bytes of all.
    """

    address: int
    base: str | None
    index: str | None
    shift: int
    displacement: int
    literal: int
    condition: int
    unit: int
    size: int


def find_loads(image: Image, *, v8: bool) -> tuple[Load, ...]:
    """Every load of ``image`` that can read from flash: all but those relative to the stack pointer."""
    return tuple(_loads(image, v8))


def conditional_loads(image: Image, *, v8: bool) -> bool:
    """Whether a load lies in an IT block."""
    return any(load.condition != ALWAYS for load in find_loads(image, v8=v8))


def _loads(image: Image, v8: bool) -> Iterator[Load]:
    for _piece, address, _code, insn in decode(image, v8=v8):
        if insn is None:
            continue
        name = insn.insn_name()
        condition = int(insn.cc) - 1 if 1 <= int(insn.cc) <= ALWAYS else ALWAYS
        if name in ("tbb", "tbh") or name.startswith(("ldr", "vldr", "lda")):
            found = _single(insn, name, address, condition)
        elif name.startswith(("ldm", "vldm")):
            found = _multiple(insn, name, address, condition)
        else:
            found = None
        if found is not None and found.base != "sp":
            yield found


def _single(insn: Any, name: str, address: int, condition: int) -> Load | None:
    memory_operand = load_extra("capstone.arm_const", "capstone").ARM_OP_MEM
    for operand in insn.operands:
        if operand.type != memory_operand:
            continue
        memory = operand.mem
        base = insn.reg_name(memory.base)
        index = insn.reg_name(memory.index) if memory.index else None
        literal = 0
        if base == "pc":
            # A table branch counts from the word behind it, a literal from the aligned one.
            literal = address + 4 if name.startswith("tb") else (address + 4) & ~3
        unit, size = _sizes(name, insn)
        return Load(
            address=address,
            base=None if base == "pc" else base,
            index=index,
            shift=1 if name == "tbh" else int(operand.shift.value or memory.lshift),
            displacement=0 if insn.post_index else int(memory.disp),
            literal=literal,
            condition=condition,
            unit=unit,
            size=size,
        )
    return None


def _multiple(insn: Any, name: str, address: int, condition: int) -> Load:
    registers = [insn.reg_name(operand.reg) for operand in insn.operands[1:]]
    size = sum(8 if register.startswith("d") else 4 for register in registers)
    down = "db" in name
    return Load(
        address, insn.reg_name(insn.operands[0].reg), None, 0, -size if down else 0, 0, condition, 4, size
    )


def _sizes(name: str, insn: Any) -> tuple[int, int]:
    """Bytes of one access, and of all."""
    if name in ("ldrd", "ldrexd"):
        return 4, 8
    if name == "vldr":
        return 4, 8 if insn.reg_name(insn.operands[0].reg).startswith("d") else 4
    if name == "tbb" or name.endswith("b"):
        return 1, 1
    if name == "tbh" or name.endswith("h"):
        return 2, 2
    return 4, 4
