"""Instruction sets: one small object each, and the one place that chooses between them."""

from __future__ import annotations

from tinydeploy.emulate.arch.arm import Thumb
from tinydeploy.emulate.arch.base import Architecture, CallConvention
from tinydeploy.emulate.arch.riscv import Rv32
from tinydeploy.targets import Core

__all__ = ["Architecture", "CallConvention", "architecture_of", "architecture_of_machine"]


def architecture_of(core: Core) -> Architecture:
    """The instruction set of a core that is emulated."""
    if core.architecture.startswith("rv32"):
        return Rv32()
    return Thumb(core.architecture)


def architecture_of_machine(machine: str) -> Architecture:
    """The instruction set of an ELF file, by its machine; its newest version where there are several."""
    return Rv32() if machine == Rv32.machine else Thumb("armv8-m.main")
