"""Fits what the model of cycles knows least, flash and branches, to latencies read off a user's board."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinydeploy import __version__
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.errors import DeployError
from tinydeploy.targets import BOARD_NAME, Board
from tinydeploy.timing import FACTOR_MAX, Calibration

Parameter = str
"""Either "flash" or "branch"."""

# Two readings whose cycles go to the same places to within a per cent or so cannot tell two factors apart.
_CONDITION_MAX = 100.0
# Factors outside of this say more of the reading than of the board.
_USUAL = (0.5, 2.0)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """A latency that was measured, and the cycles that the uncalibrated model gives the same code."""

    model: str
    measured_ms: float
    cycles: Cycles


@dataclass(frozen=True)
class Fit:
    """What was fitted, and how well it describes the readings.

    Attributes:
        parameters: what was fitted, "flash" or "branch" or both; never more than there are readings.
        before_ms, after_ms: predicted latencies of the readings without and with the factors.
        left_out_pct: error in per cent of each reading predicted by a fit on all the others; empty where
            these are too few for it.
        notes: what was not fitted, and why.
    """

    readings: tuple[Reading, ...]
    parameters: tuple[Parameter, ...]
    flash_factor: float
    branch_factor: float
    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]
    left_out_pct: tuple[float, ...]
    notes: tuple[str, ...]

    @property
    def before_pct(self) -> tuple[float, ...]:
        """Errors of the uncalibrated model, in per cent of the readings."""
        return _errors(self.before_ms, self.readings)

    @property
    def after_pct(self) -> tuple[float, ...]:
        """Errors of the calibrated model on the readings that it was fitted on."""
        return _errors(self.after_ms, self.readings)

    def to_json(self) -> dict[str, object]:
        """Factors, readings and errors; milliseconds and per cent."""
        rows = zip(self.readings, self.before_ms, self.before_pct, self.after_ms, self.after_pct, strict=True)
        return {
            "parameters": list(self.parameters),
            "flash_factor": self.flash_factor,
            "branch_factor": self.branch_factor,
            "readings": [
                {
                    "model": reading.model,
                    "measured_ms": reading.measured_ms,
                    "before_ms": before,
                    "before_error_pct": before_pct,
                    "after_ms": after,
                    "after_error_pct": after_pct,
                }
                for reading, before, before_pct, after, after_pct in rows
            ],
            "left_out_error_pct": list(self.left_out_pct),
            "notes": list(self.notes),
        }


def parse_readings(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Model files and milliseconds out of texts such as ``kws.tflite=161.3,ad.tflite=12.9``.

    Raises:
        DeployError: a part is not of that form, or a model stands twice.
    """
    found: dict[str, float] = {}
    hint = "MODEL=MS, such as kws.tflite=161.3; more with commas"
    for part in (part.strip() for text in texts for part in text.split(",")):
        model, equals, number = part.rpartition("=")
        try:
            milliseconds = float(number)
        except ValueError:
            milliseconds = math.nan
        if not (model and equals and 0 < milliseconds < math.inf):
            raise DeployError(f"{part[:80]!r} is no reading", where="--measured", hint=hint)
        if model in found:
            raise DeployError(
                f"{model[:80]!r} is given twice", where="--measured", hint="one reading a model"
            )
        found[model] = milliseconds
    return tuple(found.items())


def fit_readings(readings: Sequence[Reading], clock_mhz: float) -> Fit:
    """The factors of flash and branches with the least sum of squared relative errors of the readings.

    One reading fits one factor: that of the flash where waits for it are in its cycles, else that of the
    branches. Two readings fit both, where they can tell them apart.

    Args:
        clock_mhz: core clock of the board in MHz.

    Raises:
        DeployError: no factor up to 5 comes near the readings.
    """
    given = tuple(readings)
    notes: list[str] = []
    candidates = _candidates(given)
    found = None
    for parameters in candidates:
        found = _solve(given, parameters, clock_mhz)
        if found is not None:
            break
        what = " and ".join(parameters)
        notes.append(f"the readings give no sensible {what} factor, so it was not fitted that way")
    if found is None:
        raise _refusal(given, clock_mhz)
    flash, branch = found
    if len(parameters) == 1 and len(given) > 1 and not notes:
        notes.append(
            f"the readings cannot tell flash from branches: only the {parameters[0]} factor was fitted"
        )
    named = {"flash": flash, "branch": branch}
    odd = [f"{p} x {named[p]:.3g}" for p in parameters if not _USUAL[0] <= named[p] <= _USUAL[1]]
    if odd:
        asked = "is the board's clock that of its file, and was the same code measured (--optimize)?"
        notes.append(f"{' and '.join(odd)} is further off than such a table is as a rule: {asked}")
    return Fit(
        readings=given,
        parameters=parameters,
        flash_factor=flash,
        branch_factor=branch,
        before_ms=tuple(_ms(r.cycles, clock_mhz) for r in given),
        after_ms=tuple(_ms(r.cycles.scaled(flash, branch), clock_mhz) for r in given),
        left_out_pct=_left_out(given, parameters, clock_mhz),
        notes=tuple(notes),
    )


def calibrated(board: Board, fit: Fit, name: str) -> Board:
    """The board with the fitted factors; what was validated was another model, so that is left behind."""
    models = ", ".join(f"{r.model} {r.measured_ms:g} ms" for r in fit.readings)
    text = f"tinydeploy {__version__} calibrate {board.name}: {' and '.join(fit.parameters)} from {models}"
    made = Calibration(fit.flash_factor, fit.branch_factor, len(fit.readings), text[:500])
    return replace(
        board, name=name, title=f"{board.title}, calibrated"[:500], validation=None, calibration=made
    )


def board_toml(board: Board) -> str:
    """A board as the text of its TOML file."""
    lines = ["schema = 1"]
    lines += [f"{key} = {_value(getattr(board, key))}" for key in ("name", "title", "chip", "core")]
    lines += [f"{key} = {_value(getattr(board, key))}" for key in ("clock_mhz", "flash_bytes", "ram_bytes")]
    given = {key.removeprefix("flash.") for key in board.sources if key.startswith("flash.")}
    if board.flash is not None:
        lines += ["", "[flash]"]
        lines += [f"{key} = {_value(v)}" for key, v in vars(board.flash).items() if key in given]
    if board.power is not None:
        lines += ["", "[power]", f"active_uw_per_mhz = {_value(board.power.active_uw_per_mhz)}"]
        if board.power.validation is not None:
            lines += ["", "[power.validation]"]
            lines += [f"{key} = {_value(v)}" for key, v in vars(board.power.validation).items()]
    if board.calibration is not None:
        lines += ["", "[calibration]"]
        lines += [f"{key} = {_value(v)}" for key, v in vars(board.calibration).items()]
    lines += ["", "[sources]", *(f"{key} = {_value(v)}" for key, v in board.sources.items())]
    return "\n".join(lines) + "\n"


def file_name(path: Path) -> str:
    """The board's name that a file of that name has to hold.

    Raises:
        DeployError: it is not one that a board may have.
    """
    if path.suffix != ".toml" or not re.fullmatch(BOARD_NAME, path.stem):
        hint = f"NAME.toml, NAME of {BOARD_NAME}"
        raise DeployError(f"{path.name[:80]!r} is no name of a board file", where="--output", hint=hint)
    return path.stem


def _value(value: object) -> str:
    """A TOML value; a basic string of TOML is written as JSON writes one."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _ms(cycles: Cycles, clock_mhz: float) -> float:
    return cycles.total / (clock_mhz * 1000)


def _errors(predicted: Sequence[float], readings: Sequence[Reading]) -> tuple[float, ...]:
    return tuple(100 * (p / r.measured_ms - 1) for p, r in zip(predicted, readings, strict=True))


def _flash(cycles: Cycles) -> int:
    return cycles.flash_fetch + cycles.flash_read


def _candidates(readings: Sequence[Reading]) -> list[tuple[Parameter, ...]]:
    """What to try, in order; never more parameters than readings, and only such as have cycles."""
    has_flash = any(_flash(r.cycles) for r in readings)
    has_branches = any(r.cycles.branches for r in readings)
    single: list[tuple[Parameter, ...]] = []
    single += [("flash",)] if has_flash else []
    single += [("branch",)] if has_branches else []
    both: list[tuple[Parameter, ...]] = [("flash", "branch")]
    if len(readings) > 1 and has_flash and has_branches:
        return [*both, *single] if _tell_apart(readings) else single
    return single[:1] if len(readings) == 1 else single


def _tell_apart(readings: Sequence[Reading]) -> bool:
    return bool(np.linalg.cond(_columns(readings, ("flash", "branch"))) <= _CONDITION_MAX)


def _columns(readings: Sequence[Reading], parameters: Sequence[Parameter]) -> FloatArray:
    """Cycles of each parameter as a share of the reading's cycles, one row a reading."""
    shares = {
        "flash": [_flash(r.cycles) / max(1, r.cycles.total) for r in readings],
        "branch": [r.cycles.branches / max(1, r.cycles.total) for r in readings],
    }
    return np.array([shares[p] for p in parameters], np.float64).T


def _solve(
    readings: Sequence[Reading], parameters: Sequence[Parameter], clock_mhz: float
) -> tuple[float, float] | None:
    """The flash and branch factors of the least squared relative errors; None where one is out of range."""
    measured = np.array([r.measured_ms * clock_mhz * 1000 for r in readings])
    parts = {
        "flash": np.array([_flash(r.cycles) for r in readings], np.float64),
        "branch": np.array([r.cycles.branches for r in readings], np.float64),
    }
    fixed = np.array([r.cycles.total for r in readings], np.float64) - sum(parts[p] for p in parameters)
    matrix = np.array([parts[p] / measured for p in parameters]).T
    solution, *_ = np.linalg.lstsq(matrix, 1 - fixed / measured, rcond=None)
    factors = dict(zip(parameters, map(float, solution), strict=True))
    if not all(0 < factor <= FACTOR_MAX for factor in factors.values()):
        return None
    return factors.get("flash", 1.0), factors.get("branch", 1.0)


def _left_out(
    readings: tuple[Reading, ...], parameters: Sequence[Parameter], clock_mhz: float
) -> tuple[float, ...]:
    if len(readings) <= len(parameters):
        return ()
    errors: list[float] = []
    for index, reading in enumerate(readings):
        found = _solve((*readings[:index], *readings[index + 1 :]), parameters, clock_mhz)
        if found is None:
            return ()
        errors += _errors([_ms(reading.cycles.scaled(*found), clock_mhz)], [reading])
    return tuple(errors)


def _refusal(readings: Sequence[Reading], clock_mhz: float) -> DeployError:
    """The readings are those of another clock, another build or another board."""
    pairs = [(r.model, r.measured_ms, _ms(r.cycles, clock_mhz)) for r in readings]
    told = ", ".join(f"{model}: {read:g} ms read, {ms:.4g} ms predicted" for model, read, ms in pairs)
    return DeployError(
        f"no flash or branch factor between 0 and {FACTOR_MAX:g} explains the readings ({told})",
        where="--measured",
        hint=f"was the board clocked at {clock_mhz:g} MHz, its caches on, and the C compiled with the same"
        " --optimize? Readings are milliseconds for one call of NAME_run",
    )
