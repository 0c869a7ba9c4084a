"""How the values of a graph stand in the ONNX file: which tensor, and in which order of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinydeploy.backends.onnx_forms import clip_ends, native_bits, note, planes_note, real_weights
from tinydeploy.backends.onnx_model import ModelFile
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.graph import Graph, Layout
from tinydeploy.ir.types import Array, Quantization, Value

Order = tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """An ONNX tensor that is `value.transpose(order)`; int8 where the value is, not its real numbers."""

    name: str
    order: Order


def usual_order(rank: int) -> Order:
    """NCHW for what the graph holds as NHWC; other ranks as they are."""
    return (0, 3, 1, 2) if rank == 4 else tuple(range(rank))


def ordered(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    return tuple(shape[a] for a in order)


def same_memory(shape: Sequence[int], a: Order, b: Order) -> bool:
    """Whether two orders differ by the places of axes of size 1 only."""
    return [x for x in a if shape[x] > 1] == [x for x in b if shape[x] > 1]


def inverse(permutation: Sequence[int]) -> Order:
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))


@dataclass
class Tensors:
    """The stored tensors of a graph while it is written."""

    graph: Graph
    file: ModelFile
    _stored: dict[str, Stored] = field(default_factory=dict)
    _moved: dict[tuple[str, Order], str] = field(default_factory=dict)

    def store(self, value: Value, name: str, order: Order) -> None:
        self._stored[value.name] = Stored(name, order)

    def stored(self, value: Value) -> Stored:
        """The tensor of an activation; a constant that stands in its place becomes an initialiser."""
        if value.name not in self._stored:
            name = self.file.constant(value.name, value.array)
            self._stored[value.name] = Stored(name, tuple(range(len(value.shape))))
        return self._stored[value.name]

    def in_order(self, value: Value, order: Order) -> str:
        """The tensor with its axes in this order; transposed once, where that is needed."""
        stored = self.stored(value)
        if stored.order == order:
            return stored.name
        key = (value.name, order)
        if key not in self._moved:
            name = self.file.reserve(f"{value.name}/{'x'.join(map(str, ordered(value.shape, order)))}")
            if same_memory(value.shape, stored.order, order):
                self._moved[key] = self.reshape(stored.name, ordered(value.shape, order), name)
            else:
                permutation = [stored.order.index(a) for a in order]
                self._moved[key] = self.file.node("Transpose", [stored.name], name, perm=permutation)
        return self._moved[key]

    def as_held(self, value: Value) -> str:
        """The tensor in the graph's own order; where that changes nothing in memory, in whatever shape."""
        stored, held = self.stored(value), tuple(range(len(value.shape)))
        return stored.name if same_memory(value.shape, stored.order, held) else self.in_order(value, held)

    def reshape(self, name: str, shape: tuple[int, ...], output: str, node: str = "") -> str:
        target = self.file.constant(f"shape/{'x'.join(map(str, shape))}", np.array(shape, np.int64))
        return self.file.node("Reshape", [name, target], output, name=node)

    def dequantized(
        self, name: str, value: Value, quantization: Quantization | None = None, bits: int | None = None
    ) -> str:
        """The real numbers of an integer tensor, for one reader; float passes.

        Args:
            quantization: where it is not the value's own, as in another order of axes.
            bits: 4 or 2 where the tensor is INT4 or INT2.
        """
        if value.dtype.is_float:
            return name
        q = quantization or value.quant
        parameters = self.file.quantization(value.name, q, value.dtype, bits)
        output = self.file.reserve(f"{value.name}/real")
        attributes: dict[str, Any] = {} if q.axis is None else {"axis": q.axis}
        return self.file.node("DequantizeLinear", [name, *parameters], output, **attributes)

    def quantized(self, name: str, value: Value, output: str) -> str:
        """`name` as the integers of `value`, in `output`; within the bits of its form."""
        ends = clip_ends(value)
        if ends is not None:
            limits = [
                self.file.constant(f"{value.name}/{what}", np.array(end, np.float32))
                for what, end in zip(("low", "high"), ends, strict=True)
            ]
            name = self.file.node("Clip", [name, *limits], self.file.reserve(f"{value.name}/clipped"))
        parameters = self.file.quantization(value.name, value.quant, value.dtype)
        return self.file.node("QuantizeLinear", [name, *parameters], output)

    def parameter(self, value: Value, move: Callable[[Array], Array], axis: int | None = None) -> str:
        """A constant of a layer, brought to ONNX's order of axes, as real numbers.

        Args:
            move: what brings an array of the value's shape to that order.
            axis: where the quantized axis went.
        """
        data, q, form = move(value.array), value.quantization, value.form
        if q is None:
            return self.file.constant(value.name, data)
        if isinstance(form, Planes):
            assert axis is not None
            signs = np.stack([move(plane) for plane in form.signs])
            real = real_weights(data, q, axis)
            return self.file.constant(value.name, real, form=planes_note(form, signs, q, axis))
        bits = native_bits(form)
        name = self.file.constant(value.name, data, bits, None if form is None else note(form))
        moved = Quantization(q.scales, q.zero_points, None if q.axis is None else axis)
        return self.dequantized(name, value, moved, bits)

    def from_source(self, name: str, value: Value, layout: Layout | None) -> Stored:
        """A tensor in the source model's layout, as a stored one."""
        held = tuple(range(len(value.shape)))
        if layout is None:
            return Stored(name, held)
        if layout.split != layout.shape:
            name = self.reshape(name, layout.split, self.file.reserve(f"{value.name}/split"))
        if ordered(layout.split, layout.permutation) == value.shape:
            return Stored(name, inverse(layout.permutation))
        moved = self.file.reserve(f"{value.name}/moved")
        self.file.node("Transpose", [name], moved, perm=list(layout.permutation))
        return Stored(self.reshape(moved, value.shape, self.file.reserve(f"{value.name}/held")), held)

    def to_source(self, value: Value, layout: Layout | None) -> str:
        """The tensor in the source model's layout."""
        held = tuple(range(len(value.shape)))
        if layout is None:
            return self.in_order(value, held)
        back = inverse(layout.permutation)
        if ordered(layout.split, layout.permutation) == value.shape:
            name = self.in_order(value, back)
        else:
            split = self.file.reserve(f"{value.name}/axes")
            self.reshape(self.in_order(value, held), ordered(layout.split, layout.permutation), split)
            name = self.file.node(
                "Transpose", [split], self.file.reserve(f"{value.name}/moved"), perm=list(back)
            )
        if layout.split == layout.shape:
            return name
        return self.reshape(name, layout.shape, self.file.reserve(f"{value.name}/source"))
