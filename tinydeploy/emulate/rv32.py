"""RV32IMC instructions, decoded from their bits: what each is, which registers it touches, where it reads.

The encodings are those of The RISC-V Instruction Set Manual, volume I (20191213): chapter 24 for the 32-bit
instructions of RV32I and M, section 16.8 for the compressed ones of C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "alu",
    "multiply",
    "multiply_high",
    "divide",
    "load",
    "store",
    "branch",
    "jump",
    "jump_register",
    "special",
    "float",
    "atomic",
    "unknown",
]

NAMES = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{n}" for n in range(8)),
    *(f"s{n}" for n in range(2, 12)),
    *(f"t{n}" for n in range(3, 7)),
)
"""The registers x0 to x31 by the names of the calling convention."""

ZERO, RA, SP = 0, 1, 2

_FLOAT_OPCODES = (0x07, 0x27, 0x43, 0x47, 0x4B, 0x4F, 0x53)
_FLOAT_REGISTERS = (1, 2, 3)  # fflags, frm, fcsr
_LOAD_BYTES = {0: 1, 1: 2, 2: 4, 4: 1, 5: 2}
_STORE_BYTES = {0: 1, 1: 2, 2: 4}
_BRANCHES = (0, 1, 4, 5, 6, 7)


@dataclass(frozen=True)
class Decoded:
    """One instruction.

    Attributes:
        kind: "float" for an instruction of F or D, "atomic" for one of A; "unknown" is none of RV32IMACFD.
        writes: the register that it writes, None where there is none; x0 does not count.
        reads: the registers that it reads, x0 left out.
        base: register that the address of a load or store counts from.
        immediate: the offset of a load or store, or the number that ADDI adds; else 0.
        size: bytes of a load or store, else 0.
    """

    kind: Kind
    writes: int | None = None
    reads: tuple[int, ...] = ()
    base: int | None = None
    immediate: int = 0
    size: int = 0


_UNKNOWN = Decoded("unknown")
_FLOAT = Decoded("float")
_SPECIAL = Decoded("special")


def length_at(code: bytes, position: int) -> int:
    """Length in bytes (2 or 4) of the instruction at ``position``; both low bits set mean 4."""
    return 4 if code[position] & 3 == 3 else 2


def decode(code: bytes) -> Decoded:
    """What an instruction of 2 or 4 bytes is."""
    if len(code) == 2:
        return _compressed(int.from_bytes(code, "little"))
    return _full(int.from_bytes(code, "little")) if len(code) == 4 else _UNKNOWN


def _full(word: int) -> Decoded:
    opcode, funct3, funct7 = word & 0x7F, word >> 12 & 7, word >> 25
    rd, rs1, rs2 = word >> 7 & 31, word >> 15 & 31, word >> 20 & 31
    if opcode in _FLOAT_OPCODES or (opcode == 0x73 and funct3 and word >> 20 in _FLOAT_REGISTERS):
        return _FLOAT
    if opcode in (0x03, 0x23):
        return _transfer(opcode, funct3, funct7, (rd, rs1, rs2))
    if opcode == 0x13:
        return _immediate(funct3, funct7, rd, rs1, _signed(word >> 20, 12))
    if opcode == 0x33:
        return _register(funct3, funct7, rd, rs1, rs2)
    others: dict[int, Decoded] = {
        0x37: _made("alu", rd),
        0x17: _made("alu", rd),
        0x6F: _made("jump", rd),
        0x63: _made("branch", None, rs1, rs2) if funct3 in _BRANCHES else _UNKNOWN,
        0x67: _made("jump_register", rd, rs1) if funct3 == 0 else _UNKNOWN,
        0x0F: _SPECIAL,
        0x73: _made("special", rd, rs1 if funct3 in (1, 2, 3) else ZERO),
        0x2F: Decoded("atomic"),
    }
    return others.get(opcode, _UNKNOWN)


def _transfer(opcode: int, funct3: int, funct7: int, registers: tuple[int, int, int]) -> Decoded:
    """Loads and stores; the upper seven bits of the offset stand in the same place in both."""
    rd, rs1, rs2 = registers
    if opcode == 0x03 and funct3 in _LOAD_BYTES:
        offset = _signed(funct7 << 5 | rs2, 12)
        return _made("load", rd, rs1, base=rs1, immediate=offset, size=_LOAD_BYTES[funct3])
    if opcode == 0x23 and funct3 in _STORE_BYTES:
        offset = _signed(funct7 << 5 | rd, 12)
        return _made("store", None, rs1, rs2, base=rs1, immediate=offset, size=_STORE_BYTES[funct3])
    return _UNKNOWN


def _immediate(funct3: int, funct7: int, rd: int, rs1: int, offset: int) -> Decoded:
    """ADDI and its kin; a shift is one only with the right upper bits."""
    if (funct3 == 1 and funct7 != 0) or (funct3 == 5 and funct7 not in (0, 0x20)):
        return _UNKNOWN
    return _made("alu", rd, rs1, immediate=offset if funct3 == 0 else 0)


def _register(funct3: int, funct7: int, rd: int, rs1: int, rs2: int) -> Decoded:
    """Register-register instructions of RV32I and M."""
    if funct7 == 1:
        kind: Kind = "multiply" if funct3 == 0 else "multiply_high" if funct3 < 4 else "divide"
    elif funct7 == 0 or (funct7 == 0x20 and funct3 in (0, 5)):
        kind = "alu"
    else:
        return _UNKNOWN
    return _made(kind, rd, rs1, rs2)


def _compressed(half: int) -> Decoded:
    quadrant, funct3 = half & 3, half >> 13
    return (_quadrant0, _quadrant1, _quadrant2)[quadrant](half, funct3)


def _quadrant0(half: int, funct3: int) -> Decoded:
    small, base = 8 + (half >> 2 & 7), 8 + (half >> 7 & 7)
    offset = (half >> 10 & 7) << 3 | (half >> 6 & 1) << 2 | (half >> 5 & 1) << 6
    if funct3 == 0 and half >> 5 & 0xFF:
        return _made("alu", small, SP)
    if funct3 == 2:
        return _made("load", small, base, base=base, immediate=offset, size=4)
    if funct3 == 6:
        return _made("store", None, base, small, base=base, immediate=offset, size=4)
    return _FLOAT if funct3 in (1, 3, 5, 7) else _UNKNOWN


def _quadrant1(half: int, funct3: int) -> Decoded:
    rd, small = half >> 7 & 31, 8 + (half >> 7 & 7)
    number = _signed((half >> 12 & 1) << 5 | (half >> 2 & 31), 6)
    # ADDI16SP scatters its other bits; its sign is all that anyone asks for.
    raised = _made("alu", rd, rd, immediate=-16 if number < 0 else 16)
    upper = raised if rd == SP else _made("alu", rd)
    branch = _made("branch", None, small)
    return (
        _made("alu", rd, rd, immediate=number),
        _made("jump", RA),
        _made("alu", rd),
        upper if number else _UNKNOWN,
        _quadrant1_arithmetic(half, small),
        _made("jump"),
        branch,
        branch,
    )[funct3]


def _quadrant1_arithmetic(half: int, small: int) -> Decoded:
    operation, wide = half >> 10 & 3, half >> 12 & 1
    if operation == 2:
        return _made("alu", small, small)
    if operation == 3:
        return _UNKNOWN if wide else _made("alu", small, small, 8 + (half >> 2 & 7))
    # On RV32 a shift by 32 or more is reserved.
    return _UNKNOWN if wide else _made("alu", small, small)


def _quadrant2(half: int, funct3: int) -> Decoded:
    rd, rs2, wide = half >> 7 & 31, half >> 2 & 31, half >> 12 & 1
    if funct3 == 0:
        return _UNKNOWN if wide else _made("alu", rd, rd)
    if funct3 == 2:
        offset = wide << 5 | (half >> 4 & 7) << 2 | (half >> 2 & 3) << 6
        return _made("load", rd, SP, base=SP, immediate=offset, size=4) if rd else _UNKNOWN
    if funct3 == 6:
        offset = (half >> 9 & 15) << 2 | (half >> 7 & 3) << 6
        return _made("store", None, SP, rs2, base=SP, immediate=offset, size=4)
    return _quadrant2_move(rd, rs2, wide) if funct3 == 4 else _FLOAT


def _quadrant2_move(rd: int, rs2: int, wide: int) -> Decoded:
    """C.MV and C.ADD, and without a second register C.JR, C.JALR and C.EBREAK."""
    if rs2:
        return _made("alu", rd, rd, rs2) if wide else _made("alu", rd, rs2)
    if rd:
        return _made("jump_register", RA if wide else ZERO, rd)
    return _SPECIAL if wide else _UNKNOWN


def _made(
    kind: Kind,
    writes: int | None = None,
    *reads: int,
    base: int | None = None,
    immediate: int = 0,
    size: int = 0,
) -> Decoded:
    return Decoded(kind, writes or None, tuple(r for r in reads if r != ZERO), base, immediate, size)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
