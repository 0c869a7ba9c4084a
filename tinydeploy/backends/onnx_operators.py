"""The ops as ONNX operators: one small function each, keyed by the op's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tinydeploy import ops
from tinydeploy.backends.onnx_model import ModelFile
from tinydeploy.backends.onnx_tensors import Order, Tensors, usual_order
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Node
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Quantization, Value
from tinydeploy.ops import Activation


@dataclass(frozen=True)
class Place:
    """One node on its way into the file."""

    tensors: Tensors
    node: Node
    site: Site

    @property
    def file(self) -> ModelFile:
        return self.tensors.file

    @property
    def y(self) -> Value:
        return self.site.output

    def real(self, index: int, order: Order) -> str:
        """Input `index` as real numbers with its axes in this order."""
        value = self.site.input(index)
        return self.tensors.dequantized(self.tensors.in_order(value, order), value)

    def image(self, index: int = 0) -> str:
        """Input `index` as real numbers, NCHW."""
        return self.real(index, usual_order(4))

    def scratch(self, what: str) -> str:
        """A free name for a tensor inside this node."""
        return self.file.reserve(f"{self.y.name}/{what}")

    def operator(self, kind: str, inputs: list[str], order: Order, **attributes: Any) -> None:
        """The operator, its fused activation, and the quantization of the result."""
        activation = getattr(self.node.op, "activation", Activation.NONE)
        name = self.node.name
        if activation is Activation.NONE or isinstance(self.node.op, ops.Relu):
            self.result(lambda output: self.file.node(kind, inputs, output, name=name, **attributes), order)
            return
        plain = self.file.node(kind, inputs, self.scratch("linear"), name=name, **attributes)
        self.result(lambda output: self.clamp(activation, plain, output), order)

    def clamp(self, activation: Activation, x: str, output: str, name: str = "") -> str:
        if activation is Activation.RELU:
            return self.file.node("Relu", [x], output, name=name)
        low, high = (self.file.constant(f"clip/{end}", np.array(end, np.float32)) for end in activation.range)
        return self.file.node("Clip", [x, low, high], output, name=name)

    def result(self, write: Callable[[str], str], order: Order) -> None:
        """Stores what `write` puts into the tensor that it is given, quantized where the value is."""
        stored = self.file.reserve(self.y.name)
        if self.y.dtype.is_float:
            write(stored)
        else:
            real = self.scratch("real")
            write(real)
            self.tensors.quantized(real, self.y, stored)
        self.tensors.store(self.y, stored, order)


def _identity(rank: int) -> Order:
    return tuple(range(rank))


def _bias(at: Place) -> list[str]:
    bias = at.site.optional(2)
    if bias is None:
        return []
    if bias.dtype.is_float:
        return [at.file.constant(bias.name, bias.array)]
    x, weights = at.site.input(0).quant, at.site.input(1).quant
    # ONNX Runtime takes the bias as integers at the scale of the products, and at no other.
    scales = tuple(x.scale * s for s in weights.scales)
    q = Quantization(scales, (0,) * len(scales), 0 if weights.per_channel else None)
    return [at.tensors.dequantized(at.file.constant(bias.name, bias.array), bias, q)]


def _convolution(at: Place, order: tuple[int, ...], group: int) -> None:
    """Args: order: the weights' axes as ONNX has them, (outputs, inputs of a group, rows, columns)."""
    op = cast(ops.Conv2D | ops.DepthwiseConv2D, at.node.op)
    p, x = op.padding, at.site.input(0)
    other_fill = not x.dtype.is_float and not p.none and x.padding != x.quant.zero_point
    image = _padded_signs(at, p) if other_fill else at.image()
    p = ops.Padding() if other_fill else p
    kernel = at.tensors.parameter(at.site.input(1), lambda weights: weights.transpose(order), 0)
    at.operator(
        "Conv",
        [image, kernel, *_bias(at)],
        usual_order(4),
        kernel_shape=list(op.window(at.site).kernel),
        strides=list(op.strides),
        dilations=list(op.dilations),
        pads=[p.top, p.left, p.bottom, p.right],
        group=group,
    )


def _padded_signs(at: Place, p: ops.Padding) -> str:
    """The image with -1 around it, in real numbers and again between quantizers; ONNX pads with 0."""
    x = at.site.input(0)
    pads = np.array([0, 0, p.top, p.left, 0, 0, p.bottom, p.right], np.int64)
    fill = np.array(x.quant.scale * (x.padding - x.quant.zero_point), np.float32)
    constants = [
        at.file.constant(f"{at.node.name}/{what}", data) for what, data in (("pads", pads), ("fill", fill))
    ]
    padded = at.file.node("Pad", [at.image(), *constants], at.file.reserve(f"{x.name}/padded"))
    stored = at.tensors.quantized(padded, x, at.file.reserve(f"{x.name}/around"))
    return at.tensors.dequantized(stored, x)


def _conv(at: Place) -> None:
    _convolution(at, (0, 3, 1, 2), cast(ops.Conv2D, at.node.op).groups(at.site))


def _depthwise(at: Place) -> None:
    _convolution(at, (3, 0, 1, 2), at.site.input(0).shape[3])


def _fully_connected(at: Place) -> None:
    op = cast(ops.FullyConnected, at.node.op)
    x, weights = at.site.input(0), at.site.input(1)
    if op.keep_dims and len(x.shape) != 2:
        _matmul(at)
        return
    depth = weights.shape[1]
    name = at.tensors.as_held(x)
    if len(x.shape) != 2 or x.shape[1] != depth:
        name = at.tensors.reshape(name, (x.elements // depth, depth), at.scratch("rows"))
    real = at.tensors.dequantized(name, x)
    kernel = at.tensors.parameter(weights, lambda rows: rows, 0)
    at.operator("Gemm", [real, kernel, *_bias(at)], (0, 1), transB=1)


def _matmul(at: Place) -> None:
    """FULLY_CONNECTED that keeps its leading axes; ONNX has the bias as an Add."""
    rank = len(at.y.shape)
    weights = at.site.input(1)
    inputs = [at.real(0, _identity(rank)), at.tensors.parameter(weights, lambda rows: rows.T, 1)]
    bias = _bias(at)
    if not bias:
        at.operator("MatMul", inputs, _identity(rank))
        return
    products = at.file.node("MatMul", inputs, at.scratch("products"), name=f"{at.node.name}/products")
    at.operator("Add", [products, *bias], _identity(rank))


def _pool(at: Place, kind: str, **attributes: Any) -> None:
    op = cast(ops.MaxPool2D | ops.AveragePool2D, at.node.op)
    p = op.padding
    at.operator(
        kind,
        [at.image()],
        usual_order(4),
        kernel_shape=list(op.kernel),
        strides=list(op.strides),
        pads=[p.top, p.left, p.bottom, p.right],
        **attributes,
    )


def _binary(at: Place, kind: str) -> None:
    rank = len(at.y.shape)
    order = usual_order(rank)
    at.operator(kind, [_operand(at, i, order) for i in range(2)], order)


def _operand(at: Place, index: int, order: Order) -> str:
    """An operand of the result's rank, whatever its own; axes of size 1 go in front."""
    value, rank = at.site.input(index), len(order)
    shape = (1,) * (rank - len(value.shape)) + value.shape
    if value.is_constant:
        return at.tensors.parameter(value, lambda data: data.reshape(shape).transpose(order))
    if shape == value.shape:
        return at.real(index, order)
    held = at.tensors.as_held(value)
    wide = at.tensors.reshape(held, shape, at.scratch(f"operand{index}"))
    if order != _identity(rank):
        wide = at.file.node("Transpose", [wide], at.scratch(f"operand{index}"), perm=list(order))
    return at.tensors.dequantized(wide, value)


def _reshape(at: Place) -> None:
    """Between DequantizeLinear and QuantizeLinear too, so that the file states the scale in any case."""
    x, shape = at.site.input(0), cast(ops.Reshape, at.node.op).shape
    real = at.tensors.dequantized(at.tensors.as_held(x), x)
    at.result(lambda output: at.tensors.reshape(real, shape, output, at.node.name), _identity(len(shape)))


def _pad(at: Place) -> None:
    op, x = cast(ops.Pad, at.node.op), at.site.input(0)
    order = usual_order(len(x.shape))
    widths = [op.paddings[a] for a in order]
    pads = np.array([w[0] for w in widths] + [w[1] for w in widths], np.int64)
    fill = 0.0 if op.value is None else op.value
    if not x.dtype.is_float:
        fill = x.quant.scale * (op.fill(at.site) - x.quant.zero_point)
    inputs = [
        at.real(0, order),
        at.file.constant(f"{at.node.name}/pads", pads),
        at.file.constant(f"{at.node.name}/fill", np.array(fill, np.float32)),
    ]
    at.operator("Pad", inputs, order)


def _mean(at: Place) -> None:
    op, rank = cast(ops.Mean, at.node.op), len(at.site.input(0).shape)
    order = usual_order(rank)
    axes = sorted(order.index(a) for a in op.axes)
    left = order
    if not op.keep_dims:
        kept = [a for a in range(rank) if a not in op.axes]
        left = tuple(kept.index(a) for a in order if a in kept)
    keep, inputs = int(op.keep_dims), [at.real(0, order)]
    if at.file.opset < 18:
        at.operator("ReduceMean", inputs, left, axes=axes, keepdims=keep)
        return
    inputs.append(at.file.constant(f"{at.node.name}/axes", np.array(axes, np.int64)))
    at.operator("ReduceMean", inputs, left, keepdims=keep)


def _concatenation(at: Place) -> None:
    order = usual_order(len(at.y.shape))
    axis = order.index(cast(ops.Concatenation, at.node.op).axis)
    inputs = [at.real(i, order) for i in range(len(at.site.inputs))]
    at.operator("Concat", inputs, order, axis=axis)


def _softmax(at: Place) -> None:
    beta = cast(ops.Softmax, at.node.op).beta
    x = at.site.input(0)
    order = at.tensors.stored(x).order
    real = at.real(0, order)
    if beta != 1.0:
        if not x.dtype.is_float:
            raise DeployError(
                f"a softmax with beta {beta} has no quantized ONNX form", hint="export TFLite or C"
            )
        factor = at.file.constant(f"{at.node.name}/beta", np.array(beta, np.float32))
        real = at.file.node("Mul", [real, factor], at.scratch("scaled"))
    at.operator("Softmax", [real], order, axis=order.index(len(order) - 1))


def _unary(at: Place, kind: str) -> None:
    order = at.tensors.stored(at.site.input(0)).order
    at.operator(kind, [at.real(0, order)], order)


def _relu(at: Place) -> None:
    activation = cast(ops.Relu, at.node.op).activation
    if activation is Activation.NONE:
        raise DeployError("a RELU without a clamp has no ONNX operator")
    order = at.tensors.stored(at.site.input(0)).order
    x = at.real(0, order)
    at.result(lambda output: at.clamp(activation, x, output, at.node.name), order)


def _sign(at: Place) -> None:
    """The comparison with half way between the levels, and a choice between them."""
    op, x, y = cast(ops.Sign, at.node.op), at.site.input(0), at.y
    low, high = op.low, op.high
    if not y.dtype.is_float:
        low, high = (y.quant.scale * (q - y.quant.zero_point) for q in (-1, 1))
    order = at.tensors.stored(x).order
    numbers = {"low": low, "high": high, "middle": (low + high) / 2}
    constants = {
        what: at.file.constant(f"{at.node.name}/{what}", np.array(number, np.float32))
        for what, number in numbers.items()
    }
    above = at.file.node("GreaterOrEqual", [at.real(0, order), constants["middle"]], at.scratch("above"))
    at.operator("Where", [above, constants["high"], constants["low"]], order)


def _staircase(at: Place) -> None:
    """From the highest level down, below each threshold another choice: `x < t_1 ? l_0 : x < t_2 ? ...`.

    `Less`, and not the GreaterOrEqual of SIGN, so that a reader knows which of the two it was.
    """
    op, x = cast(ops.Staircase, at.node.op), at.site.input(0)
    if not at.y.dtype.is_float:
        op = op.real(at.site)
    order = at.tensors.stored(x).order
    real = at.real(0, order)

    def number(what: str, value: float) -> str:
        return at.file.constant(f"{at.node.name}/{what}", np.array(value, np.float32))

    above = number(f"level{len(op.thresholds)}", op.levels[-1])
    for i, threshold in reversed(list(enumerate(op.thresholds))):
        below = at.file.node("Less", [real, number(f"threshold{i}", threshold)], at.scratch(f"below{i}"))
        inputs = [below, number(f"level{i}", op.levels[i]), above]
        if i > 0:
            above = at.file.node("Where", inputs, at.scratch(f"above{i}"))
    at.operator("Where", inputs, order)


def _quantize(at: Place) -> None:
    x = at.site.input(0)
    order = at.tensors.stored(x).order
    real = at.real(0, order)
    stored = at.tensors.quantized(real, at.y, at.file.reserve(at.y.name))
    at.tensors.store(at.y, stored, order)


def _dequantize(at: Place) -> None:
    order = at.tensors.stored(at.site.input(0)).order
    at.tensors.store(at.y, at.real(0, order), order)


WRITERS: Mapping[type[Op], Callable[[Place], None]] = {
    ops.Add: lambda at: _binary(at, "Add"),
    ops.AveragePool2D: lambda at: _pool(at, "AveragePool", count_include_pad=0),
    ops.Concatenation: _concatenation,
    ops.Conv2D: _conv,
    ops.Dequantize: _dequantize,
    ops.DepthwiseConv2D: _depthwise,
    ops.FullyConnected: _fully_connected,
    ops.Logistic: lambda at: _unary(at, "Sigmoid"),
    ops.MaxPool2D: lambda at: _pool(at, "MaxPool"),
    ops.Mean: _mean,
    ops.Mul: lambda at: _binary(at, "Mul"),
    ops.Pad: _pad,
    ops.Quantize: _quantize,
    ops.Relu: _relu,
    ops.Reshape: _reshape,
    ops.Sign: _sign,
    ops.Softmax: _softmax,
    ops.Staircase: _staircase,
}
