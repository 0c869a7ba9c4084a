"""Readers of PyTorch's pooling, padding and reductions."""

from __future__ import annotations

from typing import Any, NoReturn

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.torch_builder import At
from tinydeploy.frontends.torch_layout import Held, axes_in, channels_last, plain, viewed
from tinydeploy.frontends.torch_linear import pair, zero_pair
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Value
from tinydeploy.ops import Padding


def _spatial(at: At) -> tuple[Held, Value, tuple[int, int]]:
    """The input, its channels-last value, and its rows and columns."""
    x = at.held(at.first())
    if x.rank not in (3, 4):
        raise DeployError(f"an input of shape {x.shape}, neither (N, C, L) nor (N, C, H, W)")
    value = at.builder.place(x, channels_last(x.shape))
    return x, value, (value.shape[1], value.shape[2])


def _window(at: At, x: Held, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int], Padding]:
    """Kernel, strides and padding; the stride is the kernel's where it is not given.

    With `ceil_mode` the last window may reach over the end, but must start inside the input or its padding
    before (pooling_output_shape in aten/src/ATen/native/Pool.h).
    """
    kernel = pair(at.get("kernel_size"), x.rank)
    stride: Any = at.get("stride")
    strides = pair(stride, x.rank) if stride not in (None, (), 0) else kernel
    pads = zero_pair(at.get("padding", 0), x.rank)
    if min(*kernel, *strides) < 1:
        raise DeployError(f"kernel {kernel} and stride {strides} must be at least 1")
    after = list(pads)
    if at.get("ceil_mode", False):
        for i in range(2):
            count = -(-(size[i] + 2 * pads[i] - kernel[i]) // strides[i]) + 1
            if (count - 1) * strides[i] >= size[i] + pads[i]:
                count -= 1
            after[i] = max(pads[i], (count - 1) * strides[i] + kernel[i] - size[i] - pads[i])
    return kernel, strides, Padding(pads[0], after[0], pads[1], after[1])


def _emit_spatial(at: At, op: Any, x: Held, value: Value) -> Held:
    """A node whose output is an image or sequence as its input is."""
    _, rows, columns, channels = op.output_shape(Site((value,), ()))
    shape = (1, channels, columns) if x.rank == 3 else (1, channels, rows, columns)
    return at.builder.emit(at.call.name, op, [value], shape, channels_last(shape))


def maximum(at: At) -> Held:
    x, value, size = _spatial(at)
    if pair(at.get("dilation", 1), x.rank)[1] != 1 or (
        x.rank == 4 and pair(at.get("dilation", 1), 4)[0] != 1
    ):
        raise DeployError("a dilated max pool is not supported")
    kernel, strides, padding = _window(at, x, size)
    return _emit_spatial(at, ops.MaxPool2D(kernel, strides, padding), x, value)


def average(at: At) -> Held:
    """Padding that counts becomes a PAD of its own; that of the op never counts."""
    x, value, size = _spatial(at)
    if at.get("divisor_override") is not None:
        raise DeployError("an average pool with a divisor of its own is not supported")
    kernel, strides, padding = _window(at, x, size)
    pads = zero_pair(at.get("padding", 0), x.rank)
    if at.get("count_include_pad", True) and any(pads):
        around = ((0, 0), (pads[0], pads[0]), (pads[1], pads[1]), (0, 0))
        value = at.builder.emit(
            f"{at.call.name}.pad",
            ops.Pad(around),
            [value],
            _padded(value, around),
            plain(_padded(value, around)),
        ).value
        padding = Padding(0, padding.bottom - pads[0], 0, padding.right - pads[1])
    return _emit_spatial(at, ops.AveragePool2D(kernel, strides, padding), x, value)


def _padded(value: Value, around: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    return tuple(n + before + after for n, (before, after) in zip(value.shape, around, strict=True))


def adaptive_average(at: At) -> Held:
    """To one element a MEAN, which has a scale of its own; to a divisor of the size an average pool."""
    x, value, size = _spatial(at)
    target = pair(at.get("output_size"), x.rank)
    if target == (1, 1):
        shape = (*x.shape[:2], *(1,) * (x.rank - 2))
        op = ops.Mean((1, 2), keep_dims=True)
        return at.builder.emit(at.call.name, op, [value], shape, channels_last(shape))
    if min(target) < 1 or any(n % t for n, t in zip(size, target, strict=True)):
        raise DeployError(f"an adaptive pool of {size} to {target}, which does not divide it")
    kernel = (size[0] // target[0], size[1] // target[1])
    return _emit_spatial(at, ops.AveragePool2D(kernel, kernel), x, value)


def mean(at: At) -> Held:
    """Over any axes but the samples'."""
    x = at.held(at.first())
    dims = at.get("dim")
    chosen = range(x.rank) if dims in (None, ()) else (dims if isinstance(dims, tuple) else (dims,))
    source = sorted({int(d) % x.rank for d in chosen})
    if 0 in source and x.rank > 1 and dims not in (None, ()):
        raise DeployError("a mean over the samples (axis 0)")
    value, last = at.builder.canonical(x)
    keep = bool(at.get("keepdim", False))
    axes = {axes_in(last, x.rank)[d] for d in source}
    if last and x.rank == 3 and not keep and 2 in axes:
        # The height of 1 that a sequence is held with goes with its length.
        axes.add(1)
    op = ops.Mean(tuple(sorted(axes)), keep_dims=keep)
    kept = tuple(1 if i in source else n for i, n in enumerate(x.shape))
    shape = kept if keep else tuple(n for i, n in enumerate(x.shape) if i not in source)
    return at.builder.emit(at.call.name, op, [value], shape, (channels_last if last else plain)(kept))


def pad(at: At) -> Held:
    """constant_pad_nd, and pad in its constant mode; pairs count from the last axis."""
    x = at.held(at.first())
    if at.get("mode", "constant") != "constant":
        raise DeployError(f"padding of mode {at.get('mode')!r}; constant is supported")
    widths = [int(w) for w in at.get("pad")]
    if len(widths) % 2 or len(widths) > 2 * x.rank or min(widths, default=0) < 0:
        raise DeployError(f"the paddings {widths} of an input of shape {x.shape}")
    around = [(0, 0)] * x.rank
    for i in range(len(widths) // 2):
        around[x.rank - 1 - i] = (widths[2 * i], widths[2 * i + 1])
    if around[0] != (0, 0):
        raise DeployError("a padding of the samples (axis 0)")
    if not any(any(p) for p in around):
        return x
    value, last = at.builder.canonical(x)
    held = [(0, 0)] * len(value.shape)
    for axis, widths_of in zip(axes_in(last, x.rank), around, strict=True):
        held[axis] = widths_of
    fill = float(at.get("value") or 0.0)
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, around, strict=True))
    op = ops.Pad(tuple(held), fill if fill else None)
    return at.builder.emit(at.call.name, op, [value], shape, (channels_last if last else plain)(shape))


def strided_slice(at: At) -> Held:
    """x[:, :, ::2]: every n-th row or column is a pool over windows of one element; others are refused."""
    x = at.held(at.first())
    dim, step = int(at.get("dim", 0)) % x.rank, int(at.get("step", 1))
    start, end = at.get("start") or 0, at.get("end")
    if start != 0 or (end is not None and end < x.shape[dim]):
        raise DeployError("a slice that leaves out the start or the end is not supported")
    if step == 1:
        return viewed(x, x.shape)
    if dim < 2 or x.rank not in (3, 4):
        raise DeployError("a slice with a step is supported along height and width only")
    strides = (step, 1) if x.rank == 4 and dim == 2 else (1, step)
    value = at.builder.place(x, channels_last(x.shape))
    return _emit_spatial(at, ops.MaxPool2D((1, 1), strides), x, value)


def refuse_log_softmax(at: At) -> NoReturn:
    raise DeployError(
        "the logarithm of a softmax has no integer rule",
        hint="leave it to the loss: end the network with its logits, or with softmax",
    )
