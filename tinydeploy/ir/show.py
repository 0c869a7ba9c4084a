"""The stable text form of a graph, made for reading and for comparing with diff."""

from __future__ import annotations

import dataclasses
import enum
import zlib
from collections.abc import Iterator

from tinydeploy.ir.forms import Codebook, Form, Packed, Planes
from tinydeploy.ir.graph import Border, Graph, Layout, Node
from tinydeploy.ir.op import Op
from tinydeploy.ir.types import Quantization, Value
from tinydeploy.ir.verify import node_macs


def show(graph: Graph) -> str:
    """One line a tensor and one a layer, in execution order; equal graphs give equal text.

    Activations are numbered `%0`, `%1`, ..., constants `#0`, `#1`, ...; names stand at the end of a line.
    A constant's line holds the CRC-32 of its bytes, so that a changed weight shows.
    """
    return "\n".join(_lines(graph)) + "\n"


def shape_text(shape: tuple[int, ...]) -> str:
    """`1x32x32x3`; `scalar` for ()."""
    return "x".join(map(str, shape)) or "scalar"


def attributes(op: Op) -> dict[str, str]:
    """The attributes of an op that differ from their defaults, as text."""
    result = {}
    for f in dataclasses.fields(op):  # type: ignore[arg-type]  # every Op is a dataclass
        value = getattr(op, f.name)
        if value != f.default:
            result[f.name] = _attribute_text(value)
    return result


def type_text(value: Value) -> str:
    """`int8[1x12] scale 0.00390625 zero point -128`, with the stored form where there is one."""
    text = f"{value.dtype.value}[{shape_text(value.shape)}]"
    if value.form is not None:
        text += f" {form_text(value.form)}"
    return text if value.quantization is None else f"{text} {_quantization_text(value.quantization)}"


def _numbers(graph: Graph) -> dict[str, str]:
    """`%n` by activation and `#n` by constant name, in the order of their first use."""
    activations = [*graph.inputs, *(n for node in graph.nodes for n in node.outputs)]
    names = {name: f"%{i}" for i, name in enumerate(activations)}
    for node in graph.nodes:
        for name in node.inputs:
            if name is not None and name not in names:
                names[name] = f"#{len(names) - len(activations)}"
    return names


def _lines(graph: Graph) -> Iterator[str]:
    numbers = _numbers(graph)
    yield f"graph {graph.name}"
    for name, border in zip(graph.inputs, graph.input_borders, strict=True):
        yield f"input {numbers[name]}: {type_text(graph.value(name))}{_border_text(border)}  {name!r}"
    for name, number in numbers.items():
        value = graph.value(name)
        if value.is_constant:
            yield f"{number}: {type_text(value)} crc {zlib.crc32(value.array.tobytes()):08x}  {name!r}"
    for node in graph.nodes:
        yield _node_line(graph, node, numbers)
    for name, border in zip(graph.outputs, graph.output_borders, strict=True):
        yield f"output {numbers[name]}{_border_text(border)}"


def _node_line(graph: Graph, node: Node, numbers: dict[str, str]) -> str:
    inputs = ", ".join("none" if n is None else numbers[n] for n in node.inputs)
    given = "".join(f" {k}={v}" for k, v in attributes(node.op).items())
    outputs = ", ".join(f"{numbers[n]}: {type_text(graph.value(n))}" for n in node.outputs)
    macs = node_macs(graph, node)
    cost = f", {macs} MACs" if macs else ""
    return f"{outputs} = {node.op.kind}({inputs}){given}{cost}  {node.name!r}"


def form_text(form: Form) -> str:
    """`packed 4`, `codebook 4 of 16`, `planes 3 ternary`, `signs`."""
    match form:
        case Packed():
            return f"packed {form.bits}"
        case Codebook():
            return f"codebook {form.bits} of {len(form.table)}"
        case Planes():
            return f"planes {len(form.signs)}{' ternary' if form.ternary else ''}"
    return "signs"


def layout_text(layout: Layout) -> str:
    """`1x3x32x32 NCHW`: the source's shape, and the order of its axes where that has a name."""
    known = {(0, 2, 3, 1): " NCHW", (0, 2, 1): " NCL"} if layout.split == layout.shape else {}
    return shape_text(layout.shape) + known.get(layout.permutation, "")


def _border_text(border: Border) -> str:
    parts = [f"float32 {border.name!r}"] if border.is_float else []
    parts += [] if border.layout is None else [layout_text(border.layout)]
    return f" ({', '.join(parts)} in the source model)" if parts else ""


def _quantization_text(quant: Quantization) -> str:
    if quant.axis is None:
        return f"scale {quant.scale:.9g} zero point {quant.zero_point}"
    low, high = min(quant.scales), max(quant.scales)
    return f"scales {low:.9g}..{high:.9g} along axis {quant.axis}"


def _attribute_text(value: object) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, f.name) for f in dataclasses.fields(value)]
        return ",".join(_attribute_text(v) for v in fields)
    if isinstance(value, tuple):
        return "x".join(_attribute_text(v) for v in value)
    return str(value)
