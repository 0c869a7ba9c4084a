"""What the emulator asks of an instruction set: the seam between what all cores share and what each has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tinydeploy.emulate.accesses import Access
from tinydeploy.emulate.cycles.instructions import Instruction
from tinydeploy.emulate.cycles.loads import Load
from tinydeploy.emulate.faults import Stop
from tinydeploy.emulate.image import CodeRange, Image
from tinydeploy.targets import Core


@dataclass(frozen=True)
class CallConvention:
    """The registers of a call, by the names that `Architecture.register` takes.

    Attributes:
        arguments: where the first words of arguments go.
        result: where a word comes back.
        stack, link, counter: stack pointer, return address, program counter.
        flags: the register of the condition flags, None where there is none.
        state_bit: set in every code address, 1 for Thumb.
        globals: the register of the image's global pointer, None where the calls need none.
    """

    arguments: tuple[str, ...]
    result: str
    stack: str
    link: str
    counter: str
    flags: str | None
    state_bit: int
    globals: str | None = None


class Architecture(Protocol):
    """An instruction set: how it is emulated, decoded and judged.

    Attributes:
        machine: its name in the header of an ELF file, as pyelftools gives it.
        call: the registers of a call.
        gcc_dialect: flags of GCC that its code needs beyond those of every core.
        soft_helpers: names of the run-time library that integer code may call.
        soft_helper_prefix: and all whose names begin so; no name does where it is empty.
        fault_hint: what is likely wrong where the emulated core faults; may be empty.
    """

    machine: str
    call: CallConvention
    gcc_dialect: tuple[str, ...]
    soft_helpers: frozenset[str]
    soft_helper_prefix: str
    fault_hint: str

    def open(self, core: Core) -> Any:
        """An emulator of the core with its floating-point unit on, and with nothing in its memory.

        Raises:
            MissingExtraError: unicorn is not installed.
            DeployError: the emulator has no such core.
        """

    def register(self, name: str) -> int:
        """The emulator's number of a register, by the disassembler's or the architecture's name."""

    def soft_flags(self, kind: str, flags: tuple[str, ...]) -> tuple[str, ...]:
        """A core's compiler flags with floating point in software; ``kind`` is "gcc" or "zig"."""

    def length_at(self, code: bytes, position: int) -> int:
        """Length in bytes of the instruction at a position."""

    def text(self, code: bytes, address: int) -> str:
        """An instruction as the disassembler writes it, its bytes in hexadecimal where it knows none."""

    def is_float(self, code: bytes) -> bool:
        """Whether an instruction is one of a floating-point unit."""

    def unsupported(self, core: Core, image: Image) -> Iterator[tuple[CodeRange, int, str, str]]:
        """Range, address, text and reason of each instruction of a linked file that a core does not have."""

    def why_unsupported(self, core: Core, code: bytes, address: int) -> tuple[str, str] | None:
        """Text and reason where a core does not have one instruction; None where it has it."""

    def stopping_reason(self, core: Core, stop: Stop) -> tuple[str, str] | None:
        """Why code stopped and what to do about it; None where nothing is known."""

    def behind_lowering(self, image: Image) -> Iterator[int]:
        """Addresses behind each instruction that may lower the stack pointer."""

    def find_accesses(self, image: Image) -> tuple[Access, ...]:
        """The loads and stores whose alignment only a run can tell, where silicon demands one."""

    def find_loads(self, image: Image) -> tuple[Load, ...]:
        """Every load that can read from flash: all but those relative to the stack pointer."""

    def instructions(self, code: bytes, address: int) -> Iterator[Instruction]:
        """Every instruction of a block, as the model of cycles sees it."""
