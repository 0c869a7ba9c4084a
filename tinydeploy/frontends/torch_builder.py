"""Collects the values and nodes of a graph while a PyTorch program is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.torch_layout import Held, Order, Shape, channels_last, plain, same_order
from tinydeploy.frontends.torch_program import Call, Tensor
from tinydeploy.ir.graph import Node
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Array, DType, Value, constant

_PERMUTE_HINT = (
    "a permute folds where it stands between layers that take any order; convolutions and pools take"
    " (N, C, H, W) or (N, C, L) as PyTorch does"
)


# Each element of an activation costs 8 bytes here, for where it lies.
_MAX_ELEMENTS = 1 << 26


class UnknownError(DeployError):
    """An operand that an earlier error left without a value; that error says enough."""


@dataclass
class Builder:
    """What has been read so far.

    Attributes:
        constants: arrays by their name in the program, in PyTorch's layout.
        paths: the module path of constants.
        held: activations by their name in the program.
        norm_scales: scales of batch norms by the name of the node that multiplies by them.
    """

    constants: dict[str, Array]
    paths: Mapping[str, str]
    held: dict[str, Held] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    norm_scales: dict[str, Array] = field(default_factory=dict)
    _elements: int = 0

    def input(self, name: str, shape: Shape, layout: Callable[[Shape], Order]) -> Value:
        """A graph input held in `layout`."""
        order = layout(shape)
        value = self._keep(Value(name, DType.FLOAT32, order.shape))
        self.held[name] = Held(value, shape, order)
        return value

    def constant(self, name: str, data: Array) -> Value:
        """A float constant under a free name made from `name`."""
        return self._keep(constant(self._free(name), np.asarray(data, np.float32)))

    def emit(self, name: str, op: Op, inputs: Sequence[Value], shape: Shape, order: Order) -> Held:
        """Adds a node.

        Args:
            name: what it and its output are called, if free.
            shape: the source's shape of the result.
            order: where its elements lie, of as many elements.
        """
        out = op.output_shape(Site(tuple(inputs), ()))
        free = self._free(name)
        value = self._keep(Value(free, DType.FLOAT32, out))
        self.nodes.append(Node(free, op, tuple(v.name for v in inputs), (free,)))
        return Held(value, shape, order.reshape(out))

    def place(self, held: Held, order: Order) -> Value:
        """The value with exactly this order, reshaped where only the axes differ.

        Raises:
            DeployError: the elements lie in another sequence, and only a transposition would help.
        """
        if not same_order(held.order, order):
            raise DeployError("a permute or reshape before it does not fold", hint=_PERMUTE_HINT)
        return self.shaped(held, order.shape)

    def shaped(self, held: Held, shape: Shape) -> Value:
        """The held elements, in their sequence, under another held shape."""
        if held.value.shape == shape:
            return held.value
        name = f"{held.value.name}_{'x'.join(map(str, shape))}"
        known = self.values.get(name)
        if known is not None and any(
            n.outputs == (name,) and n.inputs == (held.value.name,) for n in self.nodes
        ):
            return known
        return self.emit(name, ops.Reshape(shape), [held.value], held.shape, held.order).value

    def canonical(self, held: Held) -> tuple[Value, bool]:
        """The value in channels-last order, or else in plain order; and whether it is channels-last."""
        last = channels_last(held.shape)
        if same_order(held.order, last):
            return self.shaped(held, last.shape), True
        return self.place(held, plain(held.shape)), False

    def _keep(self, value: Value) -> Value:
        self._elements += 0 if value.is_constant else value.elements
        if self._elements > _MAX_ELEMENTS:
            raise DeployError(f"all tensors together have over {_MAX_ELEMENTS} elements, which is the limit")
        self.values[value.name] = value
        return value

    def _free(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self.values:
            count += 1
            candidate = f"{name}_{count}"
        return candidate


@dataclass(frozen=True)
class At:
    """One call where it is read."""

    call: Call
    builder: Builder

    def get(self, name: str, default: Any = None) -> Any:
        """An argument; `default` where the file leaves it out because the schema's default holds."""
        return self.call.arguments.get(name, default)

    def first(self) -> Any:
        """The first tensor argument, whatever its name (`self` or `input`)."""
        return self.get("self", self.get("input"))

    def is_constant(self, argument: Any) -> bool:
        return isinstance(argument, Tensor) and argument.name in self.builder.constants

    def array(self, argument: Any, what: str) -> Array:
        """A constant tensor argument, or a number, in PyTorch's layout."""
        if isinstance(argument, (int, float)):
            return np.array(argument, np.float32)
        if not self.is_constant(argument):
            raise DeployError(f"its {what} is computed while the network runs, and must be a constant")
        return self.builder.constants[argument.name]

    def held(self, argument: Any) -> Held:
        """An activation argument."""
        if not isinstance(argument, Tensor):
            raise DeployError("a tensor argument is missing")
        if argument.name not in self.builder.held:
            if argument.name in self.builder.constants:
                raise DeployError("it reads only constants, and this one is not evaluated")
            raise UnknownError(argument.name)
        return self.builder.held[argument.name]

    def name_from(self, argument: Any) -> str:
        """The module path of a parameter without its last part, which names the layer best."""
        path = self.builder.paths.get(argument.name, "") if isinstance(argument, Tensor) else ""
        return path.rpartition(".")[0] or self.call.name
