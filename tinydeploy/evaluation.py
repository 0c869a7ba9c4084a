"""Accuracy of a model on labelled data, by the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.data import Samples
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ops.quantize import dequantize_array


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` reports.

    Attributes:
        metric: `accuracy` (a fraction) or `mse` (in real units of the output, squared).
    """

    model: str
    samples: int
    metric: str
    value: float

    def to_json(self) -> dict[str, object]:
        return {"model": self.model, "samples": self.samples, "metric": self.metric, "value": self.value}


def evaluate(graph: Graph, samples: Samples, *, model: str) -> Evaluation:
    """Runs all samples and compares with the labels.

    Integer labels give top-1 accuracy, ties to the lowest index; labels of the output's shape give accuracy
    where they are one-hot, and the mean squared error otherwise.

    Raises:
        DeployError: no labels, labels that fit nothing, or a model with several outputs.
    """
    if len(graph.outputs) != 1:
        raise DeployError(f"the model has {len(graph.outputs)} outputs; evaluate takes one", where=model)
    if samples.labels is None:
        raise DeployError("the data has no labels", where=model, hint="add an array y to the .npz file")
    output = graph.value(graph.outputs[0])
    scores = run(graph, samples.inputs)[0].reshape(len(samples), -1)
    labels = _labels(samples.labels.reshape(len(samples), -1), scores.shape[1])
    if labels is None:
        real = scores if output.quantization is None else dequantize_array(scores, output.quant)
        error = np.mean((real.astype(np.float64) - samples.labels.reshape(scores.shape)) ** 2)
        return Evaluation(model, len(samples), "mse", float(error))
    if scores.shape[1] == 1:
        half = 0.5 if output.quantization is None else 0.5 / output.quant.scale + output.quant.zero_point
        predicted = (scores[:, 0] >= half).astype(np.int64)
    else:
        predicted = scores.argmax(axis=1)
    return Evaluation(model, len(samples), "accuracy", float(np.mean(predicted == labels)))


def _labels(y: Array, classes: int) -> Array | None:
    """Class numbers, or None where `y` holds values to compare with."""
    if y.shape[1] == 1 and y.dtype.kind in "iu":
        top = max(classes, 2)
        if y.min() < 0 or y.max() >= top:
            raise DeployError(
                f"the labels y reach from {y.min()} to {y.max()}, and the model has {top} classes",
                where="y",
            )
        column: Array = y[:, 0]
        return column
    if y.shape[1] != classes or y.dtype.kind not in "iuf":
        raise DeployError(
            f"y has {y.shape[1]} values of type {y.dtype} a sample, and the model has {classes} outputs",
            where="y",
            hint="y holds one class number a sample, or values of the output's shape",
        )
    if classes > 1 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        hot: Array = y.argmax(axis=1)
        return hot
    return None
