"""The one typed graph that every model becomes; frozen, in execution order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.ir.types import Array, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tinydeploy.ir.op import Op


@dataclass(frozen=True)
class Node:
    """One operator where it stands.

    Attributes:
        name: unique in its graph; the original name where the source has one.
        op: the operator with its typed attributes.
        inputs: value names; None where an optional input is absent.
        outputs: value names.
    """

    name: str
    op: Op
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How the source model orders the elements of an input or output that the graph holds in another order.

    `held = source.reshape(split).transpose(permutation).reshape(shape of the value)`

    Attributes:
        shape: the source's shape, for example (1, 3, 32, 32).
        split: the same elements with every axis that moves by itself; mostly equal to `shape`.
        permutation: of the axes of `split`, for example (0, 2, 3, 1).
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    permutation: tuple[int, ...]

    def to_held(self, x: Array, held: tuple[int, ...]) -> Array:
        """Samples (n, *shape) as samples (n, *held), contiguous."""
        axes = (0, *(a + 1 for a in self.permutation))
        moved: Array = x.reshape(-1, *self.split).transpose(axes).reshape(-1, *held)
        return np.ascontiguousarray(moved)

    def to_source(self, y: Array) -> Array:
        """Samples of the held value as samples (n, *shape), contiguous."""
        inverse = sorted(range(len(self.permutation)), key=self.permutation.__getitem__)
        moved = y.reshape(-1, *(self.split[a] for a in self.permutation))
        back: Array = moved.transpose(0, *(a + 1 for a in inverse)).reshape(-1, *self.shape)
        return np.ascontiguousarray(back)


@dataclass(frozen=True)
class Border:
    """What stood at a graph's input or output in the source model and became arithmetic of the caller.

    A float model that starts with QUANTIZE is an integer graph whose border is float: `evaluate`
    quantizes the data, the generated header has the macros.

    Attributes:
        name: the source model's name of the input or output.
        is_float: it is float there.
        layout: where the source orders the elements in another way, such as NCHW; None where it does not.
    """

    name: str
    is_float: bool = False
    layout: Layout | None = None


@dataclass(frozen=True)
class Graph:
    """A network: values, nodes in execution order, and the names of inputs and outputs.

    Attributes:
        name: the model's name.
        values: every value by name.
        nodes: topologically sorted.
        inputs, outputs: names of values, in the source model's order.
        input_borders, output_borders: how the source model presents each of them.
        source: the file or factory it came from, for messages.
        norm_scales: by node name the learned scale (gamma) of the batch norm that the node is, or that was
            folded into it: float, one number a channel of its output. The weights hold it already; it is
            kept because it says how much each channel matters.
    """

    name: str
    values: Mapping[str, Value]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_borders: tuple[Border, ...] = ()
    output_borders: tuple[Border, ...] = ()
    source: str = ""
    norm_scales: Mapping[str, Array] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "norm_scales", MappingProxyType(dict(self.norm_scales)))
        if not self.input_borders:
            object.__setattr__(self, "input_borders", tuple(Border(n) for n in self.inputs))
        if not self.output_borders:
            object.__setattr__(self, "output_borders", tuple(Border(n) for n in self.outputs))

    def value(self, name: str) -> Value:
        return self.values[name]

    def node_inputs(self, node: Node) -> tuple[Value | None, ...]:
        return tuple(None if n is None else self.values[n] for n in node.inputs)

    def node_outputs(self, node: Node) -> tuple[Value, ...]:
        return tuple(self.values[n] for n in node.outputs)

    def constants(self) -> Iterable[Value]:
        return (v for v in self.values.values() if v.is_constant)

    @property
    def is_integer(self) -> bool:
        """Whether no value that flows is float."""
        return not any(v.dtype.is_float for v in self.values.values())
