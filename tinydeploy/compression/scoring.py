"""What a float or an integer graph is worth on samples in real units."""

from __future__ import annotations

from tinydeploy.data import Samples
from tinydeploy.evaluation import evaluate
from tinydeploy.ir.graph import Graph
from tinydeploy.ops.quantize import quantize_array


def value_of(graph: Graph, samples: Samples, model: str) -> float | None:
    """Of the metric; None without labels."""
    given = samples_for(graph, samples)
    return None if given.labels is None else evaluate(graph, given, model=model).value


def metric_of(graph: Graph, samples: Samples, model: str) -> str:
    """Its name; the samples have labels."""
    labels = None if samples.labels is None else samples.labels[:1]
    return evaluate(graph, Samples(tuple(x[:1] for x in samples.inputs), labels, ()), model=model).metric


def samples_for(graph: Graph, samples: Samples) -> Samples:
    """The same in the types of the graph's inputs."""
    inputs = []
    for name, x in zip(graph.inputs, samples.inputs, strict=True):
        value = graph.value(name)
        inputs.append(x if value.dtype.is_float else quantize_array(x, value.quant, value.dtype))
    return Samples(tuple(inputs), samples.labels, ())
