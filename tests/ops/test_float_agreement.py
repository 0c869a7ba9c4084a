"""The integer rule of every op computes, within its rounding, what the float reference computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import random_inputs
from kernel_cases import KERNELS
from native import telling_inputs
from random_cases import KINDS, random_case

from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, DType, Quantization, Value
from tinydeploy.ops import Pad, Quantize
from tinydeploy.ops.quantize import dequantize_array

STEPS = 1.0 + 2.0**-7
"""Output steps by which a rule may differ: half a step where it rounds to the output, half a step more where
the rounding before it is as coarse (no right shift), and a little for the multiplier and for float32."""


def real_constant(value: Value, scales: tuple[float, ...]) -> Value:
    """A constant in real units, for the scales along its quantized axis."""
    axis = value.quant.axis
    shape = [1] * len(value.shape)
    if axis is not None:
        shape[axis] = -1
    factors = np.array(scales).reshape(shape) if axis is not None else scales[0]
    zero_point = (
        np.array(value.quant.zero_points).reshape(shape) if axis is not None else value.quant.zero_point
    )
    data = ((value.array.astype(np.float64) - zero_point) * factors).astype(np.float32)
    data.setflags(write=False)
    return replace(value, dtype=DType.FLOAT32, quantization=None, data=data)


def float_twin(graph: Graph) -> Graph:
    """The same graph of one op in real numbers."""
    node = graph.nodes[0]
    values = {}
    for name, value in graph.values.items():
        if not value.is_constant:
            values[name] = replace(value, dtype=DType.FLOAT32, quantization=None)
            continue
        scales = value.quant.scales
        if value.dtype is DType.INT32:
            # A bias counts in units of exactly S_in * S_w.
            x, weights = (graph.value(str(n)) for n in node.inputs[:2])
            scales = tuple(x.quant.scale * s for s in weights.quant.scales)
        values[name] = real_constant(value, scales)
    op = node.op
    if isinstance(op, Pad) and op.value is not None:
        quant = graph.value(node.outputs[0]).quant
        op = replace(op, value=quant.scale * (op.value - quant.zero_point))
    return replace(graph, values=values, nodes=(replace(node, op=op),))


def steps_off(graph: Graph, inputs: list[Array]) -> float:
    """The largest distance of the integer outputs from the float ones, in steps; what saturates is cut."""
    (q,) = run(graph, inputs)
    value = graph.value(graph.outputs[0])
    reals = [dequantize_array(x, graph.value(n).quant) for x, n in zip(inputs, graph.inputs, strict=True)]
    if isinstance(graph.nodes[0].op, Quantize):
        y = reals[0]
    else:
        (y,) = run(float_twin(graph), reals)
    quant: Quantization = value.quant
    units = np.clip(y.astype(np.float64) / quant.scale + quant.zero_point, *value.dtype.limits)
    return float(np.abs(units - q).max())


@pytest.mark.parametrize("kind", KINDS)
def test_random_parameters(kind: str) -> None:
    for seed in range(40):
        graph = random_case(kind, seed, extreme=False)
        assert steps_off(graph, random_inputs(graph, 5, seed)) <= STEPS, seed


@pytest.mark.parametrize("name", [n for n in KERNELS if not n.startswith("every op")])
def test_kernel_cases(name: str) -> None:
    graph = KERNELS[name]()
    assert steps_off(graph, list(telling_inputs(graph))) <= STEPS
