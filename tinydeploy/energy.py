"""Energy of an inference: modelled cycles, times what the chip draws for each while it computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinydeploy.targets import Board
from tinydeploy.timing import Validation

# 1 uW/MHz is 1 pJ for each cycle.
_MICROJOULES = 1e-6


@dataclass(frozen=True)
class Energy:
    """What one inference takes.

    Attributes:
        microjoules: of the whole chip, awake for as long as the inference lasts.
        validation: how energies from the board's power compared with published ones; None is "unvalidated".
    """

    microjoules: float
    validation: Validation | None

    @property
    def band(self) -> str:
        """How far the figure can be believed: ``±34 % (modelled; validated on 36 published results)``."""
        if self.validation is None:
            return "(modelled; unvalidated)"
        worst, points = math.ceil(self.validation.worst_error_pct), self.validation.points
        return f"±{worst} % (modelled; validated on {points} published results)"

    @property
    def text(self) -> str:
        """``3.10 mJ ±34 % (modelled; validated on 36 published results)``."""
        return f"{_joules(self.microjoules)} {self.band}"

    def to_json(self) -> dict[str, object]:
        """Microjoules, and the error in per cent; None where there was nothing to compare with."""
        error = None if self.validation is None else self.validation.worst_error_pct
        return {"energy_uj": self.microjoules, "energy_error_pct": error}


def energy_of(cycles: float | None, board: Board | None) -> Energy | None:
    """The energy of so many core clock cycles on a board.

    The power is that of a computing chip at the board's clock with its peripherals idle; what waits for
    flash is taken to draw the same. None where there are no cycles, or no public figure of the power.
    """
    if cycles is None or board is None or board.power is None:
        return None
    return Energy(cycles * board.power.active_uw_per_mhz * _MICROJOULES, board.power.validation)


def energy_json(energy: Energy | None) -> dict[str, object]:
    """The keys of an energy; what there is not is None."""
    return {"energy_uj": None, "energy_error_pct": None} if energy is None else energy.to_json()


def _joules(microjoules: float) -> str:
    """Three significant digits and a unit."""
    value, unit = (microjoules / 1000, "mJ") if microjoules >= 1000 else (microjoules, "uJ")
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{min(digits, 6)}f} {unit}"
