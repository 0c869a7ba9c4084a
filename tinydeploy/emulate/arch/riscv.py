"""RV32IMC: 32-bit RISC-V with multiplication, division and compressed instructions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinydeploy.emulate import rv32
from tinydeploy.emulate.accesses import Access
from tinydeploy.emulate.arch.base import CallConvention
from tinydeploy.emulate.cycles.instructions import Exit, Instruction
from tinydeploy.emulate.cycles.instructions import Kind as CostKind
from tinydeploy.emulate.cycles.loads import ALWAYS, Load
from tinydeploy.emulate.faults import NO_HARDWARE, Stop, access_reason
from tinydeploy.emulate.image import CodeRange, Image
from tinydeploy.emulate.toolchain import load_extra
from tinydeploy.errors import DeployError
from tinydeploy.targets import Core

# Integer routines of libgcc and compiler-rt, all without floating point: products and shifts of 64 bits.
_HELPERS = ("__muldi3", "__ashldi3", "__ashrdi3", "__lshrdi3")
_COSTS: dict[rv32.Kind, CostKind] = {
    "alu": "alu",
    "multiply": "multiply",
    "multiply_high": "multiply_long",
    "divide": "divide",
    "load": "load",
    "store": "store",
    "branch": "alu",
    "jump": "alu",
    "jump_register": "alu",
    "special": "special",
}
# Where the RP2350 and the ESP32-C3 have registers of hardware, and the latter its ROM.
_DEVICES = (
    (0x4000_0000, 0x8000_0000, "peripheral register or ROM"),
    (0xA000_0000, 0x1_0000_0000, "device register"),
)
_BREAK = "the code stops at EBREAK", "a breakpoint, semihosting (printf, exit), or abort()"
_STOPS = {
    bytes.fromhex("0290"): _BREAK,
    bytes.fromhex("73001000"): _BREAK,
    bytes.fromhex("73000000"): ("the code calls an operating system (ECALL), and there is none", NO_HARDWARE),
    bytes.fromhex("73005010"): ("the code waits for an interrupt (WFI), and none comes", NO_HARDWARE),
}
_WHY_NOT: dict[rv32.Kind, str] = {
    "float": "the core has no floating-point unit",
    "atomic": "the core has no atomic instructions",
    "unknown": "not in RV32IMC",
}


class Rv32:
    """The instruction set of an RV32IMC core with the calling convention ILP32."""

    machine = "RISC-V"
    call = CallConvention(tuple(f"a{n}" for n in range(8)), "a0", "sp", "ra", "pc", None, 0, "gp")
    # Debian's compiler comes without a C library and finds <stdint.h> only when freestanding; -fbuiltin takes
    # back what that means for memcpy, which would become a call for every four bytes.
    gcc_dialect: tuple[str, ...] = ("-ffreestanding", "-fbuiltin")
    soft_helpers = frozenset((*_HELPERS, "memcpy", "memset", "memmove"))
    soft_helper_prefix = ""
    fault_hint = ""

    def open(self, core: Core) -> Any:
        unicorn = load_extra("unicorn", "unicorn")
        if core.emulator != "riscv32":
            raise DeployError(f"the emulator has no core {core.emulator!r}", where=core.name)
        return unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)

    def register(self, name: str) -> int:
        riscv_const = load_extra("unicorn.riscv_const", "unicorn")
        return int(getattr(riscv_const, f"UC_RISCV_REG_{name.upper()}"))

    def soft_flags(self, kind: str, flags: tuple[str, ...]) -> tuple[str, ...]:
        del kind
        return flags

    def length_at(self, code: bytes, position: int) -> int:
        return rv32.length_at(code, position)

    def text(self, code: bytes, address: int) -> str:
        capstone = load_extra("capstone", "capstone")
        mode = capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC
        for insn in capstone.Cs(capstone.CS_ARCH_RISCV, mode).disasm(code, address):
            return f"{insn.mnemonic} {insn.op_str}".strip()
        return code.hex()

    def is_float(self, code: bytes) -> bool:
        return rv32.decode(code).kind == "float"

    def unsupported(self, core: Core, image: Image) -> Iterator[tuple[CodeRange, int, str, str]]:
        for piece, address, code, _found in _decoded(image):
            why = self.why_unsupported(core, code, address)
            if why is not None:
                yield piece, address, *why

    def why_unsupported(self, core: Core, code: bytes, address: int) -> tuple[str, str] | None:
        del core
        why = _WHY_NOT.get(rv32.decode(code).kind)
        return None if why is None else (self.text(code, address), why)

    def stopping_reason(self, core: Core, stop: Stop) -> tuple[str, str] | None:
        if stop.access is not None:
            return access_reason(stop.access, _DEVICES)
        # The emulator has moved on by four bytes from what raised an exception, and stands at all else.
        for data in filter(None, (stop.behind, stop.at)):
            code = data[: self.length_at(data, 0)]
            if code in _STOPS:
                return _STOPS[code]
            why = self.why_unsupported(core, code, stop.address)
            if why is not None:
                return f"{core.name} cannot run '{why[0]}': {why[1]}", "is the code built for another core?"
        return None

    def behind_lowering(self, image: Image) -> Iterator[int]:
        """Behind each instruction that writes SP, but for an ADDI of a positive number to it."""
        for _piece, address, code, found in _decoded(image):
            raises = found.reads == (rv32.SP,) and found.immediate > 0
            if found.writes == rv32.SP and not raises:
                yield address + len(code)

    def find_accesses(self, image: Image) -> tuple[Access, ...]:
        """Every load and store of more than a byte, but for those relative to SP, which is a multiple of 16.

        The architecture leaves it to each core whether an unaligned access faults, is slow or works.
        """
        return tuple(
            Access(address, self.text(code, address).split()[0], found.size, *_place(found), ALWAYS + 1)
            for _piece, address, code, found in _decoded(image)
            if found.size > 1 and found.base != rv32.SP
        )

    def find_loads(self, image: Image) -> tuple[Load, ...]:
        return tuple(
            Load(address, *_place(found), 0, ALWAYS, found.size, found.size)
            for _piece, address, _code, found in _decoded(image)
            if found.kind == "load" and found.base != rv32.SP
        )

    def instructions(self, code: bytes, address: int) -> Iterator[Instruction]:
        del address
        position = 0
        while position < len(code):
            size = self.length_at(code, position)
            yield _instruction(rv32.decode(code[position : position + size]))
            position += size


def _decoded(image: Image) -> Iterator[tuple[CodeRange, int, bytes, rv32.Decoded]]:
    """Every instruction of an image: its range, address, bytes and meaning."""
    for piece in image.code:
        position = 0
        while position < len(piece.data):
            size = rv32.length_at(piece.data, position)
            code = piece.data[position : position + size]
            yield piece, piece.address + position, code, rv32.decode(code)
            position += size


def _place(found: rv32.Decoded) -> tuple[str, None, int, int]:
    """Base register, index register, shift and displacement of an access."""
    return rv32.NAMES[found.base or 0], None, 0, found.immediate


def _instruction(found: rv32.Decoded) -> Instruction:
    base = frozenset() if found.base is None else frozenset((rv32.NAMES[found.base],))
    return Instruction(
        kind=_COSTS.get(found.kind, "unknown"),
        words=0,
        writes=frozenset() if found.writes is None else frozenset((rv32.NAMES[found.writes],)),
        address_from=base,
        register_offset=False,
        exit=_exit(found),
        conditional=found.kind == "branch",
        reads=frozenset(rv32.NAMES[register] for register in found.reads),
    )


def _exit(found: rv32.Decoded) -> Exit | None:
    """A jump whose target stands in it costs the same with and without a return address: both are calls."""
    exits: dict[rv32.Kind, Exit] = {"branch": "branch", "jump": "call", "jump_register": "return"}
    return exits.get(found.kind)
