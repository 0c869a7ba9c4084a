"""The ops as TFLite operators: one small function each, keyed by the op's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tinydeploy import ops
from tinydeploy.backends.tflite_forms import is_int4
from tinydeploy.backends.tflite_model import Code, ModelFile
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Node
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Array, DType, Quantization, Value
from tinydeploy.ops import Activation
from tinydeploy.ops.requantize import same_quantization
from tinydeploy.ops.window import Window, same_padding


@dataclass(frozen=True)
class Place:
    """One node on its way into the file.

    Attributes:
        inputs: tensor numbers of the inputs, -1 where one is absent.
        output: tensor number of the output.
    """

    file: ModelFile
    node: Node
    site: Site
    inputs: tuple[int, ...]
    output: int

    @property
    def is_float(self) -> bool:
        return self.site.output.dtype.is_float

    def version(self, integer: int) -> int:
        """The version for int8; float operators are of version 1."""
        return 1 if self.is_float else integer

    def options(self, kind: str, **fields: Any) -> Any:
        """An options object of the schema with these fields set."""
        table = getattr(self.file.schema, f"{kind}T")()
        for name, value in fields.items():
            setattr(table, name, value)
        return table

    def activation(self, activation: Activation) -> int:
        return int(getattr(self.file.schema.ActivationFunctionType, activation.name))

    def parameter(self, what: str, data: Array) -> int:
        """A constant that belongs to this node alone, named after it."""
        return self.file.parameter(f"{self.node.name}/{what}", data)


Writer = Callable[[Place], None]


def bias_quantization(x: Value, weights: Value) -> Quantization:
    """`S_in * S_w` per output channel or for all: the scale that the runtimes expect of a bias."""
    scales = tuple(x.quant.scale * s for s in weights.quant.scales)
    return Quantization(scales, (0,) * len(scales), 0 if weights.quant.per_channel else None)


def _image(at: Place) -> tuple[int, int]:
    _, height, width, _ = at.site.input(0).shape
    return height, width


def _padding(at: Place, window: Window, fill: float | None = None) -> tuple[int, int]:
    """The schema's padding, and the input behind a PAD operator where SAME and VALID do not describe it.

    Args:
        fill: what the PAD writes; None for the real zero.
    """
    kinds, x = at.file.schema.Padding, at.site.input(0)
    if window.padding.none:
        return kinds.VALID, at.inputs[0]
    if window.padding == same_padding(_image(at), window.kernel, window.strides, window.dilations):
        return kinds.SAME, at.inputs[0]
    p = window.padding
    widths = ((0, 0), (p.top, p.bottom), (p.left, p.right), (0, 0))
    shape = tuple(n + sum(w) for n, w in zip(x.shape, widths, strict=True))
    padded = at.file.tensor(f"{at.node.name}/padded", x.dtype, shape, x.quantization)
    _write_pad(at, x, widths, fill, padded)
    return kinds.VALID, padded


def _write_pad(
    at: Place, x: Value, widths: tuple[tuple[int, int], ...], fill: float | None, output: int
) -> None:
    paddings = at.parameter("paddings", np.array(widths, np.int32))
    version = 1 if x.dtype.is_float else 2
    if fill is None:
        at.file.operator(Code("PAD", version), [at.inputs[0], paddings], output, at.options("PadOptions"))
        return
    value = at.file.parameter(f"{at.node.name}/fill", np.array([fill], x.dtype.numpy), x.quantization)
    inputs = [at.inputs[0], paddings, value]
    at.file.operator(Code("PADV2", version), inputs, output, at.options("PadV2Options"))


def _convolution(at: Place, kind: str, version: int, **fields: Any) -> None:
    op = cast(ops.Conv2D | ops.DepthwiseConv2D, at.node.op)
    padding, x = _padding(at, op.window(at.site))
    inputs = [x, *at.inputs[1:]]
    if isinstance(op, ops.Conv2D) and len(inputs) == 2:
        # TensorFlow Lite refuses a CONV_2D without a bias.
        inputs.append(_zero_bias(at))
    options = at.options(
        kind,
        padding=padding,
        strideH=op.strides[0],
        strideW=op.strides[1],
        dilationHFactor=op.dilations[0],
        dilationWFactor=op.dilations[1],
        fusedActivationFunction=at.activation(op.activation),
        **fields,
    )
    at.file.operator(Code(op.kind, version), inputs, at.output, options)


def _zero_bias(at: Place) -> int:
    outputs = at.site.output.shape[3]
    if at.is_float:
        return at.parameter("bias", np.zeros(outputs, np.float32))
    quantization = bias_quantization(at.site.input(0), at.site.input(1))
    return at.file.parameter(f"{at.node.name}/bias", np.zeros(outputs, np.int32), quantization)


def _conv(at: Place) -> None:
    grouped = cast(ops.Conv2D, at.node.op).groups(at.site) > 1
    version = 6 if grouped else at.version(3)
    _convolution(at, "Conv2DOptions", 7 if is_int4(at.site.input(1)) else version)


def _depthwise(at: Place) -> None:
    op = cast(ops.DepthwiseConv2D, at.node.op)
    dilated = 2 if op.dilations != (1, 1) else 1
    version = dilated if at.is_float else 7 if is_int4(at.site.input(1)) else 3
    _convolution(at, "DepthwiseConv2DOptions", version, depthMultiplier=op.multiplier(at.site))


def _fully_connected(at: Place) -> None:
    op = cast(ops.FullyConnected, at.node.op)
    weights = at.site.input(1).quantization
    version = at.version(4)
    if op.keep_dims:
        version = 5
    if len(at.inputs) == 2:
        version = 6
    if is_int4(at.site.input(1)):
        version = 10
    if weights is not None and weights.per_channel:
        version = 12
    options = at.options(
        "FullyConnectedOptions",
        fusedActivationFunction=at.activation(op.activation),
        keepNumDims=op.keep_dims,
    )
    at.file.operator(Code(op.kind, version), list(at.inputs), at.output, options)


def _pool(at: Place, padding: int, x: int) -> None:
    op = cast(ops.MaxPool2D | ops.AveragePool2D, at.node.op)
    options = at.options(
        "Pool2DOptions",
        padding=padding,
        filterHeight=op.kernel[0],
        filterWidth=op.kernel[1],
        strideH=op.strides[0],
        strideW=op.strides[1],
        fusedActivationFunction=at.activation(op.activation),
    )
    at.file.operator(Code(op.kind, at.version(2)), [x], at.output, options)


def _max_pool(at: Place) -> None:
    op = cast(ops.MaxPool2D, at.node.op)
    # The lowest value never wins; float takes the lowest finite one.
    x = at.site.input(0)
    lowest = float(np.finfo(np.float32).min) if x.dtype.is_float else x.dtype.limits[0]
    _pool(at, *_padding(at, op.window, lowest))


def _average_pool(at: Place) -> None:
    op = cast(ops.AveragePool2D, at.node.op)
    if not op.padding.none and op.padding != same_padding(_image(at), op.kernel, op.strides, (1, 1)):
        raise DeployError(
            f"the padding {op.padding} of an average pool is neither SAME nor VALID",
            hint="TFLite cannot leave such padding out of the mean; export ONNX or C instead",
        )
    _pool(at, *_padding(at, op.window))


def _binary(at: Place, kind: str, version: int) -> None:
    op = cast(ops.Add | ops.Mul, at.node.op)
    options = at.options(kind, fusedActivationFunction=at.activation(op.activation))
    at.file.operator(Code(op.kind, version), list(at.inputs), at.output, options)


def _reshape(at: Place) -> None:
    shape = np.array(cast(ops.Reshape, at.node.op).shape, np.int32)
    inputs = [at.inputs[0], at.parameter("shape", shape)]
    options = at.options("ReshapeOptions", newShape=shape)
    at.file.operator(Code("RESHAPE", 1), inputs, at.output, options)


def _pad(at: Place) -> None:
    op = cast(ops.Pad, at.node.op)
    _write_pad(at, at.site.input(0), op.paddings, op.value, at.output)


def _mean(at: Place) -> None:
    op = cast(ops.Mean, at.node.op)
    inputs = [at.inputs[0], at.parameter("axes", np.array(op.axes, np.int32))]
    options = at.options("ReducerOptions", keepDims=op.keep_dims)
    at.file.operator(Code("MEAN", at.version(2)), inputs, at.output, options)


def _concatenation(at: Place) -> None:
    op = cast(ops.Concatenation, at.node.op)
    y, inputs = at.site.output, list(at.inputs)
    for i, number in enumerate(at.inputs):
        x = at.site.input(i)
        if at.is_float or same_quantization(x, y):
            continue
        # TensorFlow Lite Micro concatenates equal scales only; QUANTIZE is the same arithmetic.
        inputs[i] = at.file.tensor(f"{at.node.name}/input{i}", y.dtype, x.shape, y.quantization)
        at.file.operator(Code("QUANTIZE", 2), [number], inputs[i], at.options("QuantizeOptions"))
    options = at.options("ConcatenationOptions", axis=op.axis)
    at.file.operator(Code("CONCATENATION", at.version(2)), inputs, at.output, options)


def _softmax(at: Place) -> None:
    options = at.options("SoftmaxOptions", beta=cast(ops.Softmax, at.node.op).beta)
    at.file.operator(Code("SOFTMAX", at.version(2)), list(at.inputs), at.output, options)


def _logistic(at: Place) -> None:
    at.file.operator(Code("LOGISTIC", at.version(2)), list(at.inputs), at.output)


def _relu(at: Place) -> None:
    activation = cast(ops.Relu, at.node.op).activation
    if activation is Activation.NONE:
        raise DeployError("a RELU without a clamp has no TFLite operator")
    version = 1 if activation is Activation.RELU_N1_TO_1 else at.version(2)
    at.file.operator(Code(activation.name, version), list(at.inputs), at.output)


def _sign(at: Place) -> None:
    raise DeployError("a SIGN of two levels has no TFLite operator", hint="ONNX and C carry this model")


def _staircase(at: Place) -> None:
    raise DeployError(
        f"a STAIRCASE of {len(cast(ops.Staircase, at.node.op).levels)} levels has no TFLite operator",
        hint="ONNX and C carry this model",
    )


def _quantize(at: Place) -> None:
    version = 1 if at.site.input(0).dtype.is_float else 2
    options = at.options("QuantizeOptions")
    at.file.operator(Code("QUANTIZE", version), list(at.inputs), at.output, options)


def _dequantize(at: Place) -> None:
    version = 2 if at.site.input(0).dtype is DType.INT8 else 1
    options = at.options("DequantizeOptions")
    at.file.operator(Code("DEQUANTIZE", version), list(at.inputs), at.output, options)


WRITERS: Mapping[type[Op], Writer] = {
    ops.Add: lambda at: _binary(at, "AddOptions", at.version(2)),
    ops.AveragePool2D: _average_pool,
    ops.Concatenation: _concatenation,
    ops.Conv2D: _conv,
    ops.Dequantize: _dequantize,
    ops.DepthwiseConv2D: _depthwise,
    ops.FullyConnected: _fully_connected,
    ops.Logistic: _logistic,
    ops.MaxPool2D: _max_pool,
    ops.Mean: _mean,
    ops.Mul: lambda at: _binary(at, "MulOptions", at.version(2)),
    ops.Pad: _pad,
    ops.Quantize: _quantize,
    ops.Relu: _relu,
    ops.Reshape: _reshape,
    ops.Sign: _sign,
    ops.Softmax: _softmax,
    ops.Staircase: _staircase,
}
