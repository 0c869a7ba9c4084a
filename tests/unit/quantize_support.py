"""What the tests of quantization compare: a float graph and its integer form, in steps of the output."""

from __future__ import annotations

import numpy as np

from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, Quantization
from tinydeploy.ops.quantize import dequantize_array, quantize_array


def integers_of(graph: Graph, x: list[Array]) -> list[Array]:
    """Real inputs in the units of an integer graph."""
    values = [graph.value(name) for name in graph.inputs]
    return [quantize_array(a, v.quant, v.dtype) for a, v in zip(x, values, strict=True)]


def steps_off(float_graph: Graph, int_graph: Graph, x: list[Array]) -> float:
    """The largest difference of an output, in steps of its scale."""
    results = run(int_graph, integers_of(int_graph, x))
    worst = 0.0
    for name, real, q in zip(int_graph.outputs, run(float_graph, x), results, strict=True):
        quant = int_graph.value(name).quant
        worst = max(worst, float(np.abs(dequantize_array(q, quant) - real).max()) / quant.scale)
    return worst


def scale_of(graph: Graph, name: str) -> Quantization:
    return graph.value(name).quant
