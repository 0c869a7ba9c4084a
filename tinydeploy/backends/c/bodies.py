"""Functions that several layers share, so that their machine code is in flash once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from tinydeploy.backends.c.layer import Layer


@dataclass(frozen=True)
class Body:
    """What layers with one kernel have in common.

    Attributes:
        name: C name.
        layers: indices of the layers that call it; the first is the pattern.
        any_shape: it takes the shapes as arguments; otherwise all layers have the same, as constants.
        scratch: it takes scratch, which a layer that needs none leaves out.
    """

    name: str
    layers: tuple[int, ...]
    any_shape: bool
    scratch: bool


@dataclass(frozen=True)
class _Code:
    """Bytes of machine code of a kernel, as GCC 12.2 made them at -Os for a Cortex-M4.

    Attributes:
        any_shape: with the shape as an argument.
        inside, border: with one constant shape, without and with places outside the image.
    """

    any_shape: int
    inside: int
    border: int

    def of(self, layer: Layer) -> int:
        members = dict(member for shape in layer.code.shapes for member in shape.value.members)
        return self.border if members.get("padded", 0) or members.get("gather", 0) else self.inside


_CODE = {
    "td_add": _Code(500, 155, 155),
    "td_conv_2d": _Code(1550, 450, 660),
    "td_depthwise_conv_2d": _Code(820, 180, 460),
    "td_fully_connected": _Code(1100, 390, 390),
}
"""The kernels that may take their shape as an argument."""

CALL_BYTES, _CALL_ANY_BYTES = 28, 40
"""Of a layer's function that calls a body of one shape, or of any."""


def shared_bodies(layers: Sequence[Layer], name: str, *, any_shape: bool) -> tuple[Body, ...]:
    """The bodies of a model: of equal layers always, of layers with one kernel where that is smaller.

    Args:
        any_shape: the latter is wanted; it takes more cycles.
    """
    found = []
    for alike in _groups(layers, _pattern):
        shapes = _groups(alike, _same)
        if any_shape and _any_shape_is_smaller(alike, shapes):
            kernel = alike[0].code.kernel.removeprefix("td_")
            found.append(_body(f"{name}_any_{kernel}", alike, any_shape=True))
            continue
        found += [
            _body(f"{name}_body_{group[0].index:02d}", group, any_shape=False)
            for group in shapes
            if len(group) > 1
        ]
    return tuple(found)


def _any_shape_is_smaller(alike: Sequence[Layer], shapes: Sequence[Sequence[Layer]]) -> bool:
    code = _CODE.get(alike[0].code.kernel)
    if code is None:
        return False
    each = sum(code.of(group[0]) + (CALL_BYTES * len(group) if len(group) > 1 else 0) for group in shapes)
    structures = sum(shape.value.bytes for layer in alike for shape in layer.code.shapes)
    return code.any_shape + _CALL_ANY_BYTES * len(alike) + structures < each


def _body(name: str, layers: list[Layer], *, any_shape: bool) -> Body:
    indices = tuple(layer.index for layer in layers)
    return Body(name, indices, any_shape, any(layer.scratch for layer in layers))


def _pattern(layer: Layer) -> Hashable:
    """What layers must have in common where shapes are arguments."""
    code = layer.code
    return (
        code.kernel,
        tuple((s.ctype, s.name) for s in code.shapes),
        code.calls,
        tuple((c.role, c.ctype) for c in code.constants),
        tuple((i, v.dtype) for i, v in layer.inputs),
        layer.output.dtype,
    )


def _same(layer: Layer) -> Hashable:
    return _pattern(layer), layer.code.shapes, layer.scratch


def _groups(layers: Sequence[Layer], key: Callable[[Layer], Hashable]) -> list[list[Layer]]:
    """Layers with equal keys together, in the order of the first of each."""
    found: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        found.setdefault(key(layer), []).append(layer)
    return list(found.values())
