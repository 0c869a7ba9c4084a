"""`analyze` of a model on a data file."""

from __future__ import annotations

from tinydeploy.analysis import Analysis, Precision
from tinydeploy.analysis import analyze as analyze_graph
from tinydeploy.data import DataSource, Samples, fit_samples, open_dataset
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.model import Model
from tinydeploy.ops.quantize import dequantize_array

SAMPLES = 500
"""Taken of the data where nobody says how many."""


def analyze(
    model: Model,
    data: DataSource | None = None,
    *,
    samples: int = SAMPLES,
    weight_bits: int = 8,
    activation_bits: int = 8,
    calibration: str = "minmax",
    scale: float = 1.0,
    mean: float = 0.0,
) -> tuple[Analysis, tuple[str, ...]]:
    """Bits, noise and costs of a model, with warnings about the data.

    Args:
        data: .npz with x; without it only what follows from the weights is said.
        samples: so many of the data, from the start, calibrate and are measured on.
        weight_bits, activation_bits: that a float model is taken to have; an integer model has its own.
        calibration: how the ranges of a float model are found.

    Raises:
        DeployError: the data does not fit, or a float model cannot be quantized.
    """
    graph, assumed = model.graph, Precision(weight_bits, activation_bits)
    if data is None:
        return analyze_graph(graph, None, assumed, model=model.path), ()
    given = fit_samples(graph, open_dataset(data), scale=scale, mean=mean)
    few = Samples(tuple(x[:samples] for x in given.inputs), None, given.warnings)
    inputs = [_real(graph, name, x) for name, x in zip(graph.inputs, few.inputs, strict=True)]
    result = analyze_graph(graph, inputs, assumed, model=model.path, calibration=calibration)
    return result, given.warnings


def _real(graph: Graph, name: str, x: Array) -> Array:
    value = graph.value(name)
    return x if value.dtype.is_float else dequantize_array(x, value.quant)
