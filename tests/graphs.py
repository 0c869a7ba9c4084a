"""Small seeded graphs for tests: one op each, in any shape, int8 or float32, and one with every op.

`single_op_graph("CONV_2D", seed=3, groups=2)` calls the function that `MAKERS` has for that kind; its
keyword arguments are that function's. Scales are chosen so that outputs use the range of int8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Array, DType, Quantization, Value, constant
from tinydeploy.ops import Activation, Padding
from tinydeploy.ops.window import same_padding

Shape = tuple[int, ...]
PROBABILITY = Quantization((1.0 / 256,), (-128,))


class GraphBuilder:
    """Collects values and nodes; every method returns the value that it added."""

    def __init__(self, seed: int, *, is_float: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.is_float = is_float
        self.dtype = DType.FLOAT32 if is_float else DType.INT8
        self._values: dict[str, Value] = {}
        self._nodes: list[Node] = []
        self._inputs: list[str] = []

    def _add(self, value: Value) -> Value:
        self._values[value.name] = value
        return value

    def quantization(self, scale: float | None = None, zero_point: int | None = None) -> Quantization | None:
        """A per-tensor quantization, random where not given; None for float."""
        if self.is_float:
            return None
        scale = float(np.float32(self.rng.uniform(0.01, 0.1) if scale is None else scale))
        zero_point = int(self.rng.integers(-128, 128)) if zero_point is None else zero_point
        return Quantization((scale,), (zero_point,))

    def input(
        self, shape: Shape, quantization: Quantization | None = None, dtype: DType | None = None
    ) -> Value:
        name = f"input_{len(self._inputs)}"
        self._inputs.append(name)
        quantization = quantization or self.quantization()
        return self._add(Value(name, dtype or self.dtype, shape, quantization))

    def weights(self, shape: Shape, axis: int, *, per_channel: bool = True) -> Value:
        """Symmetric int8 in [-127, 127], or float."""
        name = f"weights_{len(self._values)}"
        if self.is_float:
            return self._add(constant(name, self.rng.normal(0, 0.3, shape).astype(np.float32)))
        count = shape[axis] if per_channel and shape[axis] > 1 else 1
        # Sums of many products are as large as the inputs, so that scales do not grow with depth.
        depth = math.prod(shape) / shape[axis]
        scales = tuple(float(np.float32(s)) for s in self.rng.uniform(0.002, 0.01, count) / math.sqrt(depth))
        data = self.rng.integers(-127, 128, shape, np.int8)
        return self._add(
            constant(name, data, Quantization(scales, (0,) * count, axis if count > 1 else None))
        )

    def bias(self, x: Value, weights: Value, outputs: int) -> Value:
        """int32 at S_in * S_w, or float."""
        name = f"bias_{len(self._values)}"
        if self.is_float:
            return self._add(constant(name, self.rng.normal(0, 0.3, outputs).astype(np.float32)))
        scales = tuple(float(np.float32(x.quant.scale * s)) for s in weights.quant.scales)
        data = self.rng.integers(-20000, 20000, outputs).astype(np.int32)
        axis = 0 if len(scales) > 1 else None
        return self._add(constant(name, data, Quantization(scales, (0,) * len(scales), axis)))

    def activation_constant(self, shape: Shape) -> Value:
        """A constant operand in the place of an activation."""
        name = f"constant_{len(self._values)}"
        if self.is_float:
            return self._add(constant(name, self.rng.normal(0, 1, shape).astype(np.float32)))
        return self._add(constant(name, self.rng.integers(-128, 128, shape, np.int8), self.quantization()))

    def node(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        quantization: Quantization | None = None,
        dtype: DType | None = None,
    ) -> Value:
        """Adds `op`; its output's shape comes from the op's own rule."""
        name = f"{op.kind.lower()}_{len(self._nodes)}"
        shape = op.output_shape(Site(tuple(inputs), ()))
        output = self._add(Value(name, dtype or self.dtype, shape, quantization))
        self._nodes.append(Node(name, op, tuple(None if v is None else v.name for v in inputs), (name,)))
        return output

    def graph(self, *outputs: Value, name: str = "test") -> Graph:
        return Graph(
            name, self._values, tuple(self._nodes), tuple(self._inputs), tuple(v.name for v in outputs)
        )

    def linear(
        self, op: Op, x: Value, weights: Value, outputs: int, depth: int, *, bias: bool = True
    ) -> Value:
        """A convolution or fully connected node whose output scale fits sums of `depth` products."""
        b = self.bias(x, weights, outputs) if bias else None
        quantization = None
        if not self.is_float:
            spread = x.quant.scale * max(weights.quant.scales) * 74 * 74 * math.sqrt(depth)
            quantization = self.quantization(spread / 48)
        return self.node(op, [x, weights, b] if bias else [x, weights], quantization)


def _explicit(
    padding: str | Padding,
    x: Shape,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int] = (1, 1),
) -> Padding:
    if isinstance(padding, Padding):
        return padding
    return same_padding((x[1], x[2]), kernel, strides, dilations) if padding == "same" else Padding()


def conv_2d(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 7, 6, 4),
    outputs: int = 6,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    padding: str | Padding = "same",
    groups: int = 1,
    activation: Activation = Activation.NONE,
    bias: bool = True,
    per_channel: bool = True,
) -> Value:
    x = x or b.input(shape)
    channels = x.shape[3] // groups
    weights = b.weights((outputs, *kernel, channels), 0, per_channel=per_channel)
    op = ops.Conv2D(strides, dilations, _explicit(padding, x.shape, kernel, strides, dilations), activation)
    return b.linear(op, x, weights, outputs, math.prod(kernel) * channels, bias=bias)


def depthwise_conv_2d(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 7, 6, 4),
    multiplier: int = 1,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    padding: str | Padding = "same",
    activation: Activation = Activation.NONE,
    bias: bool = True,
    per_channel: bool = True,
) -> Value:
    x = x or b.input(shape)
    outputs = x.shape[3] * multiplier
    weights = b.weights((1, *kernel, outputs), 3, per_channel=per_channel)
    pad = _explicit(padding, x.shape, kernel, strides, dilations)
    op = ops.DepthwiseConv2D(strides, dilations, pad, activation)
    return b.linear(op, x, weights, outputs, math.prod(kernel), bias=bias)


def fully_connected(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 20),
    outputs: int = 7,
    activation: Activation = Activation.NONE,
    keep_dims: bool = False,
    bias: bool = True,
    per_channel: bool = False,
) -> Value:
    x = x or b.input(shape)
    weights = b.weights((outputs, x.shape[-1]), 0, per_channel=per_channel)
    op = ops.FullyConnected(activation, keep_dims)
    return b.linear(op, x, weights, outputs, x.shape[-1], bias=bias)


def pool(
    b: GraphBuilder,
    kind: type[ops.AveragePool2D] | type[ops.MaxPool2D],
    *,
    x: Value | None = None,
    shape: Shape = (1, 7, 6, 4),
    kernel: tuple[int, int] = (2, 2),
    strides: tuple[int, int] = (2, 2),
    padding: str | Padding = "valid",
    activation: Activation = Activation.NONE,
) -> Value:
    x = x or b.input(shape)
    op = kind(kernel, strides, _explicit(padding, x.shape, kernel, strides), activation)
    return b.node(op, [x], x.quantization)


def add(
    b: GraphBuilder,
    *,
    inputs: Sequence[Value] | None = None,
    shapes: tuple[Shape, Shape] = ((1, 5, 4, 3), (1, 5, 4, 3)),
    activation: Activation = Activation.NONE,
) -> Value:
    operands = inputs or [b.input(s) for s in shapes]
    scale = None if b.is_float else sum(v.quant.scale for v in operands) / 1.5
    return b.node(ops.Add(activation), operands, b.quantization(scale))


def mul(
    b: GraphBuilder,
    *,
    inputs: Sequence[Value] | None = None,
    shapes: tuple[Shape, Shape] = ((1, 5, 4, 3), (1, 5, 4, 3)),
    activation: Activation = Activation.NONE,
) -> Value:
    operands = inputs or [b.input(s) for s in shapes]
    scale = None if b.is_float else math.prod(v.quant.scale for v in operands) * 74 * 74 / 48
    return b.node(ops.Mul(activation), operands, b.quantization(scale))


def concatenation(
    b: GraphBuilder,
    *,
    inputs: Sequence[Value] | None = None,
    shapes: Sequence[Shape] = ((1, 5, 4, 3), (1, 5, 4, 2)),
    axis: int = 3,
    equal_scales: bool = True,
) -> Value:
    quantization = b.quantization()
    if inputs is None:
        inputs = [b.input(s, quantization if equal_scales else None) for s in shapes]
    return b.node(ops.Concatenation(axis), inputs, quantization)


def reshape(
    b: GraphBuilder, *, x: Value | None = None, shape: Shape = (1, 5, 4, 3), to: Shape = (1, 60)
) -> Value:
    x = x or b.input(shape)
    return b.node(ops.Reshape(to), [x], x.quantization)


def pad(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 5, 4, 3),
    paddings: tuple[tuple[int, int], ...] = ((0, 0), (1, 2), (0, 1), (0, 0)),
    value: float | None = None,
) -> Value:
    x = x or b.input(shape)
    return b.node(ops.Pad(paddings, value), [x], x.quantization)


def mean(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 5, 4, 3),
    axes: tuple[int, ...] = (1, 2),
    keep_dims: bool = False,
) -> Value:
    x = x or b.input(shape)
    scale = None if b.is_float else x.quant.scale / 2
    return b.node(ops.Mean(axes, keep_dims), [x], b.quantization(scale))


def softmax(b: GraphBuilder, *, x: Value | None = None, shape: Shape = (1, 10), beta: float = 1.0) -> Value:
    return b.node(ops.Softmax(beta), [x or b.input(shape)], None if b.is_float else PROBABILITY)


def logistic(b: GraphBuilder, *, x: Value | None = None, shape: Shape = (1, 10)) -> Value:
    return b.node(ops.Logistic(), [x or b.input(shape)], None if b.is_float else PROBABILITY)


def relu(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 5, 4, 3),
    activation: Activation = Activation.RELU,
    rescale: float = 1.0,
) -> Value:
    """`rescale` multiplies the scale; 1 keeps scale and zero point."""
    x = x or b.input(shape, b.quantization(zero_point=-20))
    changed = None if b.is_float or rescale == 1.0 else b.quantization(x.quant.scale * rescale, -128)
    return b.node(ops.Relu(activation), [x], changed or x.quantization)


def quantize(
    b: GraphBuilder,
    *,
    x: Value | None = None,
    shape: Shape = (1, 10),
    source: DType = DType.UINT8,
    target: DType = DType.INT8,
) -> Value:
    """From one integer scale to another; uint8 is the border of a uint8 model."""
    if x is None:
        x = b.input(shape, b.quantization(zero_point=_middle(source)), source)
    return b.node(ops.Quantize(), [x], b.quantization(x.quant.scale * 1.3, _middle(target)), target)


def _middle(dtype: DType) -> int | None:
    return 128 if dtype is DType.UINT8 else None


MAKERS: dict[str, Callable[..., Value]] = {
    "ADD": add,
    "AVERAGE_POOL_2D": lambda b, **given: pool(b, ops.AveragePool2D, **given),
    "CONCATENATION": concatenation,
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "LOGISTIC": logistic,
    "MAX_POOL_2D": lambda b, **given: pool(b, ops.MaxPool2D, **given),
    "MEAN": mean,
    "MUL": mul,
    "PAD": pad,
    "QUANTIZE": quantize,
    "RELU": relu,
    "RESHAPE": reshape,
    "SOFTMAX": softmax,
}
"""All kinds but DEQUANTIZE, which stands at a border only."""


def single_op_graph(kind: str, seed: int = 0, *, is_float: bool = False, **given: object) -> Graph:
    """A graph with one node of `kind`; `given` are keyword arguments of its maker."""
    b = GraphBuilder(seed, is_float=is_float)
    return b.graph(MAKERS[kind](b, **given), name=kind.lower())


def every_op_graph(seed: int = 0, *, is_float: bool = False) -> Graph:
    """A network with every op but QUANTIZE (integer to integer only) and DEQUANTIZE, two outputs."""
    b = GraphBuilder(seed, is_float=is_float)
    x = b.input((1, 12, 10, 4))
    a = conv_2d(b, x=x, outputs=8, activation=Activation.RELU)
    c = depthwise_conv_2d(b, x=a, strides=(2, 2), multiplier=2)
    d = pool(b, ops.MaxPool2D, x=a, padding="same", kernel=(3, 3))
    e = conv_2d(b, x=c, outputs=8, kernel=(1, 1), groups=2, padding="valid")
    f = mul(
        b, inputs=[add(b, inputs=[d, e], activation=Activation.RELU6), b.activation_constant((1, 1, 1, 8))]
    )
    padded = pad(b, x=f)
    g = pool(b, ops.AveragePool2D, x=padded, kernel=(3, 2), strides=(2, 1), padding="same")
    h = b.node(ops.Concatenation(3), [g, relu(b, x=g, activation=Activation.RELU6)], g.quantization)
    i = mean(b, x=h, keep_dims=True)
    j = fully_connected(b, x=reshape(b, x=i, to=(1, 16)), outputs=5)
    return b.graph(softmax(b, x=j), logistic(b, x=i))


def random_inputs(graph: Graph, samples: int, seed: int = 0) -> list[Array]:
    """One array (samples, *shape) per input: every integer alike, or normal floats."""
    rng = np.random.default_rng(seed)
    arrays: list[Array] = []
    for name in graph.inputs:
        value = graph.value(name)
        shape = (samples, *value.shape)
        if value.dtype.is_float:
            arrays.append(rng.normal(0, 2, shape).astype(np.float32))
        else:
            low, high = value.limits
            arrays.append(rng.integers(low, high + 1, shape).astype(value.dtype.numpy))
    return arrays
