"""Operators on constants, computed while reading: the arithmetic of shapes, and weights brought into form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_at import At, axis_in
from tinydeploy.frontends.onnx_check import TYPE_NUMBERS, type_name
from tinydeploy.frontends.onnx_tensor import Compared, Flow, Known
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.limits import MAX_ELEMENTS
from tinydeploy.ir.types import Array, Quantization

Folder = Callable[[At], Array]

_KINDS = "iufb"


def fold(at: At, kind: str) -> Known | None:
    """The constant that a node comes to; None where an input is computed, or the table has no entry.

    Raises:
        DeployError: the operands do not fit together, or the result would be too large.
    """
    if kind == "Shape" and isinstance(at.required(0), Flow):
        return Known(at.output, _shape(at))
    if kind not in FOLDERS or any(isinstance(t, Flow | Compared) for t in at.inputs):
        return None
    moved = _moved_quantized(at, kind)
    if moved is not None:
        return moved
    try:
        with np.errstate(all="ignore"):
            data = np.asarray(FOLDERS[kind](at))
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise DeployError(f"its constant operands do not fit together ({error})") from None
    if data.dtype.kind not in _KINDS or data.size > MAX_ELEMENTS or data.ndim > 8:
        raise DeployError(f"a constant of type {data.dtype} and shape {data.shape} is not supported")
    return Known(at.output, data)


def _moved_quantized(at: At, kind: str) -> Known | None:
    """Transpose and the like keep quantized weights quantized, where the quantized axis can be followed."""
    first = at.input(0)
    if not isinstance(first, Known) or first.quantization is None or kind not in _MOVERS:
        return None
    q: Quantization = first.quantization
    if q.axis is not None:
        if kind == "Transpose":
            q = replace(q, axis=_permutation(at, first.data.ndim).index(q.axis))
        elif kind != "Identity":
            return None
    bare = replace(first, quantization=None)
    data = FOLDERS[kind](replace(at, inputs=(bare, *at.inputs[1:])))
    return Known(first.name, data, q, None if isinstance(first.form, Planes) else first.form)


def _data(at: At, index: int) -> Array:
    return at.known(index).real


def _limited(shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(n < 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise DeployError(f"a constant of shape {shape} is out of range")
    return shape


def _dimensions(at: At) -> tuple[int, ...]:
    if isinstance(at.required(0), Known):
        return at.known(0).data.shape
    return at.any_flow(0).view.shape


def _shape(at: At) -> Array:
    shape = _dimensions(at)
    start, end = at.attributes.integer("start", 0), at.attributes.integer("end", len(shape))
    return np.array(shape[start:end], np.int64)


def _binary(function: Callable[[Array, Array], Array]) -> Folder:
    def compute(at: At) -> Array:
        a, b = _data(at, 0), _data(at, 1)
        _limited(np.broadcast_shapes(a.shape, b.shape))
        return np.asarray(function(a, b))

    return compute


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if (b == 0).any():
        raise DeployError("a division of integers by zero")
    # ONNX cuts integers off towards zero.
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient), a.dtype)


def _cast(at: At) -> Array:
    return _data(at, 0).astype(type_name(at.attributes.integer("to", TYPE_NUMBERS["float32"])))


def _gather(at: At) -> Array:
    data, indices = _data(at, 0), _data(at, 1)
    if indices.dtype.kind not in "iu":
        raise DeployError("indices that are no integers")
    axis = axis_in(at.attributes.integer("axis", 0), data.ndim)
    _limited((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))
    return np.take(data, indices, axis)


def _concat(at: At) -> Array:
    parts = [_data(at, i) for i in range(len(at.inputs))]
    if sum(p.size for p in parts) > MAX_ELEMENTS:
        raise DeployError("a constant beyond the limit")
    return np.concatenate(parts, at.attributes.integer("axis", 0))


def _axes(at: At, index: int) -> tuple[int, ...] | None:
    given = at.attributes.integers("axes")
    if given is None and at.input(index) is not None:
        given = at.integers(index)
    return given


def _unsqueeze(at: At) -> Array:
    return np.expand_dims(_data(at, 0), _axes(at, 1) or ())


def _squeeze(at: At) -> Array:
    return np.squeeze(_data(at, 0), _axes(at, 1))


def _reshape(at: At) -> Array:
    data = _data(at, 0)
    copies = not at.attributes.integer("allowzero", 0)
    shape = [data.shape[i] if n == 0 and copies else n for i, n in enumerate(at.integers(1))]
    return data.reshape(shape)


def _flatten(at: At) -> Array:
    data, axis = _data(at, 0), at.attributes.integer("axis", 1)
    axis = axis + data.ndim if axis < 0 else axis
    return data.reshape(math.prod(data.shape[:axis]), -1)


def _permutation(at: At, rank: int) -> tuple[int, ...]:
    permutation = at.attributes.integers("perm")
    return tuple(range(rank))[::-1] if permutation is None else permutation


def _transpose(at: At) -> Array:
    data = _data(at, 0)
    return data.transpose(_permutation(at, data.ndim))


def _slice(at: At) -> Array:
    data = _data(at, 0)
    starts, ends = at.integers(1), at.integers(2)
    axes = tuple(range(len(starts))) if at.input(3) is None else at.integers(3)
    steps = (1,) * len(starts) if at.input(4) is None else at.integers(4)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # The lowest end of a backward slice stands for "through the first element".
        last = None if step < 0 and end < -data.shape[axis] else end
        index[axis_in(axis, data.ndim)] = slice(start, last, step)
    return data[tuple(index)]


def _expand(at: At) -> Array:
    data = _data(at, 0)
    return np.broadcast_to(data, _limited(np.broadcast_shapes(data.shape, at.integers(1))))


def _constant_of_shape(at: At) -> Array:
    value = at.attributes.constant() if "value" in at.attributes else np.zeros(1, np.float32)
    if value.size != 1:
        raise DeployError("a fill of several elements")
    return np.full(_limited(at.integers(0)), value.ravel()[0])


def _range(at: At) -> Array:
    start, limit, delta = (_data(at, i) for i in range(3))
    if any(v.size != 1 for v in (start, limit, delta)) or not delta.any():
        raise DeployError("a range of no single numbers, or in steps of zero")
    count = math.ceil((float(limit.item()) - float(start.item())) / float(delta.item()))
    _limited((max(count, 0),))
    return np.asarray(start.item() + np.arange(max(count, 0)) * delta.item(), start.dtype)


def _where(at: At) -> Array:
    condition, a, b = (_data(at, i) for i in range(3))
    _limited(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


def _reduce(function: Callable[..., Array]) -> Folder:
    def compute(at: At) -> Array:
        return np.asarray(
            function(_data(at, 0), axis=_axes(at, 1), keepdims=bool(at.attributes.integer("keepdims", 1)))
        )

    return compute


FOLDERS: Mapping[str, Folder] = {
    "Add": _binary(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": lambda at: at.attributes.constant(),
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda at: _data(at, 0),
    "Mul": _binary(np.multiply),
    "Neg": lambda at: -_data(at, 0),
    "Range": _range,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Sqrt": lambda at: np.sqrt(_data(at, 0)),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""What is computed where every operand is a constant."""

_MOVERS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
