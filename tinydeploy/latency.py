"""Cycles and latency of a model on a target, with the band that says how far they can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tinydeploy.emulate.cycles.meter import CycleCount
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.targets import Board, Core
from tinydeploy.timing import Validation


@dataclass(frozen=True)
class Estimated:
    """How cost functions compared with emulated runs of networks that they were not fitted on.

    Attributes:
        networks: how many.
        worst_error_pct: the largest absolute error, in per cent of the emulated cycles.
    """

    networks: int
    worst_error_pct: float


@dataclass(frozen=True)
class Latency:
    """What one inference takes, modelled on the executed machine code.

    Attributes:
        parts: core clock cycles by what they go into; None where there is no model of the core.
        per_function: the same for each layer function and for ``NAME_run``; empty where there is none.
        latency_ms: milliseconds; None where there are no cycles, and for a bare core, which has no clock.
        validation: how the model compared with published results; None is "unvalidated".
        notes: what the figure leaves out, or why there is none.
        estimated: the error of cost functions; None where the code was run.
    """

    parts: Cycles | None
    per_function: Mapping[str, Cycles]
    latency_ms: float | None
    validation: Validation | None
    notes: tuple[str, ...]
    estimated: Estimated | None = None

    @property
    def cycles(self) -> int | None:
        """Core clock cycles of one inference."""
        return None if self.parts is None else self.parts.total

    @property
    def error_pct(self) -> float | None:
        """The worst error against published results, in per cent; None where there were none.

        Of an estimate the worst error against emulated runs, with that of the emulated board on top, where it
        is known.
        """
        if self.parts is None:
            return None
        modelled = None if self.validation is None else self.validation.worst_error_pct
        if self.estimated is None:
            return modelled
        return round(100 * ((1 + self.estimated.worst_error_pct / 100) * (1 + (modelled or 0) / 100) - 1), 1)

    @property
    def band(self) -> str:
        """How far the figure can be believed: ``±5 % (modelled; validated on 8 published results)``."""
        if self.estimated is not None:
            model = "unvalidated" if self.validation is None else "validated"
            return f"±{math.ceil(self.error_pct or 0)} % (estimated; the model of the board is {model})"
        if self.validation is None:
            return "(modelled; unvalidated)"
        worst, points = math.ceil(self.validation.worst_error_pct), self.validation.points
        return f"±{worst} % (modelled; validated on {points} published results)"

    @property
    def text(self) -> str:
        """``43.1 ms ±5 % (modelled; validated on 8 published results)``; cycles where there is no clock."""
        if self.cycles is None:
            return "-"
        if self.latency_ms is None:
            return f"{self.cycles:,} cycles {self.band}"
        return f"{milliseconds(self.latency_ms)} {self.band}"

    def to_json(self) -> dict[str, object]:
        """Cycles, milliseconds and per cent; what there is not is None."""
        return {
            "cycles": self.cycles,
            "cycles_parts": None if self.parts is None else self.parts.to_json(),
            "latency_ms": self.latency_ms,
            "error_pct": self.error_pct,
            "validation": None if self.validation is None else asdict(self.validation),
            "cycle_notes": list(self.notes),
        }


def latency_of(count: CycleCount, core: Core, board: Board | None) -> Latency:
    """The latency of counted cycles on a board, or on a bare core."""
    calibration = None if board is None else board.calibration
    per_function = count.per_function
    notes = count.notes
    if per_function is not None and calibration is not None:
        flash, branches = calibration.flash_factor, calibration.branch_factor
        per_function = {name: cycles.scaled(flash, branches) for name, cycles in per_function.items()}
        fitted = f"waits for flash x {flash:.3g}, taken branches x {branches:.3g}"
        notes = (*notes, f"calibrated on {calibration.readings} reading(s) of a board: {fitted}")
    if per_function is not None:
        notes = (*notes, *unverified_notes(board))
    total = None if per_function is None else sum(per_function.values(), Cycles())
    return Latency(
        parts=total,
        per_function=per_function or {},
        latency_ms=None if total is None or board is None else total.total / (board.clock_mhz * 1000),
        validation=board.validation if board is not None else core.validation,
        notes=notes,
    )


def unverified_notes(board: Board | None) -> tuple[str, ...]:
    """A note that names the figures of a board's flash that could not be looked up; none where all were."""
    keys = [] if board is None else [key for key in board.unverified if key.startswith("flash.")]
    return (f"could not be looked up for this board: {', '.join(keys)}",) if keys else ()


def no_latency(why: str) -> Latency:
    """What is said where no cycles were modelled."""
    return Latency(None, {}, None, None, (why,))


def milliseconds(value: float) -> str:
    """Three significant digits and the unit."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{min(digits, 6)}f} ms"
