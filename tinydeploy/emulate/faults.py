"""Why emulated code stopped where it stopped: the instruction there, and the access that had no memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinydeploy.emulate.isa import why_unsupported
from tinydeploy.emulate.thumb import disassembler
from tinydeploy.targets import Core

NO_HARDWARE = "only core and memory are emulated: name a function that computes and touches no hardware"

THUMB_BIT = 1 << 5  # of CPSR, as the emulator keeps it

# Arm's memory map of M-profile cores; what lies in a region of devices is a register of hardware.
_DEVICES = (
    (0x4000_0000, 0x6000_0000, "peripheral register"),
    (0xA000_0000, 0xE000_0000, "device register"),
    (0xE000_0000, 0xE010_0000, "system register (NVIC, SysTick, SCB, DWT, ...)"),
    (0xE010_0000, 0x1_0000_0000, "vendor's system register"),
)


@dataclass(frozen=True)
class BadAccess:
    """An access that no memory answered."""

    kind: Literal["read", "write", "fetch"]
    address: int
    protected: bool


@dataclass(frozen=True)
class Stop:
    """Where a core stopped.

    Attributes:
        address: of the program counter.
        thumb: whether the core was in Thumb state; false on cores that know no such state.
        behind, at: the four bytes before the program counter and from it on, where memory is there.
        access: the last access that no memory answered, None where there was none.
    """

    address: int
    thumb: bool
    behind: bytes
    at: bytes
    access: BadAccess | None


def stopping_reason(core: Core, stop: Stop) -> tuple[str, str] | None:
    """What stopped the code and what to do about it; None where nothing is known."""
    if stop.access is not None:
        return access_reason(stop.access, _DEVICES)
    if not stop.thumb:
        hint = "a function pointer without the Thumb bit, or code for another core"
        return f"the code goes to Arm state at 0x{stop.address:08x}, which no Cortex-M has", hint
    return _instruction_reason(core, stop)


def access_reason(access: BadAccess, devices: Sequence[tuple[int, int, str]] = ()) -> tuple[str, str]:
    """What an access without memory was, and what to do about it.

    Args:
        devices: regions of the core's memory map that hold registers of hardware: start, end, what they are.
    """
    at = f"0x{access.address:08x}"
    if access.kind == "fetch":
        fact = f"the code jumps to {at}, where there is no code"
        return fact, "a function pointer that start-up code would have set, or a function in ROM"
    if access.protected:
        return f"the code writes to {at}, which is flash", "flash cannot be written like RAM"
    for start, end, what in devices:
        if start <= access.address < end:
            return f"the code {access.kind}s the {what} at {at}", NO_HARDWARE
    hint = "a null pointer" if access.address < 0x400 else "a pointer that start-up code would have set"
    return f"the code {access.kind}s {at}, where there is no memory", hint


def _instruction_reason(core: Core, stop: Stop) -> tuple[str, str] | None:
    before, at = _decoded(core, stop.behind[-2:], stop.address - 2), _decoded(core, stop.at, stop.address)
    name, passed = _name(at), _name(before)
    # SVC and WFI have moved on when they stop.
    reasons = (
        (
            name == "bkpt",
            "the code stops at BKPT",
            "a breakpoint, or semihosting (printf, exit)",
        ),
        (passed == "svc", "the code calls an operating system (SVC), and there is none", NO_HARDWARE),
        ("wfi" in (passed, name), "the code waits for an interrupt (WFI), and none comes", NO_HARDWARE),
        ("wfe" in (passed, name), "the code waits for an event (WFE), and none comes", NO_HARDWARE),
        (name == "udf", "the code runs into a trap (UDF)", "abort(), or what must never be reached"),
    )
    known = next(((fact, hint) for applies, fact, hint in reasons if applies), None)
    return known or _missing_reason(core, stop, at)


def _missing_reason(core: Core, stop: Stop, at: Any | None) -> tuple[str, str] | None:
    """The instruction there, where it is one that the core does not have."""
    if not stop.at:
        return None
    code = stop.at[: 2 if at is None else at.size]
    text = code.hex() if at is None else f"{at.mnemonic} {at.op_str}".strip()
    why = why_unsupported(core, code, _name(at) or None, text)
    if why is None:
        return None
    return f"{core.name} cannot run '{text}': {why}", "is the code built for another core?"


def _name(instruction: Any | None) -> str:
    """Its name; hints such as WFI have theirs in the mnemonic alone."""
    if instruction is None:
        return ""
    name = str(instruction.insn_name())
    return str(instruction.mnemonic).partition(".")[0] if name == "hint" else name


def _decoded(core: Core, code: bytes, address: int) -> Any | None:
    """The first instruction of some bytes as the disassembler sees it."""
    return next(disassembler(v8=core.architecture == "armv8-m.main").disasm(code, address), None)
