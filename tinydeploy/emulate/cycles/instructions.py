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
        reads: registers that it reads, where the instruction set says so.
    """

    kind: Kind
    words: int
    writes: frozenset[str]
    address_from: frozenset[str]
    register_offset: bool
    exit: Exit | None
    conditional: bool
    reads: frozenset[str] = frozenset()


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
    writes = frozenset(insn.reg_name(register) for register in insn.regs_access()[1])
    sources, offset = _address_of(insn, kind)
    leaves = _exit(name, kind, writes)
    if kind == "load" and leaves != "branch":
        writes = frozenset((insn.reg_name(insn.operands[0].reg),))
    return Instruction(
        kind=kind,
        words=_words(insn, name) if kind == "multiple" else 0,
        writes=writes,
        address_from=sources,
        register_offset=offset,
        exit=leaves,
        conditional=name in ("cbz", "cbnz") or (insn.cc not in _ALWAYS and name != "it"),
    )


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
