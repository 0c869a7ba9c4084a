"""The one typed graph that every model becomes; frozen, in execution order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tinydeploy.ir.types import Value

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
class Border:
    """What stood at a graph's input or output in the source model and became arithmetic of the caller.

    A float model that starts with QUANTIZE is an integer graph whose border is float: `evaluate`
    quantizes the data, the generated header has the macros.
    """

    name: str
    is_float: bool = False


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
    """

    name: str
    values: Mapping[str, Value]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_borders: tuple[Border, ...] = ()
    output_borders: tuple[Border, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
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
