"""The ATen operators that are read, one small function each, keyed by their name without the overload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends import torch_linear as layers
from tinydeploy.frontends import torch_pooling as pooling
from tinydeploy.frontends.torch_builder import At
from tinydeploy.frontends.torch_layout import (
    Held,
    axes_in,
    channels_last,
    permuted,
    plain,
    same_order,
    viewed,
)
from tinydeploy.ir.op import Op
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops import Activation

Reader = Callable[[At], Held]


def _unary(op: Op) -> Reader:
    def read(at: At) -> Held:
        x = at.held(at.first())
        return at.builder.emit(at.call.name, op, [x.value], x.shape, x.order)

    return read


def _clamp(at: At, low: Any, high: Any) -> Held:
    kinds = {
        (0.0, None): Activation.RELU,
        (0.0, 6.0): Activation.RELU6,
        (-1.0, 1.0): Activation.RELU_N1_TO_1,
    }
    ends = tuple(None if end is None else float(end) for end in (low, high))
    if ends not in kinds:
        raise DeployError(f"a clamp to {ends}; supported are (0, None), (0, 6) and (-1, 1)")
    return _unary(ops.Relu(kinds[ends]))(at)


def _same(at: At) -> Held:
    return at.held(at.first())


def _to(at: At) -> Held:
    """A change of type is none for float32; every other type is refused by name."""
    dtype = at.get("dtype")
    if dtype is not None and str(dtype).removeprefix("torch.") != "float32":
        raise DeployError(f"a change to type {dtype}; the whole network must be float32")
    return _same(at)


def _view(at: At) -> Held:
    x = at.held(at.first())
    return viewed(x, at.get("size", at.get("shape")))


def _flatten(at: At) -> Held:
    x = at.held(at.first())
    start, end = int(at.get("start_dim", 0)) % max(x.rank, 1), int(at.get("end_dim", -1)) % max(x.rank, 1)
    merged = int(np.prod(x.shape[start : end + 1]))
    return viewed(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))


def _unflatten(at: At) -> Held:
    x = at.held(at.first())
    dim = int(at.get("dim")) % x.rank
    return viewed(x, (*x.shape[:dim], *at.get("sizes"), *x.shape[dim + 1 :]))


def _squeeze(at: At) -> Held:
    x = at.held(at.first())
    dims = at.get("dim")
    if dims is None:
        chosen = set(range(x.rank))
    else:
        chosen = {d % x.rank for d in (dims if isinstance(dims, tuple) else (dims,))}
    return viewed(x, tuple(n for i, n in enumerate(x.shape) if i not in chosen or n != 1))


def _unsqueeze(at: At) -> Held:
    x = at.held(at.first())
    dim = int(at.get("dim")) % (x.rank + 1)
    return viewed(x, (*x.shape[:dim], 1, *x.shape[dim:]))


def _permute(at: At) -> Held:
    return permuted(at.held(at.first()), at.get("dims"))


def _transpose(at: At) -> Held:
    """transpose.int, t, numpy_T and mT."""
    x = at.held(at.first())
    dims = list(range(x.rank))
    if at.call.target.startswith("aten.numpy_T"):
        return permuted(x, dims[::-1])
    if x.rank < 2:
        return x
    a, b = int(at.get("dim0", -2)), int(at.get("dim1", -1))
    dims[a], dims[b] = dims[b], dims[a]
    return permuted(x, dims)


def _binary(op: Callable[[], Op], prepare: Callable[[At, Array], Array], negate: bool = False) -> Reader:
    """ADD or MUL of two operands, of which one may be a constant.

    Args:
        prepare: what becomes of a constant right operand (its sign, its reciprocal, alpha).
        negate: the right operand counts negative where it is computed.
    """

    def read(at: At) -> Held:
        left, right = at.get("self"), at.get("other")
        if isinstance(right, (int, float)) or at.is_constant(right):
            return layers.affine(
                at, op(), at.held(left), prepare(at, at.array(right, "operand")), at.call.name
            )
        factor = (-1.0 if negate else 1.0) * float(at.get("alpha", 1))
        if at.call.target.startswith("aten.div"):
            raise DeployError("a division by a tensor that is computed while the network runs")
        y = at.held(right)
        if factor != 1.0:
            y = layers.affine(at, ops.Mul(), y, np.array(factor), f"{at.call.name}.factor")
        if isinstance(left, (int, float)) or at.is_constant(left):
            return layers.affine(at, op(), y, at.array(left, "operand"), at.call.name)
        return _two(at, op(), at.held(left), y)

    return read


def _two(at: At, op: Op, a: Held, b: Held) -> Held:
    """Two activations: as they lie where they lie alike, otherwise both in one canonical order."""
    builder = at.builder
    if a.shape == b.shape and same_order(a.order, b.order):
        return builder.emit(at.call.name, op, [a.value, builder.shaped(b, a.value.shape)], a.shape, a.order)
    rank = max(a.rank, b.rank)
    a, b = (viewed(h, (1,) * (rank - h.rank) + h.shape) for h in (a, b))
    try:
        shape = tuple(int(n) for n in np.broadcast_shapes(a.shape, b.shape))
    except ValueError:
        raise DeployError(f"the shapes {a.shape} and {b.shape} do not broadcast") from None
    values, layout = _in_one_order(at, [a, b])
    return builder.emit(at.call.name, op, values, shape, layout(shape))


def _in_one_order(at: At, held: list[Held]) -> tuple[list[Value], Callable[[tuple[int, ...]], Any]]:
    """All values channels-last where each of them lies so, else all in plain order."""
    layout = channels_last if all(same_order(h.order, channels_last(h.shape)) for h in held) else plain
    return [at.builder.place(h, layout(h.shape)) for h in held], layout


def _negative(at: At) -> Held:
    return layers.affine(at, ops.Mul(), at.held(at.first()), np.array(-1.0), at.call.name)


def _reverse_subtract(at: At) -> Held:
    """rsub: other - self * alpha."""
    factor = np.array(-float(at.get("alpha", 1)))
    negative = layers.affine(at, ops.Mul(), at.held(at.first()), factor, f"{at.call.name}.factor")
    other = at.get("other")
    if isinstance(other, (int, float)) or at.is_constant(other):
        return layers.affine(at, ops.Add(), negative, at.array(other, "operand"), at.call.name)
    return _two(at, ops.Add(), at.held(other), negative)


def _concatenation(at: At) -> Held:
    held = [at.held(t) for t in at.get("tensors")]
    rank = held[0].rank
    dim = int(at.get("dim", 0)) % rank
    if dim == 0 and rank > 1:
        raise DeployError("a concatenation of samples (axis 0)")
    others = {h.shape[:dim] + h.shape[dim + 1 :] for h in held}
    if len(others) != 1:
        raise DeployError(f"the shapes {[h.shape for h in held]} differ outside axis {dim}")
    shape = (*held[0].shape[:dim], sum(h.shape[dim] for h in held), *held[0].shape[dim + 1 :])
    if rank == 2:
        # Features in any order: each part keeps its own.
        values = [at.builder.shaped(h, h.shape) for h in held]
        starts = np.cumsum([0, *(h.shape[1] for h in held)])
        order = np.concatenate([h.order.ravel() + s for h, s in zip(held, starts, strict=False)])
        return at.builder.emit(at.call.name, ops.Concatenation(1), values, shape, order)
    values, layout = _in_one_order(at, held)
    axis = axes_in(layout is channels_last, rank)[dim]
    return at.builder.emit(at.call.name, ops.Concatenation(axis), values, shape, layout(shape))


def _softmax(at: At) -> Held:
    """Over any axis whose elements the graph holds as its last one."""
    x = at.held(at.first())
    dim = int(at.get("dim")) % x.rank
    features = x.shape[dim]
    stride = int(np.prod(x.shape[dim + 1 :]))
    table = x.order.reshape(-1, features)
    group = table - table // stride % features * stride
    if (group != group[:, :1]).any():
        raise DeployError("the elements of its axis do not lie together, and a transposition would be needed")
    last = x.value.shape[-1] if x.value.shape else 1
    shape = x.value.shape if last == features else (len(table), features)
    return at.builder.emit(at.call.name, ops.Softmax(), [at.builder.shaped(x, shape)], x.shape, x.order)


READERS: Mapping[str, Reader] = {
    "_log_softmax": pooling.refuse_log_softmax,
    "_native_batch_norm_legit_no_training": layers.batch_norm,
    "_softmax": _softmax,
    "_to_copy": _to,
    "_unsafe_view": _view,
    "adaptive_avg_pool1d": pooling.adaptive_average,
    "adaptive_avg_pool2d": pooling.adaptive_average,
    "add": _binary(ops.Add, lambda at, c: c * float(at.get("alpha", 1))),
    "addmm": layers.addmm,
    "alias": _same,
    "avg_pool1d": pooling.average,
    "avg_pool2d": pooling.average,
    "batch_norm": layers.batch_norm,
    "cat": _concatenation,
    "clamp": lambda at: _clamp(at, at.get("min"), at.get("max")),
    "clamp_min": lambda at: _clamp(at, at.get("min"), None),
    "clone": _same,
    "constant_pad_nd": pooling.pad,
    "contiguous": _same,
    "conv1d": layers.convolution,
    "conv2d": layers.convolution,
    "convolution": layers.convolution,
    "detach": _same,
    "div": _binary(ops.Mul, lambda _, c: 1.0 / c),
    "dropout": _same,
    "feature_dropout": _same,
    "flatten": _flatten,
    "hardtanh": lambda at: _clamp(at, at.get("min_val", -1), at.get("max_val", 1)),
    "lift_fresh_copy": _same,
    "linear": layers.linear,
    "log_softmax": pooling.refuse_log_softmax,
    "mT": _transpose,
    "matmul": layers.matrix,
    "max_pool1d": pooling.maximum,
    "max_pool2d": pooling.maximum,
    "max_pool2d_with_indices": pooling.maximum,
    "mean": pooling.mean,
    "mm": layers.matrix,
    "mul": _binary(ops.Mul, lambda _, c: c),
    "neg": _negative,
    "numpy_T": _transpose,
    "pad": pooling.pad,
    "permute": _permute,
    "relu": _unary(ops.Relu()),
    "relu6": _unary(ops.Relu(Activation.RELU6)),
    "reshape": _view,
    "rsub": _reverse_subtract,
    "sigmoid": _unary(ops.Logistic()),
    "slice": pooling.strided_slice,
    "softmax": _softmax,
    "squeeze": _squeeze,
    "sub": _binary(ops.Add, lambda at, c: -c * float(at.get("alpha", 1)), negate=True),
    "t": _transpose,
    "to": _to,
    "transpose": _transpose,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
    "view": _view,
}

MOVES = frozenset(
    name
    for name, reader in READERS.items()
    if reader in (_same, _to, _view, _flatten, _unflatten, _squeeze, _unsqueeze, _permute, _transpose)
)
"""Operators that say where elements lie and compute nothing, so that constants go through them as well."""
