"""Thumb on the M profile: Cortex-M0+ to Cortex-M33."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinydeploy.emulate import accesses, isa, thumb
from tinydeploy.emulate.accesses import Access
from tinydeploy.emulate.arch.base import CallConvention
from tinydeploy.emulate.cycles import instructions, loads
from tinydeploy.emulate.cycles.instructions import Instruction
from tinydeploy.emulate.cycles.loads import Load
from tinydeploy.emulate.faults import NO_HARDWARE, OTHER_CORE, Stop
from tinydeploy.emulate.image import CodeRange, Image
from tinydeploy.emulate.toolchain import load_extra
from tinydeploy.errors import DeployError
from tinydeploy.targets import Core

_ALIASES = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12"}
_FPU_ON = 1 << 30  # FPEXC.EN
_FULL_ACCESS = 0xF << 20  # coprocessors 10 and 11 of CPACR
_THUMB_BIT = 1 << 5  # of CPSR, as the emulator keeps it
_HELPERS = ("lmul", "llsl", "lasr", "idiv", "uidiv", "idivmod", "uidivmod")


class Thumb:
    """The instruction set of a Cortex-M core; ``architecture`` is the core's, such as ``armv7e-m``."""

    machine = "ARM"
    call = CallConvention(("r0", "r1", "r2", "r3"), "r0", "sp", "lr", "pc", "cpsr", 1)
    gcc_dialect: tuple[str, ...] = ()
    soft_helpers = frozenset(f"__aeabi_{name}" for name in _HELPERS) | {"memcpy", "memset", "memmove"}
    soft_helper_prefix = "__aeabi_mem"

    def __init__(self, architecture: str) -> None:
        self._is_v8 = architecture == "armv8-m.main"
        self._is_v6 = architecture == "armv6-m"
        self.fault_hint = "an Armv6-M core refuses every unaligned access" if self._is_v6 else ""

    def open(self, core: Core) -> Any:
        unicorn = load_extra("unicorn", "unicorn")
        arm_const = load_extra("unicorn.arm_const", "unicorn")
        model = getattr(arm_const, "UC_CPU_ARM_" + core.emulator.upper().replace("-", "_"), None)
        if model is None or not core.emulator:
            raise DeployError(f"the emulator has no core {core.emulator!r}", where=core.name)
        # UC_MODE_MCLASS would make every model a Cortex-M33; the model alone decides under UC_MODE_THUMB.
        engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        engine.ctl_set_cpu_model(model)
        if core.fpu != "none":
            engine.reg_write(arm_const.UC_ARM_REG_C1_C0_2, _FULL_ACCESS)
            engine.reg_write(arm_const.UC_ARM_REG_FPEXC, _FPU_ON)
        return engine

    def register(self, name: str) -> int:
        arm_const = load_extra("unicorn.arm_const", "unicorn")
        return int(getattr(arm_const, f"UC_ARM_REG_{_ALIASES.get(name, name).upper()}"))

    def soft_flags(self, kind: str, flags: tuple[str, ...]) -> tuple[str, ...]:
        if kind == "zig":
            return tuple(flag.replace("eabihf", "eabi") for flag in flags)
        kept = tuple(flag for flag in flags if not flag.startswith(("-mfloat-abi", "-mfpu")))
        return (*kept, "-mfloat-abi=soft")

    def why_stopped(self, core: Core, stop: Stop) -> tuple[str, str] | None:
        if stop.flags is not None and not stop.flags & _THUMB_BIT:
            hint = "a function pointer without the Thumb bit, or code for another core"
            return f"the code goes to Arm state at 0x{stop.address:08x}, which no Cortex-M has", hint
        before, at = (self._first(code, 0) for code in (stop.behind[-2:], stop.at))
        name, passed = _name(at), _name(before)
        # SVC and WFI have moved on when they stop.
        reasons = (
            (name == "bkpt", "stops at BKPT", "a breakpoint, or semihosting (printf, exit)"),
            (passed == "svc", "calls an operating system (SVC), and there is none", NO_HARDWARE),
            ("wfi" in (passed, name), "waits for an interrupt (WFI), and none comes", NO_HARDWARE),
            ("wfe" in (passed, name), "waits for an event (WFE), and none comes", NO_HARDWARE),
            (name == "udf", "runs into a trap (UDF)", "abort(), or what must never be reached"),
        )
        known = next(((fact, hint) for applies, fact, hint in reasons if applies), None)
        if known is not None:
            return f"the code {known[0]}", known[1]
        if not stop.at:
            return None
        code = stop.at[: 2 if at is None else at.size]
        text = self.text(code, stop.address)
        why = isa.why_unsupported(core, code, name or None, text)
        return None if why is None else (f"{core.name} cannot run '{text}': {why}", OTHER_CORE)

    def _first(self, code: bytes, address: int) -> Any | None:
        return next(thumb.disassembler(v8=self._is_v8).disasm(code, address), None)

    def length_at(self, code: bytes, position: int) -> int:
        return thumb.length_at(code, position)

    def text(self, code: bytes, address: int) -> str:
        for insn in thumb.disassembler(v8=True).disasm(code, address):
            return f"{insn.mnemonic} {insn.op_str}".strip()
        return code.hex()

    def is_float(self, code: bytes) -> bool:
        return isa.is_float(code)

    def unsupported(self, core: Core, image: Image) -> Iterator[tuple[CodeRange, int, str, str]]:
        for piece, address, code, insn in thumb.decode(image, v8=self._is_v8):
            name = None if insn is None else insn.insn_name()
            text = code.hex() if insn is None else f"{insn.mnemonic} {insn.op_str}"
            why = isa.why_unsupported(core, code, name, text)
            if why is not None:
                yield piece, address, text, why

    def behind_lowering(self, image: Image) -> Iterator[int]:
        """Behind PUSH, SUB SP, STM SP!, STR [SP, #-n]!, MOV SP."""
        for _piece, address, code, insn in thumb.decode(image, v8=True):
            if insn is None:
                continue
            writes = {insn.reg_name(register) for register in insn.regs_access()[1]}
            if "sp" in writes and not insn.insn_name().startswith(("pop", "ldm", "vpop", "vldm")):
                yield address + len(code)

    def find_accesses(self, image: Image) -> tuple[Access, ...]:
        return () if self._is_v6 else accesses.find_accesses(image, v8=self._is_v8)

    def find_loads(self, image: Image) -> tuple[Load, ...]:
        return loads.find_loads(image, v8=self._is_v8)

    def instructions(self, code: bytes, address: int) -> Iterator[Instruction]:
        return instructions.instructions_of(thumb.disassembler(v8=self._is_v8), code, address)


def _name(instruction: Any | None) -> str:
    """Its name; hints such as WFI have theirs in the mnemonic alone."""
    if instruction is None:
        return ""
    name = str(instruction.insn_name())
    return str(instruction.mnemonic).partition(".")[0] if name == "hint" else name
