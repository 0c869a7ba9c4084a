"""The table of ONNX operators: one small function each, keyed by the operator's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends import onnx_elementwise as elementwise
from tinydeploy.frontends import onnx_linear as linear
from tinydeploy.frontends import onnx_quantized as quantized
from tinydeploy.frontends import onnx_steps as steps
from tinydeploy.frontends.onnx_at import At, axis_in
from tinydeploy.frontends.onnx_layout import View, new_view, product, reshaped, transposed
from tinydeploy.frontends.onnx_tensor import Flow, Tensor
from tinydeploy.frontends.onnx_window import Geometry, geometry
from tinydeploy.ir.types import Quantization
from tinydeploy.ops.requantize import quantize_real

PROBABILITY = Quantization((1.0 / 256,), (-128,))
"""What the integer rules of softmax and sigmoid give; another scale is a requantization behind it."""

_FLOAT = 1
"""TensorProto.FLOAT."""


def _viewed(at: At, view: View) -> Flow:
    """The same elements seen in another way; an activation behind it may still fuse."""
    flow = at.any_flow(0)
    return replace(flow, view=view, fresh=flow.fresh and at.single(0), label=at.output)


def _identity(at: At) -> Flow:
    return _viewed(at, at.any_flow(0).view)


def _dropout(at: At) -> Flow:
    training = at.optional_known(2)
    if training is not None and bool(training.data.any()):
        raise DeployError("a dropout in training mode", hint="export the model for inference")
    return _identity(at)


def _cast(at: At) -> Flow:
    flow = at.flow(0)
    if at.attributes.integer("to", 0) != _FLOAT:
        raise DeployError("a cast to another type than float32 is not supported")
    return _viewed(at, flow.view)


def _transpose(at: At) -> Flow:
    view = at.any_flow(0).view
    permutation = at.attributes.integers("perm")
    return _viewed(
        at, transposed(view, tuple(range(len(view.axes)))[::-1] if permutation is None else permutation)
    )


def _reshape(at: At) -> Flow:
    view = at.any_flow(0).view
    stated = list(at.integers(1))
    if not at.attributes.integer("allowzero", 0):
        if any(n == 0 and i >= len(view.axes) for i, n in enumerate(stated)):
            raise DeployError(f"the shape {tuple(stated)} copies an axis that does not exist")
        stated = [view.shape[i] if n == 0 else n for i, n in enumerate(stated)]
    if stated.count(-1) == 1:
        rest = math.prod(n for n in stated if n != -1)
        stated[stated.index(-1)] = view.elements // rest if rest > 0 else 0
    return _viewed(at, reshaped(view, tuple(stated)))


def _flatten(at: At) -> Flow:
    view = at.any_flow(0).view
    axis, rank = at.attributes.integer("axis", 1), len(view.axes)
    axis = rank if axis == rank else axis_in(axis, rank)
    shape = view.shape
    return _viewed(at, reshaped(view, (math.prod(shape[:axis]), math.prod(shape[axis:]))))


def _axes(at: At, index: int, rank: int) -> tuple[int, ...] | None:
    """Axes from an attribute, as in old operator sets, or from an input; None where neither is there."""
    axes = at.attributes.integers("axes")
    if axes is None and at.input(index) is not None:
        axes = at.integers(index)
    return None if axes is None else tuple(sorted({axis_in(a, rank) for a in axes}))


def _squeeze(at: At) -> Flow:
    view = at.any_flow(0).view
    axes = _axes(at, 1, len(view.axes))
    if axes is None:
        axes = tuple(i for i, n in enumerate(view.shape) if n == 1)
    if any(view.shape[a] != 1 for a in axes):
        raise DeployError(f"the axes {axes} of {view.shape} are not all of size 1")
    return _viewed(at, View(tuple(a for i, a in enumerate(view.axes) if i not in axes), view.memory))


def _unsqueeze(at: At) -> Flow:
    view = at.any_flow(0).view
    given = at.attributes.integers("axes")
    raw = at.integers(1) if given is None else given
    axes = {axis_in(a, len(view.axes) + len(raw)) for a in raw}
    if len(axes) != len(raw):
        raise DeployError(f"the axes {raw} repeat")
    rest = iter(view.axes)
    count = len(view.axes) + len(raw)
    return _viewed(at, View(tuple(() if i in axes else next(rest) for i in range(count)), view.memory))


def _concat(at: At) -> Flow:
    flows = [at.any_flow(i) for i in range(len(at.inputs))]
    if (
        len({len(f.view.axes) for f in flows}) != 1
        or len({(f.real, f.unsigned and not f.real) for f in flows}) != 1
    ):
        raise DeployError("the inputs differ in their number of axes or in their type")
    rank = len(flows[0].view.axes)
    axis = axis_in(at.attributes.integer("axis", 0), rank)
    order = at.builder.common_order(flows)
    drafts = [at.builder.place(f, [[a] for a in order]) for f in flows]
    shape = list(flows[0].view.shape)
    shape[axis] = sum(f.view.shape[axis] for f in flows)
    quantization = None
    if not flows[0].real:
        quantization = drafts[0].quant
        if any(d.quant != quantization for d in drafts):
            raise DeployError("integer tensors of different scales are concatenated")
    op = ops.Concatenation(order.index(axis))
    draft = at.builder.emit(at.output, op, drafts, at.name, quantization)
    return at.fresh(draft, new_view(at.output, tuple(shape), order), like=flows[0])


def _pad(at: At) -> Flow:
    flow = at.any_flow(0)
    if at.attributes.string("mode", "constant") != "constant":
        raise DeployError(f"the mode {at.attributes.string('mode', '')!r} of a pad is not supported")
    rank = len(flow.view.axes)
    axes: tuple[int, ...] | None = tuple(range(rank))
    if at.input(3) is not None:
        axes = tuple(axis_in(a, rank) for a in at.integers(3))
    assert axes is not None
    pads = at.integers(1)
    if len(pads) != 2 * len(axes) or any(not 0 <= p <= 1 << 16 for p in pads):
        raise DeployError(f"the pads {pads} do not fit {len(axes)} axes")
    widths = dict(zip(axes, zip(pads, pads[len(axes) :], strict=False), strict=True))
    if not any(pads):
        return _identity(at)
    order = at.builder.common_order([flow])
    draft = at.builder.place(flow, [[a] for a in order])
    op = ops.Pad(tuple(widths.get(a, (0, 0)) for a in order), _fill(at, flow))
    result = at.builder.emit(at.output, op, [draft], at.name, draft.quantization)
    shape = tuple(n + sum(widths.get(a, (0, 0))) for a, n in enumerate(flow.view.shape))
    return at.fresh(result, new_view(at.output, shape, order), like=flow)


def _fill(at: At, flow: Flow) -> float | None:
    """None where it is the real zero."""
    value = at.scalar(2, 0.0)
    if not math.isfinite(value):
        raise DeployError(f"a pad with {value}")
    if flow.real and value == 0.0:
        return None
    if flow.draft.dtype.is_float:
        return value
    quant = flow.draft.quant
    if flow.real:
        return quantize_real(value, quant)
    held = int(value) - (128 if flow.unsigned else 0)
    return None if held == quant.zero_point else held


def _pool_geometry(at: At, flow: Flow) -> Geometry:
    rank = len(flow.view.axes)
    kernel = at.attributes.integers("kernel_shape", rank - 2)
    if rank not in (3, 4) or kernel is None:
        raise DeployError(f"a pool with the kernel {kernel} of an input with {rank} axes")
    g = geometry(at.attributes, kernel, flow.view.shape[2:])
    if g.dilations != (1, 1):
        raise DeployError(f"the dilations {g.dilations} of a pool are not supported")
    return g


def _pool(at: At, flow: Flow, op: ops.MaxPool2D | ops.AveragePool2D) -> Flow:
    image = linear.place_image(at.builder, flow)
    if (
        isinstance(op, ops.AveragePool2D)
        and not op.padding.none
        and at.attributes.integer("count_include_pad", 0)
    ):
        if at.attributes.integer("ceil_mode", 0):
            raise DeployError("an average pool that counts its padding and rounds up is not supported")
        p = op.padding
        widths = ((0, 0), (p.top, p.bottom), (p.left, p.right), (0, 0))
        image = at.builder.emit(
            f"{at.output}/padded", ops.Pad(widths), [image], quantization=image.quantization
        )
        op = replace(op, padding=ops.Padding())
    # Elements are only chosen or averaged, in the scale that they have.
    draft = at.builder.emit(at.output, op, [image], at.name, image.quantization)
    view = linear.image_view(at.output, draft, len(flow.view.axes))
    return at.fresh(draft, view, like=flow)


def _max_pool(at: At) -> Flow:
    flow = at.any_flow(0)
    g = _pool_geometry(at, flow)
    return _pool(at, flow, ops.MaxPool2D(g.kernel, g.strides, g.padding))


def _average_pool(at: At) -> Flow:
    flow = at.flow(0)
    g = _pool_geometry(at, flow)
    return _pool(at, flow, ops.AveragePool2D(g.kernel, g.strides, g.padding))


def _global_max_pool(at: At) -> Flow:
    flow = at.any_flow(0)
    rank, shape = len(flow.view.axes), flow.view.shape
    if rank not in (3, 4):
        raise DeployError(f"a global pool of {rank} axes")
    return _pool(at, flow, ops.MaxPool2D((1, shape[2]) if rank == 3 else (shape[2], shape[3])))


def _mean(at: At, axes: tuple[int, ...], keep: bool) -> Flow:
    flow = at.flow(0)
    order = at.builder.common_order([flow])
    draft = at.builder.place(flow, [[a] for a in order])
    held = tuple(sorted(order.index(a) for a in axes))
    result = at.builder.emit(at.output, ops.Mean(held, keep), [draft], at.name)
    shape = tuple(1 if a in axes else n for a, n in enumerate(flow.view.shape))
    view = new_view(at.output, shape, order)
    if not keep:
        view = View(tuple(v for a, v in enumerate(view.axes) if a not in axes), view.memory)
    return at.fresh(result, view)


def _global_average_pool(at: At) -> Flow:
    rank = len(at.flow(0).view.axes)
    if rank < 3:
        raise DeployError(f"a global pool of {rank} axes")
    return _mean(at, tuple(range(2, rank)), keep=True)


def _reduce_mean(at: At) -> Flow:
    rank = len(at.flow(0).view.axes)
    axes = _axes(at, 1, rank)
    if not axes:
        if at.attributes.integer("noop_with_empty_axes", 0):
            return _identity(at)
        axes = tuple(range(rank))
    return _mean(at, axes, keep=bool(at.attributes.integer("keepdims", 1)))


def _softmax(at: At) -> Flow:
    flow = at.flow(0)
    old = at.opset < 13
    rank = len(flow.view.axes)
    axis = axis_in(at.attributes.integer("axis", 1 if old else -1), rank)
    # Before operator set 13 all axes from this one on were one.
    normal = [f for a in flow.view.axes[axis : rank if old else axis + 1] for f in a]
    tail = flow.view.memory[len(flow.view.memory) - len(normal) :]
    if set(tail) != set(normal):
        rest = [f for f in flow.view.memory if f not in normal]
        at.builder.place_factors(flow, (*rest, *normal), flow.draft.shape)
    size = product(normal)
    draft = flow.draft
    if draft.shape[-1:] != (size,):
        draft = at.builder.shaped(draft, (flow.view.elements // size, size))
    quantization = None if draft.dtype.is_float else PROBABILITY
    return at.fresh(at.builder.emit(at.output, ops.Softmax(), [draft], at.name, quantization), flow.view)


def _sigmoid(at: At) -> Flow:
    flow = at.flow(0)
    quantization = None if flow.draft.dtype.is_float else PROBABILITY
    draft = at.builder.emit(at.output, ops.Logistic(), [flow.draft], at.name, quantization)
    return at.fresh(draft, flow.view)


Reader = Callable[[At], Tensor]

READERS: Mapping[str, Reader] = {
    "Add": elementwise.add,
    "AveragePool": _average_pool,
    "BatchNormalization": linear.batch_norm,
    "Cast": _cast,
    "Clip": elementwise.clip,
    "Concat": _concat,
    "Conv": linear.conv,
    "DequantizeLinear": quantized.dequantize_linear,
    "Div": elementwise.div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": linear.gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "Identity": _identity,
    "GreaterOrEqual": steps.at_least,
    "Less": steps.less,
    "MatMul": linear.matmul,
    "MaxPool": _max_pool,
    "Mul": elementwise.mul,
    "Pad": _pad,
    "QuantizeLinear": quantized.quantize_linear,
    "ReduceMean": _reduce_mean,
    "Relu": elementwise.relu,
    "Reshape": _reshape,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": elementwise.sub,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": steps.where,
    "QLinearConv": quantized.around(linear.conv, (("x", 0), ("w", 3), ("bias", 8)), 6),
    "QLinearMatMul": quantized.around(linear.matmul, (("x", 0), ("w", 3)), 6, weight_axis=1),
    "com.microsoft:DequantizeLinear": quantized.dequantize_linear,
    "com.microsoft:QGemm": quantized.qgemm,
    "com.microsoft:QLinearAdd": quantized.around(elementwise.add, (("x", 0), ("x", 3)), 6),
    "com.microsoft:QLinearAveragePool": quantized.around(_average_pool, (("x", 0),), 3),
    "com.microsoft:QLinearConcat": quantized.qlinear_concat(_concat),
    "com.microsoft:QLinearGlobalAveragePool": quantized.around(_global_average_pool, (("x", 0),), 3),
    "com.microsoft:QLinearMul": quantized.around(elementwise.mul, (("x", 0), ("x", 3)), 6),
    "com.microsoft:QLinearSigmoid": quantized.around(_sigmoid, (("x", 0),), 3),
    "com.microsoft:QLinearSoftmax": quantized.qlinear_softmax(_softmax),
    "com.microsoft:QuantizeLinear": quantized.quantize_linear,
}
"""Operators of the default set by name, others behind their domain."""
