"""The builtin operators of TFLite, one small function each, keyed by their name in the schema."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.tflite_tensors import Tensors
from tinydeploy.ir.op import Op
from tinydeploy.ir.types import Array, DType, Value
from tinydeploy.ops import Activation, Padding
from tinydeploy.ops.window import same_padding
from tinydeploy.passes.layouts import Transpose

# A table without fields: every accessor on it answers with the schema's default.
_NO_OPTIONS = (b"\x04\x00\x04\x00\x04\x00\x00\x00", 4)

_RESHAPE_HINT = "export the model with a fixed input shape"


@dataclass(frozen=True)
class Operator:
    """One operator of the file where it stands.

    Attributes:
        inputs: tensor numbers, None where an optional input is absent.
        output: the number of the one output tensor.
    """

    schema: Any
    raw: Any
    tensors: Tensors
    inputs: tuple[int | None, ...]
    output: int

    def options(self, kind: str) -> Any:
        """The options table `kind`, empty where the file has none; DeployError where it is another kind."""
        table = getattr(self.schema, kind)()
        present = self.raw.BuiltinOptionsType()
        if present == 0 or self.raw.BuiltinOptions() is None:
            table.Init(*_NO_OPTIONS)
            return table
        if present != getattr(self.schema.BuiltinOptions, kind):
            raise DeployError(f"the options are of kind {present}, not {kind}")
        raw = self.raw.BuiltinOptions()
        table.Init(raw.Bytes, raw.Pos)
        return table

    def value(self, index: int) -> Value:
        """Input `index`, which must be there."""
        number = self.inputs[index] if index < len(self.inputs) else None
        if number is None:
            raise DeployError(f"input {index} is missing")
        return self.tensors.value(number)

    def constant(self, index: int, *dtypes: DType) -> Array:
        """The data of input `index`, which must be a constant of one of `dtypes`."""
        value = self.value(index)
        if value.data is None:
            raise DeployError(
                f"input {index} ({value.name!r}) is computed while the model runs, and must be a constant",
                hint=_RESHAPE_HINT,
            )
        if value.dtype not in dtypes:
            raise DeployError(f"input {index} ({value.name!r}) is {value.dtype.value}")
        return value.data

    def image(self, index: int) -> tuple[int, int]:
        """Rows and columns at axes 1 and 2 of input `index`."""
        value = self.value(index)
        if len(value.shape) != 4:
            raise DeployError(f"tensor {value.name!r} has shape {value.shape}, not 4 axes")
        return value.shape[1], value.shape[2]

    @property
    def result(self) -> Value:
        return self.tensors.value(self.output)


@dataclass(frozen=True)
class Reader:
    """How one builtin operator becomes an op.

    Attributes:
        read: makes the op from options and parameter tensors.
        arity: least and greatest number of inputs in the file.
        kept: the leading inputs that flow; None keeps all. Parameter tensors become attributes.
    """

    read: Callable[[Operator], Op]
    arity: tuple[int, int] = (1, 1)
    kept: int | None = None


def _activation(at: Operator, code: int) -> Activation:
    functions = at.schema.ActivationFunctionType
    known = {
        functions.NONE: Activation.NONE,
        functions.RELU: Activation.RELU,
        functions.RELU6: Activation.RELU6,
        functions.RELU_N1_TO_1: Activation.RELU_N1_TO_1,
    }
    if code not in known:
        names = {v: k for k, v in vars(functions).items() if isinstance(v, int)}
        raise DeployError(
            f"the fused activation {names.get(code, code)} is not supported",
            hint="supported are NONE, RELU, RELU6 and RELU_N1_TO_1",
        )
    return known[code]


def _padding(
    at: Operator, code: int, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> Padding:
    if min(*kernel, *strides, *dilations) < 1:
        raise DeployError(f"kernel {kernel}, stride {strides} and dilation {dilations} must be at least 1")
    if code == at.schema.Padding.SAME:
        return same_padding(at.image(0), kernel, strides, dilations)
    if code != at.schema.Padding.VALID:
        raise DeployError(f"the padding number {code} is neither SAME nor VALID")
    return Padding()


def _window(at: Operator, options: Any) -> dict[str, Any]:
    """The attributes that both convolutions share; both weight layouts have the kernel at axes 1 and 2."""
    strides = (options.StrideH(), options.StrideW())
    dilations = (options.DilationHFactor(), options.DilationWFactor())
    return {
        "strides": strides,
        "dilations": dilations,
        "padding": _padding(at, options.Padding(), at.image(1), strides, dilations),
        "activation": _activation(at, options.FusedActivationFunction()),
    }


def _conv(at: Operator) -> Op:
    return ops.Conv2D(**_window(at, at.options("Conv2DOptions")))


def _depthwise(at: Operator) -> Op:
    return ops.DepthwiseConv2D(**_window(at, at.options("DepthwiseConv2DOptions")))


def _pool(at: Operator) -> dict[str, Any]:
    options = at.options("Pool2DOptions")
    kernel = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    return {
        "kernel": kernel,
        "strides": strides,
        "padding": _padding(at, options.Padding(), kernel, strides, (1, 1)),
        "activation": _activation(at, options.FusedActivationFunction()),
    }


def _fully_connected(at: Operator) -> Op:
    options = at.options("FullyConnectedOptions")
    if options.WeightsFormat() != at.schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise DeployError(
            f"the weights format {options.WeightsFormat()} is not supported",
            hint="convert the model without shuffled weights (format DEFAULT)",
        )
    activation = _activation(at, options.FusedActivationFunction())
    return ops.FullyConnected(activation=activation, keep_dims=bool(options.KeepNumDims()))


def _add(at: Operator) -> Op:
    return ops.Add(_activation(at, at.options("AddOptions").FusedActivationFunction()))


def _mul(at: Operator) -> Op:
    return ops.Mul(_activation(at, at.options("MulOptions").FusedActivationFunction()))


def _reshape(at: Operator) -> Op:
    shape = at.result.shape
    if len(at.inputs) > 1 and at.inputs[1] is not None:
        # The runtime obeys this tensor; the stored output shape is what it comes to.
        stated = tuple(at.constant(1, DType.INT32).ravel().tolist())
        if len(stated) != len(shape) or any(s not in (-1, n) for s, n in zip(stated, shape, strict=True)):
            raise DeployError(
                f"the shape input says {stated}, and the output {at.result.name!r} has shape {shape}",
                hint=_RESHAPE_HINT,
            )
    return ops.Reshape(shape)


def _output_shape(at: Operator) -> Op:
    """SQUEEZE and EXPAND_DIMS: a reshape to what the file states for the output."""
    return ops.Reshape(at.result.shape)


def _paddings(at: Operator) -> tuple[tuple[int, int], ...]:
    widths = at.constant(1, DType.INT32, DType.INT64)
    rank = len(at.value(0).shape)
    if widths.shape != (rank, 2):
        raise DeployError(f"paddings of shape {widths.shape} for an input with {rank} axes")
    if widths.min(initial=0) < 0 or widths.max(initial=0) > 1 << 16:
        raise DeployError(f"the paddings {widths.tolist()} are out of range")
    return tuple((before, after) for before, after in widths.tolist())


def _pad(at: Operator) -> Op:
    return ops.Pad(_paddings(at))


def _padv2(at: Operator) -> Op:
    fill = at.value(2)
    data = at.constant(2, at.result.dtype)
    if data.size != 1:
        raise DeployError(f"the fill {fill.name!r} has {data.size} elements")
    if fill.quantization is not None and fill.quantization != at.result.quantization:
        raise DeployError(f"the fill {fill.name!r} is quantized in another way than the output")
    return ops.Pad(_paddings(at), data.ravel()[0].item())


def _mean(at: Operator) -> Op:
    rank = len(at.value(0).shape)
    axes = at.constant(1, DType.INT32, DType.INT64)
    # Repeats are harmless, but a list of millions is an attack on the message below.
    if axes.size > 2 * rank or not all(-rank <= a < rank for a in axes.ravel().tolist()):
        raise DeployError(f"the mean's axes do not fit an input with {rank} axes")
    unique = sorted({a % rank for a in axes.ravel().tolist()})
    return ops.Mean(tuple(unique), keep_dims=bool(at.options("ReducerOptions").KeepDims()))


def _concatenation(at: Operator) -> Op:
    options = at.options("ConcatenationOptions")
    activation = _activation(at, options.FusedActivationFunction())
    if activation is not Activation.NONE:
        raise DeployError(f"the fused activation {activation.value} of a concatenation is not supported")
    axis = options.Axis()
    return ops.Concatenation(axis + len(at.result.shape) if axis < 0 else axis)


def _transpose(at: Operator) -> Op:
    rank = len(at.value(0).shape)
    order = at.constant(1, DType.INT32)
    if order.size != rank:
        raise DeployError(f"a permutation of {order.size} axes for an input with {rank} axes")
    return Transpose(tuple(order.ravel().tolist()))


def _softmax(at: Operator) -> Op:
    beta = at.options("SoftmaxOptions").Beta()
    if not (math.isfinite(beta) and beta > 0):
        raise DeployError(f"the softmax's beta is {beta!r}")
    return ops.Softmax(beta)


READERS: Mapping[str, Reader] = {
    "ADD": Reader(_add, (2, 2)),
    "AVERAGE_POOL_2D": Reader(lambda at: ops.AveragePool2D(**_pool(at))),
    "CONCATENATION": Reader(_concatenation, (1, 64)),
    "CONV_2D": Reader(_conv, (2, 3)),
    "DEPTHWISE_CONV_2D": Reader(_depthwise, (2, 3)),
    "DEQUANTIZE": Reader(lambda at: ops.Dequantize()),
    "EXPAND_DIMS": Reader(_output_shape, (2, 2), kept=1),
    "FULLY_CONNECTED": Reader(_fully_connected, (2, 3)),
    "LOGISTIC": Reader(lambda at: ops.Logistic()),
    "MAX_POOL_2D": Reader(lambda at: ops.MaxPool2D(**_pool(at))),
    "MEAN": Reader(_mean, (2, 2), kept=1),
    "MUL": Reader(_mul, (2, 2)),
    "PAD": Reader(_pad, (2, 2), kept=1),
    "PADV2": Reader(_padv2, (3, 3), kept=1),
    "QUANTIZE": Reader(lambda at: ops.Quantize()),
    "RELU": Reader(lambda at: ops.Relu(Activation.RELU)),
    "RELU6": Reader(lambda at: ops.Relu(Activation.RELU6)),
    "RELU_N1_TO_1": Reader(lambda at: ops.Relu(Activation.RELU_N1_TO_1)),
    "RESHAPE": Reader(_reshape, (1, 2), kept=1),
    "SOFTMAX": Reader(_softmax),
    "SQUEEZE": Reader(_output_shape, kept=1),
    # Folded into the borders of the graph; no other code meets it.
    "TRANSPOSE": Reader(_transpose, (2, 2), kept=1),
}
