"""QuantizeLinear, DequantizeLinear, and the QLinear operators, which are those two around a float one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_at import At, axis_in
from tinydeploy.frontends.onnx_check import type_name
from tinydeploy.frontends.onnx_linear import fully_connected
from tinydeploy.frontends.onnx_steps import settle_sign, settle_staircase
from tinydeploy.frontends.onnx_tensor import Compared, Draft, Flow, Known, Tensor
from tinydeploy.ir.forms import Form
from tinydeploy.ir.types import Array, Quantization

_SUFFIX = "_QuantizeLinear_Output"
"""What ONNX Runtime's quantizer appends to the name of a tensor."""

_NARROW = ("int8", "uint8")


def dequantize_linear(at: At) -> Tensor:
    return dequantize(at, at.required(0), 1, 2)


def quantize_linear(at: At) -> Tensor:
    stated = at.attributes.integer("output_dtype", 0)
    return quantize(at, at.required(0), 1, 2, type_name(stated) if stated else None)


def dequantize(at: At, tensor: Tensor, scale: int, zero_point: int, axis: int | None = None) -> Tensor:
    """Integers as the real numbers that they stand for; nothing is computed.

    Args:
        scale, zero_point: numbers of the inputs that hold them.
        axis: the quantized axis; None for what the attribute says.
    """
    if isinstance(tensor, Known):
        if tensor.quantization is not None or tensor.data.dtype.name not in (*_NARROW, "int32"):
            raise DeployError(
                f"the constant {tensor.name!r} is {tensor.data.dtype}, not int8, uint8 or int32"
            )
        return replace(tensor, quantization=_parameters(at, tensor.data.shape, scale, zero_point, axis))
    if isinstance(tensor, Compared):
        raise DeployError("the input is a comparison, which only Where takes")
    if tensor.real:
        raise DeployError("the input stands for real numbers already")
    quantization = _shifted(_parameters(at, tensor.view.shape, scale, zero_point, axis), tensor.unsigned)
    draft = tensor.draft
    if draft.pending:
        draft.quantize(quantization)
    elif draft.quantization != quantization:
        raise DeployError(
            f"{draft.name!r} was quantized with {_text(draft.quant)} and is read with {_text(quantization)}",
            hint="one scale and zero point belong to one integer tensor",
        )
    return replace(tensor, real=True, fresh=False)


def quantize(at: At, tensor: Tensor, scale: int, zero_point: int, stated: str | None = None) -> Tensor:
    """Real numbers as integers: gives the op in front its scale, or is an op of its own.

    Args:
        stated: the integer type where the operator names it; else that of the zero point, or uint8.
    """
    given = at.optional_known(zero_point)
    kind = stated or (given.data.dtype.name if given is not None else "uint8")
    if isinstance(tensor, Known):
        return _quantize_constant(at, tensor, scale, zero_point, kind)
    if isinstance(tensor, Compared):
        raise DeployError("the input is a comparison, which only Where takes")
    if kind not in _NARROW:
        raise DeployError(f"activations of type {kind} are not supported", hint="quantize to int8 or uint8")
    if not tensor.real:
        raise DeployError("the input is an integer tensor already")
    unsigned = kind == "uint8"
    quantization = _shifted(_parameters(at, tensor.view.shape, scale, zero_point, None), unsigned)
    draft = tensor.draft
    if draft.pending:
        draft.quantize(quantization)
        _settle_form(at, draft, None if given is None else given.form)
        draft.name = at.output.removesuffix(_SUFFIX)
    elif draft.dtype.is_float or draft.quantization != quantization:
        draft = at.builder.requantized(draft, at.output.removesuffix(_SUFFIX), quantization)
    elif tensor.fresh:
        draft.name = at.output.removesuffix(_SUFFIX)
    label = at.output.removesuffix(_SUFFIX) if tensor.label and draft is tensor.draft else ""
    return Flow(draft, tensor.view, real=False, unsigned=unsigned, label=label)


def _settle_form(at: At, draft: Draft, stated: Form | None) -> None:
    """The form of what was just quantized: that of its zero point's type, or what SIGN and STAIRCASE give."""
    if stated is not None:
        draft.form = stated
    step = at.builder.step_of(draft)
    if step is not None and isinstance(step.op, ops.Sign):
        step.op = settle_sign(step.op, draft)
    elif step is not None and isinstance(step.op, ops.Staircase):
        step.op = settle_staircase(step.op, step.inputs[0], draft)


def _quantize_constant(at: At, known: Known, scale: int, zero_point: int, kind: str) -> Known:
    if kind not in (*_NARROW, "int32") or known.data.dtype.kind not in "iuf":
        raise DeployError(f"the constant {known.name!r} quantized to {kind} is not supported")
    q = _parameters(at, known.data.shape, scale, zero_point, None)
    shape = [1] * known.data.ndim
    if q.axis is not None:
        shape[q.axis] = -1
    info = np.iinfo(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.rint(known.real.astype(np.float32) / np.array(q.scales, np.float32).reshape(shape))
        if not np.isfinite(known.real).all():
            raise DeployError(f"the constant {known.name!r} holds a NaN or an infinity")
        shifted = units.astype(np.float64) + np.array(q.zero_points).reshape(shape)
    data: Array = np.clip(shifted, info.min, info.max).astype(kind)
    return Known(known.name, data)


def _parameters(
    at: At, shape: tuple[int, ...], scale: int, zero_point: int, axis: int | None
) -> Quantization:
    """Scales and zero points as the operator has them, per tensor or along an axis."""
    if at.attributes.integer("block_size", 0):
        raise DeployError("quantization in blocks is not supported", hint="quantize per tensor or channel")
    scales = at.known(scale).data
    if scales.dtype.kind != "f" or scales.size < 1 or scales.ndim > 1:
        raise DeployError(f"the scale {at.input_names[scale]!r} is no float number or vector of them")
    values = tuple(float(s) for s in scales.ravel().astype(np.float32))
    if not all(math.isfinite(v) and v > 0 for v in values):
        raise DeployError(f"the scale {at.input_names[scale]!r} holds what is not a positive number")
    known = at.optional_known(zero_point)
    zeros = np.zeros(1, np.int64) if known is None else known.data.ravel()
    if zeros.dtype.kind not in "iu" or zeros.size not in (1, len(values)):
        raise DeployError(f"{len(values)} scales and a zero point of shape {zeros.shape}")
    points = tuple(int(z) for z in np.broadcast_to(zeros, (len(values),)))
    if len(values) == 1:
        return Quantization(values, points)
    place = axis_in(at.attributes.integer("axis", 1) if axis is None else axis, len(shape))
    if shape[place] != len(values):
        raise DeployError(f"{len(values)} scales along axis {place} of {shape}")
    return Quantization(values, points, place)


def _shifted(quantization: Quantization, unsigned: bool) -> Quantization:
    """The quantization of an activation as the graph holds it: int8."""
    if quantization.per_channel:
        raise DeployError("activations quantized per channel are not supported")
    if not unsigned:
        return quantization
    return replace(quantization, zero_points=(quantization.zero_point - 128,))


def _text(q: Quantization) -> str:
    return f"scale {q.scale!r} and zero point {q.zero_point}"


def around(
    read: Callable[[At], Tensor],
    operands: Sequence[tuple[str, int]],
    output: int,
    weight_axis: int = 0,
) -> Callable[[At], Tensor]:
    """A QLinear operator: `read` between dequantized operands and a quantized output.

    Args:
        operands: what each input of the float operator is (`x`, `w` for weights, `bias`), and where; the
            scale and zero point of the first two follow it.
        output: where the scale and zero point of the output stand.
        weight_axis: the axis that several scales of the weights belong to.
    """

    def reader(at: At) -> Tensor:
        inputs: list[Tensor | None] = []
        names: list[str] = []
        for what, index in operands:
            present = at.input(index) is not None
            names.append(at.input_names[index] if present else "")
            if not present and what == "bias":
                inputs.append(None)
            elif what == "bias":
                inputs.append(at.known(index))
            else:
                axis = weight_axis if what == "w" else None
                inputs.append(dequantize(at, at.required(index), index + 1, index + 2, axis))
        if at.attributes.integer("channels_last", 0):
            raise DeployError("channels_last is not supported", hint="quantize without layout optimisation")
        inner = replace(at, inputs=tuple(inputs), input_names=tuple(names))
        return quantize(at, read(inner), output, output + 1)

    return reader


def qgemm(at: At) -> Tensor:
    """com.microsoft QGemm: A, scale, zero point, B, scale, zero point, C, and those of the output."""
    if at.attributes.integer("transA", 0) or at.attributes.number("alpha", 1.0) != 1.0:
        raise DeployError("transA or alpha of a QGemm is not supported")
    out_axis = 0 if at.attributes.integer("transB", 0) else 1
    x = dequantize(at, at.any_flow(0), 1, 2)
    weights = dequantize(at, at.known(3), 4, 5, out_axis)
    assert isinstance(x, Flow)
    assert isinstance(weights, Known)
    bias = at.optional_known(6)
    if bias is not None and bias.data.dtype != np.int32:
        raise DeployError("the bias of a QGemm is not int32")
    if at.input(7) is None:
        raise DeployError("a QGemm with a float output is not supported", hint="quantize its output too")
    return quantize(at, fully_connected(at, x, weights, out_axis, bias), 7, 8)


def qlinear_concat(read: Callable[[At], Tensor]) -> Callable[[At], Tensor]:
    """com.microsoft QLinearConcat: the output's scale and zero point, then three inputs a tensor."""

    def reader(at: At) -> Tensor:
        count = (len(at.inputs) - 2) // 3
        if count < 1 or len(at.inputs) != 2 + 3 * count:
            raise DeployError(f"has {len(at.inputs)} inputs")
        places = [2 + 3 * i for i in range(count)]
        inputs = tuple(dequantize(at, at.required(i), i + 1, i + 2) for i in places)
        inner = replace(at, inputs=inputs, input_names=tuple(at.input_names[i] for i in places))
        return quantize(at, read(inner), 0, 1)

    return reader


def qlinear_softmax(read: Callable[[At], Tensor]) -> Callable[[At], Tensor]:
    """com.microsoft QLinearSoftmax, whose attribute `opset` says what its axis means."""
    inner = around(read, (("x", 0),), 3)

    def reader(at: At) -> Tensor:
        return inner(replace(at, opset=at.attributes.integer("opset", 13)))

    return reader
