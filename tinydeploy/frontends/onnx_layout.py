"""How an ONNX tensor lies in the value that the graph holds for it.

Every axis of the tensor is a sequence of factors, outermost first, and the held value is a sequence of the
same factors in the order of memory. So

- Transpose reorders axes, Reshape regroups and splits factors, and neither computes anything;
- an op that needs NHWC asks for its factors in that order, and gets the held value as it is, at most with
  other dimensions;
- a fully connected layer takes any order and permutes its weights by the same factors.

Axes of size 1 have no factor: where they stand makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinydeploy.errors import DeployError

Shape = tuple[int, ...]

STUCK_HINT = (
    "reshapes and transposes fold where they stand between layers that take any order, and the graph has no"
    " transposition; move it to the border of the model"
)


@dataclass(frozen=True)
class Factor:
    """A run of `size` steps of `stride` elements through the tensor `origin`, in that tensor's order."""

    origin: str
    stride: int
    size: int

    def split(self, outer: int) -> tuple[Factor, Factor]:
        """`outer` runs and what is inside each of them."""
        inner = self.size // outer
        return Factor(self.origin, self.stride * inner, outer), Factor(self.origin, self.stride, inner)

    def joined(self, inner: Factor) -> Factor:
        """This factor with one that lies directly inside it."""
        size = self.size * inner.size
        if self.origin == inner.origin and self.stride == inner.stride * inner.size:
            return Factor(self.origin, inner.stride, size)
        return Factor(f"({self.origin} {self.stride} {inner.origin} {inner.stride})", 1, size)


Factors = tuple[Factor, ...]


def product(factors: Sequence[Factor]) -> int:
    return math.prod(f.size for f in factors)


@dataclass(frozen=True)
class View:
    """An ONNX tensor's axes, and the same factors as they lie in memory."""

    axes: tuple[Factors, ...]
    memory: Factors

    @property
    def shape(self) -> Shape:
        return tuple(product(axis) for axis in self.axes)

    @property
    def elements(self) -> int:
        return product(self.memory)

    def wanted(self, axes: Sequence[int]) -> Factors:
        """The factors in the order that these axes one behind the other have."""
        return tuple(f for a in axes for f in self.axes[a])


def new_view(origin: str, shape: Shape, order: Sequence[int] | None = None) -> View:
    """A tensor of its own.

    Args:
        order: its axes in the order of memory; None for the tensor's own.
    """
    axes: list[Factors] = []
    stride = math.prod(shape)
    for n in shape:
        stride //= n
        axes.append((Factor(origin, stride, n),) if n > 1 else ())
    memory = [axes[a] for a in (range(len(shape)) if order is None else order)]
    return View(tuple(axes), tuple(f for axis in memory for f in axis))


def transposed(view: View, permutation: Sequence[int]) -> View:
    """Raises DeployError where that is no permutation of the axes."""
    if sorted(permutation) != list(range(len(view.axes))):
        raise DeployError(f"the permutation {tuple(permutation)} does not fit {len(view.axes)} axes")
    return View(tuple(view.axes[p] for p in permutation), view.memory)


def reshaped(view: View, shape: Shape) -> View:
    """The same elements under another shape.

    Raises:
        DeployError: the numbers differ, or a new axis would run across memory without a fixed stride.
    """
    if math.prod(shape) != view.elements or any(n < 1 for n in shape):
        raise DeployError(f"{view.shape} cannot be reshaped to {shape}")
    flat, memory = _joined([f for axis in view.axes for f in axis], list(view.memory))
    axes: list[Factors] = []
    for n in shape:
        axis: list[Factor] = []
        while product(axis) < n:
            missing, factor = n // product(axis), flat.pop(0)
            if missing * product(axis) != n or (factor.size > missing and factor.size % missing):
                raise _stuck(view, shape)
            if factor.size > missing:
                parts = factor.split(missing)
                flat.insert(0, parts[1])
                at = memory.index(factor)
                memory[at : at + 1] = parts
                factor = parts[0]
            axis.append(factor)
        if product(axis) != n:
            raise _stuck(view, shape)
        axes.append(tuple(axis))
    return View(tuple(axes), tuple(memory))


def _stuck(view: View, shape: Shape) -> DeployError:
    return DeployError(
        f"a reshape from {view.shape} to {shape} mixes axes that lie in another order in memory",
        hint=STUCK_HINT,
    )


def _joined(flat: list[Factor], memory: list[Factor]) -> tuple[list[Factor], list[Factor]]:
    """Factors that follow each other in both sequences become one, so that a new shape may split anywhere."""
    whole = _wholes(_runs(flat, memory))
    return [whole[f] for f in flat if f in whole], [whole[f] for f in memory if f in whole]


def _runs(flat: Sequence[Factor], memory: Sequence[Factor]) -> list[list[Factor]]:
    """The longest pieces of `flat` that stand in memory in the same order and together."""
    place = {f: i for i, f in enumerate(memory)}
    runs: list[list[Factor]] = []
    for factor in flat:
        if runs and place[factor] == place[runs[-1][-1]] + 1:
            runs[-1].append(factor)
        else:
            runs.append([factor])
    return runs


def _wholes(runs: Sequence[list[Factor]]) -> dict[Factor, Factor]:
    """For the first factor of each run what the run is as one."""
    return {run[0]: _join(run) for run in runs}


def _join(run: list[Factor]) -> Factor:
    result = run[0]
    for factor in run[1:]:
        result = result.joined(factor)
    return result


def simplified(view: View) -> View:
    """The same view with as few factors as possible, so that equal layouts look equal."""
    whole: dict[Factor, Factor] = {}
    for axis in view.axes:
        whole |= _wholes(_runs(axis, view.memory))
    axes = tuple(tuple(whole[f] for f in axis if f in whole) for axis in view.axes)
    return View(axes, tuple(whole[f] for f in view.memory if f in whole))


def signature(view: View) -> tuple[tuple[int, int, int], ...]:
    """Memory as (axis, place inside the axis, size): equal for tensors whose elements lie alike."""
    small = simplified(view)
    names = {f: (a, i, f.size) for a, axis in enumerate(small.axes) for i, f in enumerate(axis)}
    return tuple(names[f] for f in small.memory)


def lies_as(view: View, order: Sequence[int]) -> bool:
    """Whether memory holds the axes in this order."""
    return view.wanted(order) == view.memory


def channels_last(rank: int) -> tuple[int, ...]:
    """(N, C, spatial...) as (N, spatial..., C)."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def orders_of(views: Sequence[View]) -> Iterator[tuple[int, ...]]:
    """Orders of axes that may suit all these tensors of one rank, the usual ones first."""
    rank = len(views[0].axes)
    yield channels_last(rank)
    yield tuple(range(rank))
    for view in views:
        # Axes of size 1 go first; several factors of one axis stand where its first one does.
        place = {f: i for i, f in enumerate(view.memory)}
        first = [min((place[f] for f in axis), default=-1) for axis in view.axes]
        yield tuple(sorted(range(rank), key=first.__getitem__))


def common_order(views: Sequence[View]) -> tuple[int, ...]:
    """An order in which all these tensors lie, or the least bad one: that of the first computed tensor."""
    candidates = list(orders_of(views))
    for order in candidates:
        if all(lies_as(view, order) for view in views):
            return order
    return candidates[2]


def input_order(view: View, name: str, wanted: Factors) -> tuple[Shape, tuple[int, ...]] | None:
    """The split of graph input `name` and its permutation that would make memory what is wanted.

    None where the factors are not those of that input alone.
    """
    if set(wanted) != set(view.memory) or any(f.origin != name for f in wanted):
        return None
    own = sorted(wanted, key=lambda f: -f.stride)
    strides = [f.stride for f in own]
    if strides != [product(own[i + 1 :]) for i in range(len(own))]:
        return None
    return tuple(f.size for f in own), tuple(own.index(f) for f in wanted)
