"""`diff` of two models on a data file."""

from __future__ import annotations

from tinydeploy import difference
from tinydeploy.data import DataSource, Samples, fit_samples, open_dataset
from tinydeploy.difference import Difference, Side
from tinydeploy.errors import DeployError
from tinydeploy.model import Model


def diff(
    a: Model,
    b: Model,
    data: DataSource,
    *,
    samples: int | None = None,
    threshold_db: float | None = None,
    scale: float = 1.0,
    mean: float = 0.0,
) -> tuple[Difference, tuple[str, ...]]:
    """Compares two forms of one network layer by layer, with warnings about the data.

    Args:
        data: .npz with x, which both models take.
        samples: only the first so many; None takes all.
        threshold_db: see `difference.diff`.

    Raises:
        DeployError: the data does not fit both models, or these have no layer in common.
    """
    given = open_dataset(data)
    sides = []
    for model in (a, b):
        try:
            fitted = fit_samples(model.graph, given, scale=scale, mean=mean)
        except DeployError as error:
            hint = f"both models take the same data; this is said of {model.path}"
            raise DeployError(error.fact, where=error.where, hint=hint) from None
        few = Samples(tuple(x[:samples] for x in fitted.inputs), None, fitted.warnings)
        sides.append(Side(model.path, model.graph, few))
    warnings = dict.fromkeys((*sides[0].samples.warnings, *sides[1].samples.warnings))
    return difference.diff(sides[0], sides[1], threshold_db), tuple(warnings)
