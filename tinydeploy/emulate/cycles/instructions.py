"""What the cost of an instruction depends on: its class, its registers, and how it may leave the block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tinydeploy.emulate.thumb import length_at
from tinydeploy.emulate.toolchain import load_extra

Kind = Literal[
    "alu",
    "multiply",
    "multiply_accumulate",
    "multiply_long",
    "multiply_accumulate_long",
    "multiply_dual",
    "divide",
    "load",
    "store",
    "double",
    "multiple",
    "special",
    "float_alu",
    "float_multiply_add",
    "float_divide",
    "unknown",
]
Exit = Literal["branch", "call", "return"]

_ALWAYS = (0, 15)  # capstone's codes of an instruction without a condition
_EXACT: dict[str, Kind] = {"mul": "multiply", "mla": "multiply_accumulate", "mls": "multiply_accumulate"}
_EXACT |= {"smull": "multiply_long", "umull": "multiply_long", "umaal": "multiply_accumulate_long"}
_EXACT |= dict.fromkeys(("sdiv", "udiv"), "divide")
_EXACT |= dict.fromkeys(("ldrd", "strd", "ldrexd", "strexd"), "double")
_EXACT |= dict.fromkeys(("push", "pop", "vpush", "vpop"), "multiple")
_EXACT |= dict.fromkeys(("tbb", "tbh"), "load")
_EXACT |= dict.fromkeys(("mrs", "msr", "dmb", "dsb", "isb", "vmrs", "vmsr", "cpsid", "cpsie"), "special")
# The first prefix that fits decides.
_PREFIXES: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("smlad", "smlsd", "smuad", "smusd"), "multiply_dual"),
    (("smlal", "umlal", "smlsl"), "multiply_accumulate_long"),
    (("smla", "smmla", "smmls"), "multiply_accumulate"),
    (("smul", "smmul"), "multiply"),
    (("vldm", "vstm", "ldm", "stm"), "multiple"),
    (("vfma", "vfms", "vfnm", "vmla", "vmls", "vnml"), "float_multiply_add"),
    (("vdiv", "vsqrt"), "float_divide"),
    (("v",), "float_alu"),
    (("ldr", "lda"), "load"),
    (("str", "stl"), "store"),
)


_REGISTER = 1  # capstone's type of a register operand
_SHIFTS = ("lsl", "lsr", "asr", "ror")
# What a Cortex-M7 takes only as the first of two: instructions of its SIMD unit, bit fields and CLZ.
_FIRST_ONLY = frozenset(("clz", "bfi", "bfc", "ubfx", "sbfx", "rev", "rev16", "revsh", "rbit", "sel"))
_FIRST_ONLY_STEMS = (
    *("sxt", "uxt", "ssat", "usat", "pkh", "qadd", "qsub", "qdadd", "qdsub", "usad", "vsel"),
    *(p + o for p in ("s", "u", "sh", "uh", "uq") for o in ("add8", "add16", "sub8", "sub16", "asx", "sax")),
)


@dataclass(frozen=True)
class Instruction:
    """One instruction as the model of cycles sees it.

    Attributes:
        kind: its class; "unknown" where the disassembler does not know it.
        words: words that a multiple transfer moves, else 0.
        writes: registers that it writes; of a load only what it loads, not a base that it moves.
        address_from: registers that the address of its access is computed from.
        register_offset: whether one of them is an offset.
        exit: how it leaves a straight run of instructions, None where it does not.
        conditional: whether it may not leave it.
        reads: registers that it reads; the flags are the register `cpsr`.
        moves: base registers that it moves.
        early: those of `reads` that go through the shifter, and are needed before the others.
        late: those of `reads` that are needed after the others: what is stored, or added to a product.
        narrow: whether it loads a byte or a halfword.
        shifts: whether it uses the shifter.
        first_only: whether a core that issues two instructions at a time cannot take it as the second.
    """

    kind: Kind
    words: int
    writes: frozenset[str]
    address_from: frozenset[str]
    register_offset: bool
    exit: Exit | None
    conditional: bool
    reads: frozenset[str] = frozenset()
    moves: frozenset[str] = frozenset()
    early: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    narrow: bool = False
    shifts: bool = False
    first_only: bool = False


_UNKNOWN = Instruction("unknown", 0, frozenset(), frozenset(), False, None, False)


def instructions_of(engine: Any, code: bytes, address: int) -> Iterator[Instruction]:
    """Every instruction of a block.

    Args:
        engine: a disassembler of tinydeploy.emulate.thumb.
        code: the block, which starts and ends at an instruction's edge.
    """
    position = 0
    while position < len(code):
        for insn in engine.disasm(code[position:], address + position):
            yield _instruction(insn)
            position = insn.address - address + insn.size
        if position < len(code):
            yield _UNKNOWN
            position += length_at(code, position)


def _instruction(insn: Any) -> Instruction:
    name = insn.insn_name()
    kind = _kind(insn, name)
    reads, writes = (frozenset(map(insn.reg_name, registers)) for registers in insn.regs_access())
    sources, offset = _address_of(insn, kind)
    moves = writes & sources if kind in ("load", "store", "double", "multiple") else frozenset()
    leaves = _exit(name, kind, writes)
    if kind == "load" and leaves != "branch":
        writes = frozenset((insn.reg_name(insn.operands[0].reg),))
        moves -= writes
    predicated = insn.cc not in _ALWAYS and name != "it"
    late = _late(insn, name, kind)
    shifted, early = _shifter(insn, name)
    return Instruction(
        kind=kind,
        words=_words(insn, name) if kind == "multiple" else 0,
        writes=_parts(writes | ({"cpsr"} if insn.update_flags else set())),
        address_from=sources,
        register_offset=offset,
        exit=leaves,
        conditional=predicated or name in ("cbz", "cbnz"),
        reads=_parts(reads | late | ({"cpsr"} if predicated else set())),
        moves=moves,
        early=early,
        late=late,
        narrow=kind == "load" and name.endswith(("b", "h")),
        shifts=shifted,
        first_only=name in _FIRST_ONLY or name.startswith(_FIRST_ONLY_STEMS),
    )


def _late(insn: Any, name: str, kind: Kind) -> frozenset[str]:
    """What is stored, or added to a product."""
    if kind == "store":
        return frozenset((insn.reg_name(insn.operands[0].reg),))
    registers = [insn.reg_name(operand.reg) for operand in insn.operands if operand.type == _REGISTER]
    if kind == "multiply_accumulate_long":
        return frozenset(registers[:2]) - frozenset(registers[2:])
    if kind in ("multiply_accumulate", "multiply_dual") and len(registers) > 3:
        return frozenset(registers[3:]) - frozenset(registers[1:3])
    return frozenset()


def _shifter(insn: Any, name: str) -> tuple[bool, frozenset[str]]:
    """Whether the shifter is used, and the registers that go through it together with an operation."""
    if name in _SHIFTS:
        return True, frozenset()
    # The shift of an address is the load unit's.
    shifted = [o for o in insn.operands if o.type == _REGISTER and int(o.shift.type)]
    return bool(shifted), frozenset(insn.reg_name(operand.reg) for operand in shifted)


def _parts(registers: frozenset[str] | set[str]) -> frozenset[str]:
    """Registers of the core; a double one of the floating-point unit as its two halves."""
    found: set[str] = set()
    for register in registers:
        if register.startswith("d") and register[1:].isdigit():
            first = 2 * int(register[1:])
            found |= {f"s{first}", f"s{first + 1}"}
        else:
            found.add(register)
    return frozenset(found)


def _kind(insn: Any, name: str) -> Kind:
    if name in ("vldr", "vstr"):
        # One word on the same bus as LDR and STR, or two.
        if insn.reg_name(insn.operands[0].reg).startswith("d"):
            return "double"
        return "load" if name == "vldr" else "store"
    if name in _EXACT:
        return _EXACT[name]
    return next((kind for prefixes, kind in _PREFIXES if name.startswith(prefixes)), "alu")


def _exit(name: str, kind: Kind, writes: frozenset[str]) -> Exit | None:
    if name == "bl":
        return "call"
    if name in ("b", "bx", "blx", "cbz", "cbnz", "tbb", "tbh"):
        return "branch"
    if "pc" not in writes:
        return None
    return "return" if kind in ("load", "multiple") else "branch"


def _words(insn: Any, name: str) -> int:
    """Words that a multiple transfer moves."""
    registers = insn.operands if name.endswith(("push", "pop")) else insn.operands[1:]
    return sum(2 if insn.reg_name(operand.reg).startswith("d") else 1 for operand in registers)


def _address_of(insn: Any, kind: Kind) -> tuple[frozenset[str], bool]:
    """The registers of the address, and whether there is a register offset."""
    if kind not in ("load", "store", "double", "multiple"):
        return frozenset(), False
    memory_operand = load_extra("capstone.arm_const", "capstone").ARM_OP_MEM
    for operand in insn.operands:
        if operand.type == memory_operand:
            memory = operand.mem
            registers = [register for register in (memory.base, memory.index) if register]
            return frozenset(map(insn.reg_name, registers)), bool(memory.index)
    if insn.insn_name().endswith(("push", "pop")):
        return frozenset(("sp",)), False
    return frozenset((insn.reg_name(insn.operands[0].reg),)), False
