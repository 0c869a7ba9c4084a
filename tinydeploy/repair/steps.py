"""The repairs of `compress --repair`, in the order in which they make sense, and what each gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.ptq import QuantizeOptions, quantize
from tinydeploy.repair.adaround import AdaRoundOptions, adaround
from tinydeploy.repair.bias import correct_biases, correct_biases_analytically
from tinydeploy.repair.equalize import equalize


@dataclass(frozen=True)
class Case:
    """A float graph, its integer form, and what they are made of.

    Attributes:
        inputs: calibration data, one float32 array (samples, *value.shape) per graph input.
        options: how the integer graph was made.
        seed: of what is drawn.
    """

    real: Graph
    integer: Graph
    inputs: Sequence[Array]
    options: QuantizeOptions
    seed: int = 0


def _equalized(case: Case) -> Case:
    real = equalize(case.real, calibrate(case.real, case.inputs))
    return replace(case, real=real, integer=quantize(real, case.inputs, case.options))


def _rounded(case: Case) -> Case:
    options = AdaRoundOptions(seed=case.seed)
    return replace(case, integer=adaround(case.real, case.integer, case.inputs, options))


def _corrected(case: Case) -> Case:
    return replace(case, integer=correct_biases(case.real, case.integer, case.inputs))


def _corrected_analytically(case: Case) -> Case:
    return replace(case, integer=correct_biases_analytically(case.real, case.integer, case.inputs))


REPAIRS: Mapping[str, Callable[[Case], Case]] = {
    "equalize": _equalized,
    "adaround": _rounded,
    "bias": _corrected,
    "bias-analytic": _corrected_analytically,
}
"""By name, in the order in which they are made: equalization is of float weights, and a bias corrects the
rounding that there is in the end."""


def parse_repairs(text: str | None) -> tuple[str, ...]:
    """The names in a list such as `equalize,bias`, in the order of REPAIRS; none for None.

    Raises:
        DeployError: a name that does not exist, one that is given twice, or both corrections of biases.
    """
    names = [] if text is None else [name.strip() for name in text.split(",")]
    hint = f"a list with commas of {', '.join(REPAIRS)}"
    unknown = [name for name in names if name not in REPAIRS]
    if unknown:
        raise DeployError(f"there is no repair {unknown[0][:80]!r}", where="--repair", hint=hint)
    if len(set(names)) != len(names) or {"bias", "bias-analytic"} <= set(names):
        raise DeployError("a repair is given twice", where="--repair", hint=hint)
    return tuple(name for name in REPAIRS if name in names)
