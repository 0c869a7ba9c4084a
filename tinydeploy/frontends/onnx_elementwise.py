"""Add, Sub, Mul, Div and the activations that may fuse into the op in front."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_at import At
from tinydeploy.frontends.onnx_layout import View, new_view, signature
from tinydeploy.frontends.onnx_linear import fold_affine, fold_bias, linear_behind
from tinydeploy.frontends.onnx_tensor import Draft, Flow, Known, packed_within
from tinydeploy.ir.limits import MAX_ELEMENTS
from tinydeploy.ir.types import Array
from tinydeploy.ops import Activation

_CLIPS = {
    (0.0, math.inf): Activation.RELU,
    (0.0, 6.0): Activation.RELU6,
    (-1.0, 1.0): Activation.RELU_N1_TO_1,
}

_LARGEST = float(np.finfo(np.float32).max)


def add(at: At) -> Flow:
    flow, known = _operands(at)
    return _two(at, ops.Add()) if known is None else _add_constant(at, flow, known)


def sub(at: At) -> Flow:
    """Only a float constant can be subtracted: there is no op that subtracts."""
    return _add_constant(at, at.flow(0), _float(at.known(1), lambda x: -x))


def mul(at: At) -> Flow:
    flow, known = _operands(at)
    return _two(at, ops.Mul()) if known is None else _multiply_constant(at, flow, known)


def div(at: At) -> Flow:
    """Only by a float constant."""
    return _multiply_constant(at, at.flow(0), _float(at.known(1), lambda x: 1.0 / x))


def _float(known: Known, function: Callable[[Array], Array]) -> Known:
    if known.data.dtype.kind != "f":
        raise DeployError(f"the constant {known.name!r} is not float")
    with np.errstate(all="ignore"):
        data = function(known.data.astype(np.float64)).astype(np.float32)
    return Known(known.name, data)


def _operands(at: At) -> tuple[Flow, Known | None]:
    """The computed operand and the constant one, in any order."""
    a, b = at.required(0), at.required(1)
    at.builder.spend(sum(t.data.size for t in (a, b) if isinstance(t, Known)))
    if isinstance(a, Known):
        return at.flow(1), a
    return at.flow(0), b if isinstance(b, Known) else None


def _flow_single(at: At, flow: Flow) -> bool:
    return at.single(0 if at.required(0) is flow else 1)


def _add_constant(at: At, flow: Flow, known: Known) -> Flow:
    step = linear_behind(at.builder, flow, _flow_single(at, flow))
    channels = None if step is None else _per_channel(flow, known)
    if step is not None and channels is not None:
        fold_bias(at, step, channels)
        step.output.name = at.output
        return flow
    return _with_constant(at, ops.Add(), flow, known)


def _multiply_constant(at: At, flow: Flow, known: Known) -> Flow:
    step = linear_behind(at.builder, flow, _flow_single(at, flow))
    channels = None if step is None or not flow.draft.dtype.is_float else _per_channel(flow, known)
    if step is not None and channels is not None:
        outputs = step.output.shape[-1]
        factor = np.broadcast_to(channels.real.astype(np.float64).ravel(), (outputs,))
        fold_affine(at.builder, step, factor, np.zeros(outputs))
        step.output.name = at.output
        return flow
    return _with_constant(at, ops.Mul(), flow, known)


def _per_channel(flow: Flow, known: Known) -> Known | None:
    """The constant as one number per channel of the held tensor, or one for all; else None."""
    data = constant_like(flow, known.data)
    if any(n != 1 for n in data.shape[:-1]) or data.shape[-1:] not in ((1,), flow.draft.shape[-1:]):
        return None
    if known.data.dtype.kind not in "iuf":
        return None
    return Known(known.name, data.ravel(), known.quantization)


def constant_like(flow: Flow, data: Array) -> Array:
    """A constant that ONNX broadcasts against a tensor, in the dimensions that hold the tensor.

    Raises:
        DeployError: it would make the tensor larger.
    """
    shape, held = flow.view.shape, flow.draft.shape
    if data.size == 1:
        return data.reshape((1,) * len(held))
    padded = data.reshape((1,) * (len(shape) - data.ndim) + data.shape)
    if padded.ndim != len(shape) or any(c not in (1, n) for c, n in zip(padded.shape, shape, strict=True)):
        raise DeployError(f"a constant of shape {data.shape} does not fit a tensor of shape {shape}")
    sizes: list[int] = []
    for axis, n in zip(flow.view.axes, padded.shape, strict=True):
        sizes += [f.size if n > 1 else 1 for f in axis]
    own = [f for axis in flow.view.axes for f in axis]
    order = [own.index(f) for f in flow.view.memory]
    return _grouped(padded.reshape(sizes).transpose(order), [f.size for f in flow.view.memory], held)


def _grouped(data: Array, full: list[int], held: tuple[int, ...]) -> Array:
    """Neighbouring axes joined into the held dimensions, those of size 1 as long as all of them are."""
    shape: list[int] = []
    expanded = list(data.shape)
    start = 0
    for n in held:
        end, size = start, 1
        while size < n and end < len(full):
            size *= full[end]
            end += 1
        if size != n:
            break
        if any(d > 1 for d in data.shape[start:end]):
            expanded[start:end] = full[start:end]
            shape.append(n)
        else:
            shape.append(1)
        start = end
    else:
        return np.broadcast_to(data, expanded).reshape(shape)
    if math.prod(full) > MAX_ELEMENTS:
        raise DeployError(f"a constant spread over {math.prod(full)} elements")
    return np.broadcast_to(data, full).reshape(held)


def _with_constant(at: At, op: ops.Add | ops.Mul, flow: Flow, known: Known) -> Flow:
    data = constant_like(flow, known.data)
    if known.quantization is not None and known.quantization.per_channel:
        raise DeployError(f"the constant operand {known.name!r} is quantized per channel")
    operand: Known = known
    if flow.draft.dtype.is_float and known.quantization is not None:
        operand, data = Known(known.name, known.real), constant_like(flow, known.real)
    held = at.builder.constant(("like", data.shape, flow.view.memory), operand, data)
    draft = at.builder.emit(at.output, op, [flow.draft, held], at.name)
    return at.fresh(draft, flow.view)


def _two(at: At, op: ops.Add | ops.Mul) -> Flow:
    a, b = at.flow(0), at.flow(1)
    if a.view.shape == b.view.shape and signature(a.view) == signature(b.view):
        operands = [a.draft, at.builder.shaped(b.draft, a.draft.shape)]
        return at.fresh(at.builder.emit(at.output, op, operands, at.name), a.view)
    rank = max(len(a.view.axes), len(b.view.axes))
    a, b = (replace(f, view=_ranked(f.view, rank)) for f in (a, b))
    order = at.builder.common_order([a, b])
    drafts = [at.builder.place(f, [[axis] for axis in order]) for f in (a, b)]
    draft = at.builder.emit(at.output, op, drafts, at.name)
    shape = [0] * rank
    for axis, n in zip(order, draft.shape, strict=True):
        shape[axis] = n
    return at.fresh(draft, new_view(at.output, tuple(shape), order))


def _ranked(view: View, rank: int) -> View:
    """Axes of size 1 in front, as ONNX broadcasts."""
    return View(((),) * (rank - len(view.axes)) + view.axes, view.memory)


def relu(at: At) -> Flow:
    return activation(at, Activation.RELU)


def clip(at: At) -> Flow:
    """Clip to the ranges that have a fused form: [0, inf), [0, 6] and [-1, 1].

    To other ends in front of QuantizeLinear where these are the ends of fewer than eight bits.
    """
    low = at.scalar(1, -math.inf)
    high = at.scalar(2, math.inf)
    low, high = (math.copysign(math.inf, v) if abs(v) >= _LARGEST else v for v in (low, high))
    if (low, high) == (-math.inf, math.inf):
        return at.flow(0)
    if (low, high) in _CLIPS:
        return activation(at, _CLIPS[low, high])
    flow = at.flow(0)
    draft = flow.draft
    if draft.form is not None and draft.quantization is not None:
        # What only moves elements keeps their ends.
        if draft.form == packed_within((low, high), draft.quant):
            return flow
    elif draft.pending and draft.clip is None and at.builder.fusible(flow, at.single(0)) is not None:
        draft.clip = (low, high)
        return flow
    raise DeployError(
        f"a clip to [{low}, {high}] is not supported",
        hint="supported are [0, inf), [0, 6] and [-1, 1], and ends of few bits in front of QuantizeLinear",
    )


def activation(at: At, kind: Activation) -> Flow:
    """A clamp: into the op in front, where nothing else reads that, or an op of its own."""
    flow = at.flow(0)
    step = at.builder.fusible(flow, at.single(0))
    present = getattr(step.op, "activation", None) if step is not None else None
    if step is not None and (
        present in (Activation.NONE, kind) or (present, kind) == (Activation.RELU, Activation.RELU6)
    ):
        step.op = replace(cast(Any, step.op), activation=kind)
        step.output.name = at.output
        return flow
    draft: Draft = at.builder.emit(at.output, ops.Relu(kind), [flow.draft], at.name)
    return at.fresh(draft, flow.view)
