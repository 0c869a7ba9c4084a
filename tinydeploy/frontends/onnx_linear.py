"""Conv, Gemm, MatMul and BatchNormalization, and what folds into the linear layer in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_at import At, vector
from tinydeploy.frontends.onnx_builder import Builder, make_constant
from tinydeploy.frontends.onnx_layout import Factor, View, channels_last, new_view, product, transposed
from tinydeploy.frontends.onnx_tensor import Draft, Flow, Known, Step
from tinydeploy.frontends.onnx_window import geometry
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.types import Array, Quantization
from tinydeploy.numerics import INT32_MAX
from tinydeploy.ops import Activation, Padding

LINEAR = (ops.Conv2D, ops.DepthwiseConv2D, ops.FullyConnected)

_WEIGHTS_HINT = "quantize the weights too, per tensor or per output channel"


def conv(at: At) -> Flow:
    """Conv of images (N, C, H, W) or sequences (N, C, L), which become images of height 1."""
    x, weights = at.flow(0), at.known(1)
    rank = len(x.view.axes)
    if rank not in (3, 4) or weights.data.ndim != rank or min(weights.data.shape) < 1:
        raise DeployError(f"an input of {rank} axes and weights of shape {weights.data.shape}")
    outputs, per_group = weights.data.shape[:2]
    groups, channels = at.attributes.integer("group", 1), x.view.shape[1]
    if groups < 1 or per_group * groups != channels or outputs % groups:
        raise DeployError(f"weights of shape {weights.data.shape} in {groups} groups for {channels} channels")
    kernel = weights.data.shape[2:]
    if at.attributes.integers("kernel_shape", rank - 2) not in (None, kernel):
        raise DeployError(f"the kernel_shape is not that of the weights, {kernel}")
    g = geometry(at.attributes, kernel, x.view.shape[2:])
    image = place_image(at.builder, x)
    image, padding = _absorb_pad(at.builder, image, g.padding)
    outwards = (1, 2, 3, 0) if groups == channels and groups > 1 else (0, 2, 3, 1)

    def move(data: Array) -> Array:
        return (data if rank == 4 else data[:, :, np.newaxis, :]).transpose(outwards)

    depthwise = groups == channels and groups > 1
    op: ops.Conv2D | ops.DepthwiseConv2D
    if depthwise:
        op = ops.DepthwiseConv2D(g.strides, g.dilations, padding)
        held = _weights(at, x, weights, move, "depthwise", (0, 3))
    else:
        op = ops.Conv2D(g.strides, g.dilations, padding)
        held = _weights(at, x, weights, move, "conv", (0, 0))
    inputs = [image, held, *_bias(at, image, held, at.optional_known(2), outputs)]
    draft = at.builder.emit(at.output, op, inputs, at.name)
    return at.fresh(draft, image_view(at.output, draft, rank))


def place_image(builder: Builder, x: Flow) -> Draft:
    """NHWC; a sequence has height 1."""
    groups = [[0], [2], [3], [1]] if len(x.view.axes) == 4 else [[0], [], [2], [1]]
    return builder.place(x, groups)


def image_view(name: str, draft: Draft, rank: int) -> View:
    """The ONNX tensor (N, C, H, W), or (N, C, L), that `draft` (N, H, W, C) holds."""
    n, h, w, c = draft.shape
    return new_view(name, (n, c, h, w) if rank == 4 else (n, c, w), channels_last(rank))


def _absorb_pad(builder: Builder, image: Draft, padding: Padding) -> tuple[Draft, Padding]:
    """Takes a PAD with zeros in front into the convolution's own padding."""
    step = builder.step_of(image)
    if step is None or not isinstance(step.op, ops.Pad):
        return image, padding
    batch, rows, columns, channels = step.op.paddings
    if step.op.value not in (None, 0.0) or (*batch, *channels) != (0, 0, 0, 0):
        return image, padding
    if not image.dtype.is_float and step.op.value is not None:
        # The fill of an integer PAD is a quantized number, and 0 is not the real zero.
        return image, padding
    p = padding
    both = Padding(p.top + rows[0], p.bottom + rows[1], p.left + columns[0], p.right + columns[1])
    return step.inputs[0], both


def _weights(
    at: At,
    x: Flow,
    known: Known,
    move: Callable[[Array], Array],
    form: str,
    axes: tuple[int, int],
    *key: object,
) -> Draft:
    """The weights as the layer holds them; float where the input is.

    Args:
        move: what brings an array in ONNX's order of axes to the graph's.
        axes: the axis of output channels in ONNX and in the graph.
    """
    data = move(known.data)
    if x.draft.dtype.is_float:
        if known.quantization is not None:
            raise _internal_float(known)
        return at.builder.constant((form, *key), known, data)
    q = known.quantization
    stored = known.form
    if isinstance(stored, Planes):
        at.builder.spend(stored.signs.size)
        signs = np.stack([move(plane) for plane in stored.signs])
        stored = Planes(signs, stored.coefficients, axes[1])
    elif q is None or known.data.dtype not in (np.int8, np.uint8):
        raise DeployError(f"the weights {known.name!r} are not quantized to 8 bits", hint=_WEIGHTS_HINT)
    if q is not None and q.axis not in (None, axes[0]):
        raise DeployError(
            f"the weights {known.name!r} are quantized along axis {q.axis}, not {axes[0]}",
            hint=_WEIGHTS_HINT,
        )
    return at.builder.constant((form, *key), known, data, axes[1], stored)


def _internal_float(known: Known) -> DeployError:
    return DeployError(f"the weights {known.name!r} are quantized and the input is not", hint=_WEIGHTS_HINT)


def _bias(at: At, x: Draft, weights: Draft, known: Known | None, outputs: int) -> list[Draft]:
    """No bias, or the one that was given: float, or int32 at S_in * S_w."""
    if known is None:
        return []
    if x.dtype.is_float:
        data = vector(known, outputs, "bias").astype(np.float32)
        return [at.builder.constant(("bias", outputs), Known(known.name, data), data)]
    ints, quantization = _integer_bias(x, weights, known, outputs)
    return [at.builder.constant(("bias", x, weights), Known(known.name, ints, quantization), ints, 0)]


def _integer_bias(x: Draft, weights: Draft, known: Known, outputs: int) -> tuple[Array, Quantization]:
    scales = np.array(weights.quant.scales, np.float64) * x.quant.scale
    axis = 0 if weights.quant.per_channel else None
    product_scales = tuple(float(np.float32(s)) for s in scales)
    quantization = Quantization(product_scales, (0,) * len(product_scales), axis)
    given = known.quantization
    if known.data.dtype == np.int32 and known.data.size == outputs:
        if given is None:
            return known.data.reshape(outputs), quantization
        stated = np.broadcast_to(np.array(given.scales, np.float64), (outputs,))
        if not any(given.zero_points) and np.allclose(stated, scales, rtol=1e-5, atol=0):
            return known.data.reshape(outputs), replace(given, axis=0 if given.per_channel else None)
    with np.errstate(over="ignore"):
        units = np.rint(vector(known, outputs, "bias") / scales)
    if not (np.abs(units) <= INT32_MAX).all():
        raise DeployError(f"the bias {known.name!r} does not fit int32 at the scale of its products")
    return units.astype(np.int32), quantization


def gemm(at: At) -> Flow:
    """Gemm with constant weights and bias; alpha and beta go into them."""
    x, weights, bias = at.flow(0), at.known(1), at.optional_known(2)
    alpha, beta = at.attributes.number("alpha", 1.0), at.attributes.number("beta", 1.0)
    if (alpha, beta) != (1.0, 1.0):
        if not x.draft.dtype.is_float:
            raise DeployError(f"alpha {alpha} and beta {beta} of a quantized model are not supported")
        weights = Known(weights.name, weights.real * np.float32(alpha))
        bias = None if bias is None else Known(bias.name, bias.real * np.float32(beta))
    if at.attributes.integer("transA", 0):
        x = replace(x, view=transposed(x.view, (1, 0)))
    return fully_connected(at, x, weights, 0 if at.attributes.integer("transB", 0) else 1, bias)


def matmul(at: At) -> Flow:
    """MatMul by constant weights (K, N)."""
    return fully_connected(at, at.flow(0), at.known(1), 1, None)


def fully_connected(at: At, x: Flow, weights: Known, out_axis: int, bias: Known | None) -> Flow:
    """Rows over the last axis of `x`; its columns may lie in any order, which the weights then take on.

    Args:
        out_axis: the axis of `weights` that counts outputs.
    """
    if weights.data.ndim != 2 or not x.view.axes:
        raise DeployError(f"weights of shape {weights.data.shape} for an input of shape {x.view.shape}")
    outputs, depth = weights.data.shape if out_axis == 0 else weights.data.shape[::-1]
    at.builder.spend(weights.data.size)
    columns, lead = x.view.axes[-1], [f for axis in x.view.axes[:-1] for f in axis]
    if product(columns) != depth or outputs < 1:
        raise DeployError(f"weights for {depth} inputs and a last axis of {product(columns)}")
    rows, held = x.view.memory[: len(lead)], x.view.memory[len(lead) :]
    if set(rows) != set(lead):
        # Says that a transposition would be needed, or asks for another order of the input.
        at.builder.place_factors(x, (*lead, *columns), (product(lead), depth))
    sizes = [f.size for f in columns]
    order = [columns.index(f) for f in held]

    def move(data: Array) -> Array:
        matrix = data if out_axis == 0 else data.T
        spread = matrix.reshape(outputs, *sizes).transpose(0, *(a + 1 for a in order))
        return spread.reshape(outputs, depth)

    if x.draft.dtype.is_float and weights.quantization is not None:
        raise _internal_float(weights)
    place = at.builder.place_factors(x, x.view.memory, (product(lead), depth))
    kernel = _weights(at, x, weights, move, "rows", (out_axis, 0), out_axis, tuple(sizes), tuple(order))
    inputs = [place, kernel, *_bias(at, place, kernel, bias, outputs)]
    draft = at.builder.emit(at.output, ops.FullyConnected(), inputs, at.name)
    new = (Factor(at.output, 1, outputs),) if outputs > 1 else ()
    return at.fresh(draft, View((*x.view.axes[:-1], new), (*rows, *new)))


def batch_norm(at: At) -> Flow:
    """BatchNormalization: into the linear layer in front, or a depthwise 1x1 convolution, or MUL and ADD."""
    x = at.flow(0)
    if at.attributes.integer("training_mode", 0) or len(x.view.axes) < 2:
        raise DeployError("in training mode, or of fewer than two axes", hint="export for inference")
    if not x.draft.dtype.is_float:
        raise DeployError(
            "a batch norm of its own in a quantized model is not supported",
            hint="fold it before quantization: onnxruntime.quantization.shape_inference.quant_pre_process",
        )
    channels = x.view.shape[1]
    at.builder.spend(5 * channels)
    scale, shift, mean, variance = (vector(at.known(i), channels, "parameter") for i in range(1, 5))
    spread = variance + at.attributes.number("epsilon", 1e-5)
    if not (spread > 0).all():
        raise DeployError("the variance plus epsilon is not positive")
    factor = scale / np.sqrt(spread)
    offset = shift - mean * factor
    step = linear_behind(at.builder, x, at.single(0))
    if step is not None and x.view.axes[1] == x.view.memory[-1:]:
        fold_affine(at.builder, step, factor, offset)
        step.norm_scale = scale
        return x
    name = at.input_names[1] or at.name
    if len(x.view.axes) in (3, 4):
        image = place_image(at.builder, x)
        kernel = _float_constant(name, factor.reshape(1, 1, 1, -1))
        inputs = [image, kernel, _float_constant(f"{name}/shift", offset)]
        draft = at.builder.emit(at.output, ops.DepthwiseConv2D(), inputs, at.name)
        at.builder.producers[draft].norm_scale = scale
        return at.fresh(draft, image_view(at.output, draft, len(x.view.axes)))
    rank = len(x.view.axes)
    held = at.builder.place(x, [[0], [1], *([a] for a in range(2, rank))])
    shape = (1, -1, *(1,) * (rank - 2))
    product_ = at.builder.emit(
        f"{at.output}/scaled", ops.Mul(), [held, _float_constant(name, factor.reshape(shape))]
    )
    if rank == 2:
        at.builder.producers[product_].norm_scale = scale
    shifted = [product_, _float_constant(f"{name}/shift", offset.reshape(shape))]
    draft = at.builder.emit(at.output, ops.Add(), shifted, at.name)
    return at.fresh(draft, x.view)


def _float_constant(name: str, data: Array) -> Draft:
    known = Known(name, data.astype(np.float32))
    return make_constant(known, known.data)


def linear_behind(builder: Builder, flow: Flow, single: bool) -> Step | None:
    """The linear layer whose result this is, if nothing else reads it and no clamp follows it."""
    step = builder.fusible(flow, single)
    if step is None or not isinstance(step.op, LINEAR) or step.op.activation is not Activation.NONE:
        return None
    return step


def fold_affine(builder: Builder, step: Step, factor: Array | None, offset: Array) -> None:
    """Makes a float linear layer compute `factor * y + offset`, per output channel."""
    weights = step.inputs[1]
    assert weights.data is not None
    builder.spend(offset.size if factor is None else weights.data.size)
    bias = (
        step.inputs[2].data.astype(np.float64)
        if len(step.inputs) > 2 and step.inputs[2].data is not None
        else 0.0
    )
    if factor is not None:
        axis = 3 if isinstance(step.op, ops.DepthwiseConv2D) else 0
        shape = [1] * weights.data.ndim
        shape[axis] = -1
        step.inputs[1] = _float_constant(weights.name, weights.data * factor.reshape(shape))
        bias = bias * factor
    name = step.inputs[2].name if len(step.inputs) > 2 else f"{weights.name}/bias"
    outputs = step.output.shape[-1]
    step.inputs[2:] = [_float_constant(name, np.broadcast_to(bias + offset, (outputs,)))]


def fold_bias(at: At, step: Step, known: Known) -> None:
    """Adds a constant per output channel to a linear layer, float or integer.

    Args:
        known: one number, or one per output channel.
    """
    outputs = step.output.shape[-1]
    if step.output.dtype.is_float:
        fold_affine(at.builder, step, None, vector(known, outputs, "bias"))
        return
    image, weights = step.inputs[0], step.inputs[1]
    if len(step.inputs) > 2:
        raise DeployError("a second bias of a quantized layer is not supported", hint="add the two up")
    step.inputs += _bias(at, image, weights, known, outputs)
