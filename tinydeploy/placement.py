"""What a board would gain if the weights lay in RAM: the same code, linked so, run and modelled again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.latency import Latency, latency_of
from tinydeploy.targets import Board

if TYPE_CHECKING:
    from tinydeploy.emulate.build import Firmware
    from tinydeploy.emulate.machine import Run


@dataclass(frozen=True)
class WeightsInRam:
    """A model whose weights the start-up code has copied to RAM; flash keeps the copy that it reads.

    Attributes:
        latency: of the same input.
        ram_bytes: with the weights.
        fits: whether the board's RAM holds that.
        saved: cycles that it is faster by; below zero where it is slower.
    """

    latency: Latency
    ram_bytes: int
    fits: bool
    saved: int

    def to_json(self) -> dict[str, object]:
        return {
            "cycles": self.latency.cycles,
            "latency_ms": self.latency.latency_ms,
            "ram_bytes": self.ram_bytes,
            "fits": self.fits,
            "saved_cycles": self.saved,
        }

    def cycles_of(self, functions: Sequence[str]) -> Cycles:
        """Cycles of functions of the model, by symbol."""
        return sum((self.latency.per_function.get(name, Cycles()) for name in functions), Cycles())


def weights_in_ram(
    firmware: Firmware, board: Board, inputs: tuple[bytes, ...], before: Run, out: Path
) -> WeightsInRam | None:
    """Links a firmware once more with its weights in RAM, and runs it.

    Args:
        inputs: those of the run `before`.
        before: the run with the weights in flash, its cycles counted.
        out: a folder for the ELF file.

    Returns:
        None where there is nothing to compare: no modelled flash, no weights, or a run whose instructions
        or outputs are not those of the run before.

    Raises:
        DeployError: the link failed.
    """
    from tinydeploy.emulate.build import relink_weights_in_ram  # noqa: PLC0415
    from tinydeploy.emulate.machine import Machine  # noqa: PLC0415

    total = None if before.cycles is None else before.cycles.total
    if board.flash is None or total is None or not firmware.flash_weights_bytes:
        return None
    moved = relink_weights_in_ram(firmware, out)
    run = Machine(moved, flash=board.flash).run(inputs, count=True, cycles=True)
    after = None if run.cycles is None else run.cycles.total
    if run.cycles is None or after is None:
        return None
    if run.outputs != before.outputs or run.instructions != before.instructions:
        return None
    ram = firmware.static_ram_bytes + before.stack_bytes + firmware.flash_weights_bytes
    return WeightsInRam(
        latency_of(run.cycles, firmware.core, board), ram, ram <= board.ram_bytes, total.total - after.total
    )
