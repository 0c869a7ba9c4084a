"""`analyze` of a model on a data file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tinydeploy.analysis import Analysis
from tinydeploy.analysis import analyze as analyze_graph
from tinydeploy.data import DataSource, fit_samples, open_dataset
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.model import Model
from tinydeploy.ops.quantize import dequantize_array
from tinydeploy.precision import choose_or_say
from tinydeploy.quantize import QuantizeOptions
from tinydeploy.quantize.recipe import INT8_RECIPE
from tinydeploy.quantize.recipe_file import make_recipe

SAMPLES = 500
"""Taken of the data where nobody says how many."""


def analyze(
    model: Model,
    data: DataSource | None = None,
    *,
    samples: int = SAMPLES,
    bits: str | None = None,
    scheme: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    calibration: str = "minmax",
    accuracy_loss: float = 0.01,
    scale: float = 1.0,
    mean: float = 0.0,
) -> tuple[Analysis, tuple[str, ...]]:
    """Bits, noise and costs of a model, with warnings about the data.

    Args:
        data: .npz with x; without it only what follows from the weights is said.
        samples: so many of the data, from the start, calibrate and are measured on.
        bits, scheme, recipe: how a float model would be quantized, as for `compress`.
        calibration: how the ranges of a float model are found.
        accuracy_loss: a fraction, for which the least bits of each layer are said.

    Raises:
        DeployError: the data does not fit, or a float model cannot be quantized.
    """
    graph = model.graph
    chosen = make_recipe(bits, scheme, None if recipe is None else Path(recipe))
    if graph.is_integer and chosen != INT8_RECIPE:
        raise DeployError("the model is quantized already", where=model.path, hint="analyze it as it is")
    options = QuantizeOptions(calibration, recipe=chosen)
    if data is None:
        return analyze_graph(graph, None, options, model=model.path), ()
    given = fit_samples(graph, open_dataset(data), scale=scale, mean=mean)
    few = tuple(x[:samples] for x in given.inputs)
    inputs = [_real(graph, name, x) for name, x in zip(graph.inputs, few, strict=True)]
    result = analyze_graph(graph, inputs, options, model=model.path)
    if not graph.is_integer:
        labels = None if given.labels is None else given.labels[:samples]
        precision, notes = choose_or_say(graph, inputs, labels, accuracy_loss)
        result = replace(result, precision=precision, notes=(*result.notes, *notes))
    return result, given.warnings


def _real(graph: Graph, name: str, x: Array) -> Array:
    value = graph.value(name)
    return x if value.dtype.is_float else dequantize_array(x, value.quant)
