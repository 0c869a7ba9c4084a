"""Named graphs that put every kernel to the test: shapes, strides, paddings, zero points, shifts, broadcasts.

`KERNELS` holds the graphs of one op; `wiring_cases.py` has those about buffers, views, inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from graphs import GraphBuilder, Shape, concatenation, every_op_graph, single_op_graph

from tinydeploy import ops
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, DType, Quantization, Value
from tinydeploy.ops import Activation, Padding

Maker = Callable[[], Graph]
IMAGE: Shape = (1, 7, 6, 4)
ACTIVATIONS = (Activation.RELU, Activation.RELU6, Activation.RELU_N1_TO_1)


def tuned(
    graph: Graph,
    *,
    inputs: int | None = None,
    output: int | None = None,
    factor: float = 1.0,
    scale: float | None = None,
) -> Graph:
    """The graph with other zero points, and an output scale that is multiplied or given."""
    values = dict(graph.values)
    for name in graph.inputs if inputs is not None else ():
        values[name] = replace(values[name], quantization=Quantization(values[name].quant.scales, (inputs,)))
    for name in graph.outputs:
        quant = values[name].quant
        new = float(np.float32(quant.scale * factor if scale is None else scale))
        zero_point = quant.zero_point if output is None else output
        values[name] = replace(values[name], quantization=Quantization((new,), (zero_point,)))
    return replace(graph, values=values)


def with_input_scale(graph: Graph, scale: float) -> Graph:
    values = dict(graph.values)
    for name in graph.inputs:
        quant = Quantization((float(np.float32(scale)),), values[name].quant.zero_points)
        values[name] = replace(values[name], quantization=quant)
    return replace(graph, values=values)


def with_ratio(graph: Graph, ratio: float) -> Graph:
    """The graph of one linear layer whose largest S_in * S_w / S_out is `ratio`."""
    node = graph.nodes[0]
    x, weights = (graph.value(str(name)) for name in node.inputs[:2])
    return tuned(graph, scale=x.quant.scale * max(weights.quant.scales) / ratio)


def with_constants(graph: Graph, change: Mapping[int, Callable[[Array], Array]]) -> Graph:
    """The graph with other data in the constants at these inputs of its first node."""
    values = dict(graph.values)
    for index, function in change.items():
        name = str(graph.nodes[0].inputs[index])
        data = np.ascontiguousarray(function(values[name].array)).astype(values[name].array.dtype)
        data.setflags(write=False)
        values[name] = replace(values[name], data=data)
    return replace(graph, values=values)


def _linear_arithmetic(kind: str, **given: Any) -> dict[str, Maker]:
    """Zero points, shifts and edges of int32 for one linear op."""

    def plain(seed: int = 0) -> Graph:
        return single_op_graph(kind, seed, **given)

    def gentle(ratio: float) -> Graph:
        # Small sums, so that a left shift leaves the outputs unsaturated.
        small = with_constants(plain(), {1: np.sign, 2: lambda b: b // 10000})
        return with_ratio(tuned(small, inputs=0, output=3), ratio)

    def edge(ratio: float, sign: int) -> Graph:
        # Accumulators up to the last int32.
        full = with_constants(plain(), {2: lambda b: np.full_like(b, sign * (2**31 - 1 - 2_000_000))})
        return with_ratio(tuned(full, inputs=1, output=-5), ratio)

    cases: dict[str, Maker] = {
        f"zero points {a} and {b}": partial(lambda a, b: tuned(plain(), inputs=a, output=b), a, b)
        for a in (-128, 0, 127)
        for b in (-128, 0, 127)
    }
    for exponent in (1, 2, 5):
        cases[f"left shift {exponent}"] = partial(gentle, 0.7 * 2.0**exponent)
    cases["shift 0"] = partial(gentle, 0.7)
    cases["shift 0, power of two"] = partial(gentle, 0.5)
    for power in (-24, -30, -31):
        for sign in (-1, 1):
            cases[f"right shift {-power}, {'high' if sign > 0 else 'low'}"] = partial(
                edge, 0.99999999 * 2.0**power, sign
            )
    cases["multiplier 0"] = partial(edge, 2.0**-34, 1)
    label = f"{kind}: per channel, " if given.get("per_channel") else f"{kind}: "
    return {f"{label}{name}": make for name, make in cases.items()}


def _named(kind: str, cases: Mapping[str, dict[str, Any]]) -> dict[str, Maker]:
    return {
        f"{kind}: {name}": partial(single_op_graph, kind, 7 * i, **given)
        for i, (name, given) in enumerate(cases.items())
    }


_WINDOWS: dict[str, dict[str, Any]] = {
    "1x1": {"kernel": (1, 1), "padding": "valid"},
    "1x1 same": {"kernel": (1, 1)},
    "1x1 stride 2": {"kernel": (1, 1), "strides": (2, 2), "padding": "valid"},
    "1x1 in 3 channels": {"kernel": (1, 1), "shape": (1, 5, 5, 3), "padding": "valid"},
    "3x3 same": {"shape": (1, 7, 6, 5)},
    "3x3 valid": {"padding": "valid"},
    "3x3 same stride 2": {"strides": (2, 2)},
    "3x3 same stride 2 even": {"strides": (2, 2), "shape": (1, 8, 8, 3)},
    "3x3 stride 3x1": {"strides": (3, 1)},
    "3x3 valid stride 2x3": {"strides": (2, 3), "padding": "valid"},
    "5x1 same": {"kernel": (5, 1)},
    "1x5 valid": {"kernel": (1, 5), "padding": "valid"},
    "10x4 same stride 2": {"kernel": (10, 4), "strides": (2, 2), "shape": (1, 13, 8, 1)},
    "10x4 larger than the input": {"kernel": (10, 4), "shape": (1, 4, 3, 2)},
    "dilation 2 same": {"dilations": (2, 2)},
    "dilation 2 valid": {"dilations": (2, 2), "padding": "valid"},
    "dilation 1x2 valid": {"dilations": (1, 2), "padding": "valid"},
    "dilation 3x1 valid": {"kernel": (2, 3), "dilations": (3, 1), "padding": "valid"},
    "dilation in 1 column": {"kernel": (3, 1), "dilations": (2, 3), "padding": "valid"},
    "dilation and stride": {"dilations": (2, 1), "strides": (2, 2)},
    "padding at the top left": {"padding": Padding(2, 0, 1, 0)},
    "padding at the bottom right": {"padding": Padding(0, 2, 0, 1)},
    "windows wholly in the padding": {"padding": Padding(4, 5, 3, 6)},
    "padding and an unread border": {"padding": Padding(1, 0, 0, 0), "strides": (2, 2)},
    "three images": {"shape": (3, 5, 4, 3)},
    "three images, valid": {"shape": (3, 5, 4, 3), "padding": "valid"},
    "per tensor": {"per_channel": False},
    "no bias": {"bias": False},
    **{a.value: {"activation": a} for a in ACTIVATIONS},
}

_CONV_2D: dict[str, dict[str, Any]] = {
    **_WINDOWS,
    "1 output": {"outputs": 1},
    "3 outputs of 5 inputs": {"outputs": 3, "shape": (1, 4, 4, 5)},
    "8 outputs of 7 inputs": {"outputs": 8, "shape": (1, 4, 4, 7)},
    "13 outputs, per tensor": {"outputs": 13, "per_channel": False, "padding": "valid"},
    "2 groups": {"groups": 2},
    "2 groups, per tensor, valid": {"groups": 2, "per_channel": False, "padding": "valid"},
    "4 groups of 1": {"groups": 4, "outputs": 8, "kernel": (2, 3)},
    "3 groups of 5 outputs, stride 2": {
        "groups": 3,
        "shape": (2, 5, 5, 6),
        "outputs": 15,
        "strides": (2, 2),
    },
    "groups, 1x1": {"groups": 2, "kernel": (1, 1), "padding": "valid"},
    "groups, dilation": {"groups": 2, "dilations": (2, 2)},
}

_DEPTHWISE: dict[str, dict[str, Any]] = {
    **_WINDOWS,
    "multiplier 2": {"multiplier": 2},
    "multiplier 3, valid": {"multiplier": 3, "padding": "valid"},
    "multiplier 3, per tensor, stride 2": {"multiplier": 3, "per_channel": False, "strides": (2, 2)},
    "multiplier 8 of 1 channel": {"multiplier": 8, "shape": (1, 9, 6, 1), "kernel": (10, 4)},
    "1 channel": {"shape": (1, 5, 4, 1)},
}

_FULLY_CONNECTED: dict[str, dict[str, Any]] = {
    "7 outputs": {},
    "8 outputs": {"outputs": 8},
    "1 output of 1 input": {"outputs": 1, "shape": (1, 1)},
    "several rows": {"shape": (5, 9), "outputs": 6},
    "per channel": {"per_channel": True},
    "per channel, several rows": {"per_channel": True, "shape": (3, 10), "outputs": 9},
    "leading axes kept": {"shape": (2, 3, 11), "keep_dims": True},
    "no bias": {"bias": False},
    **{a.value: {"activation": a} for a in ACTIVATIONS},
}

_POOL: dict[str, dict[str, Any]] = {
    "2x2": {},
    "1x1": {"kernel": (1, 1), "strides": (1, 1)},
    "3x3 same stride 1": {"kernel": (3, 3), "strides": (1, 1), "padding": "same"},
    "3x3 same stride 2": {"kernel": (3, 3), "padding": "same"},
    "5x1 same, three images": {"kernel": (5, 1), "padding": "same", "shape": (3, 7, 6, 3)},
    "2x3 stride 3": {"kernel": (2, 3), "strides": (3, 3)},
    "whole image": {"kernel": (7, 6), "strides": (1, 1)},
    "uneven padding": {"kernel": (3, 4), "padding": Padding(2, 0, 1, 3), "strides": (1, 2)},
    "an even count": {"kernel": (2, 1), "strides": (1, 1)},
    **{a.value: {"activation": a} for a in ACTIVATIONS},
}

_BROADCASTS: dict[str, tuple[Shape, Shape]] = {
    "every pair of int8": ((256, 1), (1, 256)),
    "equal shapes": ((1, 3, 4, 5), (1, 3, 4, 5)),
    "channels": ((1, 3, 4, 5), (1, 1, 1, 5)),
    "channels, first operand small": ((1, 1, 1, 5), (1, 3, 4, 5)),
    "channels without leading axes": ((1, 3, 4, 5), (5,)),
    "scalar": ((1, 3, 4, 5), ()),
    "pixels": ((1, 3, 4, 5), (1, 3, 4, 1)),
    "rows": ((1, 3, 4, 5), (1, 3, 1, 1)),
    "rows against columns": ((1, 3, 1, 5), (1, 1, 4, 5)),
    "alternating": ((2, 1, 4, 1), (1, 3, 1, 5)),
    "images": ((3, 2, 2, 2), (1, 2, 2, 2)),
    "rank 1": ((7,), (7,)),
}


def _binary(kind: str) -> dict[str, Maker]:
    cases = {f"{kind}: {n}": partial(single_op_graph, kind, shapes=s) for n, s in _BROADCASTS.items()}
    for a in ACTIVATIONS:
        cases[f"{kind}: {a.value}"] = partial(single_op_graph, kind, 5, activation=a)
    for a in (-128, 0, 127):
        # Products of two numbers at one end have one sign, sums of them the sign of that end.
        output = -128 if kind == "MUL" else a
        cases[f"{kind}: every pair, zero points {a} and {output}"] = partial(_pairs, kind, a, output, 1.0)
    for factor in (0.02, 1e-5, 0.5, 64.0, 1e7):
        cases[f"{kind}: every pair, output scale times {factor}"] = partial(_pairs, kind, 0, -3, factor)
    for side in (0, 1):
        for shape in ((1, 1, 1, 5), (1, 3, 4, 5), (5,)):
            name = f"{kind}: constant {shape} as operand {side}"
            cases[name] = partial(_with_constant, kind, shape, side)
    cases[f"{kind}: the same value twice"] = partial(_twice, kind)
    return cases


def _pairs(kind: str, inputs: int, output: int, factor: float) -> Graph:
    graph = single_op_graph(kind, 3, shapes=_BROADCASTS["every pair of int8"])
    return tuned(graph, inputs=inputs, output=output, factor=factor)


def _with_constant(kind: str, shape: Shape, side: int) -> Graph:
    b = GraphBuilder(4)
    operands = [b.input((1, 3, 4, 5)), b.activation_constant(shape)]
    op = ops.Add() if kind == "ADD" else ops.Mul()
    return b.graph(b.node(op, operands[::-1] if side == 0 else operands, b.quantization(0.15)))


def _twice(kind: str) -> Graph:
    b = GraphBuilder(6)
    x = b.input((1, 3, 4, 5))
    return b.graph(b.node(ops.Add() if kind == "ADD" else ops.Mul(), [x, x], b.quantization(0.15)))


_CONCATENATION: dict[str, dict[str, Any]] = {
    f"axis {axis}, {'equal' if equal else 'unequal'} scales": {
        "axis": axis,
        "shapes": tuple(tuple(n if i == axis else 3 for i in range(4)) for n in (2, 1, 4)),
        "equal_scales": equal,
    }
    for axis in range(4)
    for equal in (True, False)
} | {"one input": {"shapes": ((1, 3, 2, 2),)}, "rank 1": {"shapes": ((3,), (5,)), "axis": 0}}

_PAD: dict[str, dict[str, Any]] = {
    "rows and columns": {},
    "value": {"value": 17.0},
    "nothing": {"paddings": ((0, 0),) * 4},
    "images": {"paddings": ((1, 2), (0, 0), (0, 0), (0, 0))},
    "channels": {"paddings": ((0, 0), (0, 0), (0, 0), (2, 1))},
    "every axis": {"paddings": ((1, 0), (2, 1), (0, 3), (1, 1)), "shape": (2, 2, 3, 2)},
    "first and last axis": {"paddings": ((1, 1), (0, 0), (0, 0), (0, 1)), "shape": (2, 2, 3, 2)},
    "rank 1": {"shape": (5,), "paddings": ((2, 3),)},
    "rank 5": {"shape": (2, 1, 3, 2, 2), "paddings": ((0, 0), (1, 0), (0, 0), (0, 2), (0, 0))},
}

_MEAN: dict[str, dict[str, Any]] = {
    f"axes {axes} of {shape}{', kept' if keep else ''}": {"axes": axes, "shape": shape, "keep_dims": keep}
    for axes, shape, keep in (
        ((1, 2), (1, 7, 6, 5), False),
        ((1, 2), (1, 7, 6, 5), True),
        ((1, 2), (3, 4, 3, 5), False),
        ((1,), (1, 7, 6, 5), False),
        ((2,), (2, 7, 6, 5), True),
        ((3,), (1, 7, 6, 5), False),
        ((1, 3), (2, 3, 4, 5), True),
        ((0, 2), (2, 3, 4, 5), False),
        ((0, 1, 2, 3), (2, 3, 4, 5), False),
        ((0,), (5, 3), False),
        ((2,), (1, 4, 1, 5), False),
        ((1, 2), (1, 64, 64, 1), False),
    )
}

_SOFTMAX: dict[str, tuple[Shape, float]] = {
    **{f"{n} classes": ((1, n), 0.1) for n in (1, 2, 10, 300)},
    "steep": ((1, 10), 3.0),
    "steeper than the table": ((1, 10), 40.0),
    "flat": ((1, 10), 1e-4),
    "flattest": ((1, 10), 1.6e-8),
    "flat, 300 classes": ((1, 300), 1e-4),
    "several rows": ((7, 12), 0.05),
    "leading axes": ((2, 3, 4, 5), 0.08),
}


def _one_input(kind: str, scale: float, **given: Any) -> Graph:
    """Every int8 as input of an op whose output has its own quantization."""
    return with_input_scale(single_op_graph(kind, **given), scale)


def _rescaling() -> dict[str, Maker]:
    cases: dict[str, Maker] = {}
    every = {"shape": (1, 256)}
    for a in ACTIVATIONS:
        for rescale in (1.0, 0.4, 3.0, 1e-4, 1e7):
            make = partial(single_op_graph, "RELU", activation=a, rescale=rescale, **every)
            cases[f"RELU: {a.value}, output scale times {rescale}"] = make
    for source, target in ((DType.INT8, DType.UINT8), (DType.UINT8, DType.INT8), (DType.INT8, DType.INT8)):
        for factor in (0.3, 1.0, 5.0):
            name = f"QUANTIZE: {source.value} to {target.value}, output scale times {factor}"
            cases[name] = partial(_quantize, source, target, factor)
    for scale in (4e-9, 1e-3, 0.05, 0.7, 7.9):
        cases[f"LOGISTIC: scale {scale}"] = partial(_one_input, "LOGISTIC", scale, **every)
    for factor in (0.01, 0.6, 10.0, 1e9):
        cases[f"MEAN: output scale times {factor}"] = partial(_mean, factor)
    return cases


def _quantize(source: DType, target: DType, factor: float) -> Graph:
    graph = single_op_graph("QUANTIZE", 2, shape=(1, 256), source=source, target=target)
    return tuned(graph, factor=factor)


def _mean(factor: float) -> Graph:
    return tuned(single_op_graph("MEAN", 3, shape=(1, 5, 7, 3)), inputs=1, output=-4, factor=factor)


def _pool(kind: str, given: dict[str, Any]) -> Graph:
    # One quantization goes through a pool; a zero point in the middle lets every activation clamp a part.
    return tuned(single_op_graph(kind, **given), inputs=-9, output=-9)


def _softmax(shape: Shape, scale: float, beta: float = 1.0) -> Graph:
    return _one_input("SOFTMAX", scale, shape=shape, beta=beta)


def _constant_inputs(axis: int) -> Graph:
    b = GraphBuilder(8)
    parts: list[Value] = [b.activation_constant((2, 2)), b.input((2, 2)), b.activation_constant((2, 2))]
    return b.graph(concatenation(b, inputs=parts, axis=axis))


KERNELS: dict[str, Maker] = {
    **_named("CONV_2D", _CONV_2D),
    **_linear_arithmetic("CONV_2D", shape=(1, 4, 4, 4), outputs=5),
    **_named("DEPTHWISE_CONV_2D", _DEPTHWISE),
    **_linear_arithmetic("DEPTHWISE_CONV_2D", shape=(1, 4, 4, 3)),
    **_named("FULLY_CONNECTED", _FULLY_CONNECTED),
    **_linear_arithmetic("FULLY_CONNECTED", shape=(2, 12), outputs=6),
    **_linear_arithmetic("FULLY_CONNECTED", shape=(2, 12), outputs=6, per_channel=True),
    **{
        f"{k}: {n}": partial(_pool, k, g)
        for k in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        for n, g in _POOL.items()
    },
    **_binary("ADD"),
    **_binary("MUL"),
    **_named("CONCATENATION", _CONCATENATION),
    **{f"CONCATENATION: constants along axis {a}": partial(_constant_inputs, a) for a in (0, 1)},
    **_named("PAD", _PAD),
    **_named("MEAN", _MEAN),
    **{f"SOFTMAX: {name}": partial(_softmax, *given) for name, given in _SOFTMAX.items()},
    "SOFTMAX: beta": partial(_softmax, (1, 10), 0.1, 3.5),
    **_rescaling(),
    "RESHAPE: from input to output": partial(single_op_graph, "RESHAPE"),
    "every op": every_op_graph,
    "every op, again": partial(every_op_graph, 1),
}
"""A maker by name; the part before the colon is the op."""
