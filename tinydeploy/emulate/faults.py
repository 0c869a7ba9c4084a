"""Why emulated code stopped where it stopped: the instruction there, and the access that had no memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NO_HARDWARE = "only core and memory are emulated: name a function that computes and touches no hardware"
OTHER_CORE = "is the code built for another core?"

# Arm's memory map of M-profile cores; what lies in a region of devices is a register of hardware.
_ARM_DEVICES = (
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
        flags: the register of the condition flags, None where there is none.
        behind, at: the four bytes before the program counter and those from it on, where memory is there.
    """

    address: int
    flags: int | None
    behind: bytes
    at: bytes


def access_reason(access: BadAccess, machine: str) -> tuple[str, str]:
    """What an access without memory means, and what to do about it.

    Args:
        machine: "ARM", whose memory map tells hardware from memory, or another.
    """
    at = f"0x{access.address:08x}"
    if access.kind == "fetch":
        fact = f"the code jumps to {at}, where there is no code"
        return fact, "a function pointer that start-up code would have set, or a function in ROM"
    if access.protected:
        return f"the code writes to {at}, which is flash", "flash cannot be written like RAM"
    for start, end, what in _ARM_DEVICES if machine == "ARM" else ():
        if start <= access.address < end:
            return f"the code {access.kind}s the {what} at {at}", NO_HARDWARE
    unset = "hardware, or a pointer that start-up code would have set"
    hint = "a null pointer" if access.address < 0x400 else unset
    return f"the code {access.kind}s {at}, where there is no memory", hint
