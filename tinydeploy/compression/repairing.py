"""The repairs of `compress`, each measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Progress, silent
from tinydeploy.quantize import layer_errors
from tinydeploy.repair.steps import REPAIRS, Case


@dataclass(frozen=True)
class Gain:
    """The network after one repair and those before it.

    Attributes:
        name: of the repair; `none` is the network before any.
        value: of the metric, None where the data has no labels.
        sqnr_db: of the last layer's output against the float network, on the first samples.
    """

    name: str
    value: float | None
    sqnr_db: float

    def to_json(self) -> dict[str, object]:
        shown = self.sqnr_db if np.isfinite(self.sqnr_db) else None
        return {"name": self.name, "value": self.value, "sqnr_db": shown}


def repair(
    case: Case,
    names: Sequence[str],
    few: Sequence[Array],
    score: Callable[[Graph], float | None],
    progress: Progress = silent,
) -> tuple[Case, tuple[Gain, ...]]:
    """Makes the repairs one after the other.

    Args:
        names: of REPAIRS, in their order.
        few: samples of the evaluation data for the error of the output.
        score: the metric of an integer graph on all of them.

    Raises:
        DeployError: a repair makes a layer that the integer rule does not admit.
        MissingExtraError: AdaRound without PyTorch.
    """
    if not names:
        return case, ()
    gains = [_gain("none", case, few, score)]
    for number, name in enumerate(names):
        progress(f"repair: {name}", number, len(names))
        case = REPAIRS[name](case)
        gains.append(_gain(name, case, few, score))
    return case, tuple(gains)


def _gain(name: str, case: Case, few: Sequence[Array], score: Callable[[Graph], float | None]) -> Gain:
    return Gain(name, score(case.integer), layer_errors(case.real, case.integer, few)[-1].sqnr_db)
