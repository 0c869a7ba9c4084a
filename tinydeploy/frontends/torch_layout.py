"""Where each element of a PyTorch tensor lies in the tensor that the graph holds for it.

A source tensor is known by the flat index of each of its elements, in PyTorch's own order; `order` holds
these numbers at the places that the elements have in the graph. Then nothing has to be tracked by cases:

- `view`, `flatten`, `squeeze` change the source's shape only; the flat indices stay, and nothing is computed;
- `permute` renumbers, and nothing is computed either;
- a convolution asks for the order `channels_last`; equal numbers mean that the elements already lie so;
- a linear layer takes any order and permutes the columns of its weights with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array, Value

Order = npt.NDArray[np.int64]
Shape = tuple[int, ...]

_MAX_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Held:
    """A source tensor and its place in the graph.

    Attributes:
        value: what the graph holds.
        shape: the source's shape.
        order: of the value's shape: the source's flat index of each element held.
    """

    value: Value
    shape: Shape
    order: Order

    @property
    def rank(self) -> int:
        return len(self.shape)


def plain(shape: Shape) -> Order:
    """The source's own order.

    Raises:
        DeployError: more elements than any microcontroller's tensor has; checked before memory is taken.
    """
    if math.prod(shape) > _MAX_ELEMENTS:
        raise DeployError(f"a tensor of shape {shape}; the limit is {_MAX_ELEMENTS} elements")
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def channels_last_axes(rank: int) -> tuple[int, ...] | None:
    """For each source axis, its axis in the channels-last form; None where the rank has no such form.

    Images (N, C, H, W) become NHWC, sequences (N, C, L) images of height 1: (N, 1, L, C).
    """
    return {4: (0, 3, 1, 2), 3: (0, 3, 2)}.get(rank)


def channels_last(shape: Shape) -> Order:
    """The order of an image or sequence as NHWC; other ranks stay as they are."""
    if len(shape) == 3:
        shape = (shape[0], shape[1], 1, shape[2])
    if len(shape) != 4:
        return plain(shape)
    return np.ascontiguousarray(plain(shape).transpose(0, 2, 3, 1))


def axes_in(order_is_channels_last: bool, rank: int) -> tuple[int, ...]:
    """For each source axis, its axis in the held tensor, for one of the two canonical orders."""
    axes = channels_last_axes(rank) if order_is_channels_last else None
    return tuple(range(rank)) if axes is None else axes


def permuted(held: Held, dims: Sequence[int]) -> Held:
    """The same elements seen with permuted source axes."""
    dims = [d % held.rank for d in dims]
    if sorted(dims) != list(range(held.rank)):
        raise DeployError(f"a permutation {dims} of {held.rank} axes")
    moved = plain(held.shape).transpose(dims)
    renumbered = np.empty(moved.size, np.int64)
    renumbered[moved.ravel()] = np.arange(moved.size)
    return Held(held.value, tuple(held.shape[d] for d in dims), renumbered[held.order])


def viewed(held: Held, size: Sequence[int]) -> Held:
    """The same elements under another source shape, which may have one -1."""
    return Held(held.value, resolve_view(held.shape, size), held.order)


def resolve_view(shape: Shape, size: Sequence[int]) -> Shape:
    """`size` with its -1 computed; DeployError where it does not hold as many elements as `shape`."""
    known = math.prod(n for n in size if n != -1)
    elements = math.prod(shape)
    result = tuple(elements // max(known, 1) if n == -1 else int(n) for n in size)
    if math.prod(result) != elements or min(result, default=1) < 1:
        raise DeployError(f"{shape} cannot be viewed as {tuple(size)}")
    return result


def same_order(a: Order, b: Order) -> bool:
    """Whether the elements lie in the same sequence, whatever the axes."""
    return a.size == b.size and bool(np.array_equal(a.ravel(), b.ravel()))


def rows_of(held: Held, features: int) -> tuple[Order, Order] | None:
    """The held elements as rows over the last source axis.

    Returns:
        The source's row number of each held row, and the source's column of each held column; None where
        the elements of a row do not lie together, or rows differ in their columns.
    """
    if features < 1 or held.order.size % features:
        return None
    table = held.order.reshape(-1, features)
    rows, columns = table // features, table % features
    if (rows != rows[:, :1]).any() or (columns != columns[:1]).any():
        return None
    return rows[:, 0], columns[0]


def constant_as_held(data: Array, held: Held) -> Array:
    """A constant that PyTorch broadcasts against a tensor, brought to the held order.

    Axes along which it does not vary are kept at length 1, so that it stays small.

    Raises:
        DeployError: the constant is larger than the tensor.
    """
    if data.size == 1:
        return data.astype(np.float32).reshape((1,) * len(held.value.shape))
    try:
        full = np.broadcast_to(data, held.shape).ravel()[held.order]
    except ValueError:
        raise DeployError(
            f"a constant of shape {data.shape} and a tensor of shape {held.shape} do not broadcast"
        ) from None
    for axis in range(full.ndim):
        first = full.take([0], axis)
        if np.array_equal(np.broadcast_to(first, full.shape), full):
            full = first
    return np.ascontiguousarray(full, dtype=np.float32)
