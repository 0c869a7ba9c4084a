"""The lowered model: every layer with its function, arguments and constants, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.backends.c.bodies import Body, shared_bodies
from tinydeploy.backends.c.coded import PACKED, Coding, code_layers, coding_of
from tinydeploy.backends.c.layer import Context, Layer
from tinydeploy.backends.c.lower import lower
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph
from tinydeploy.ir.types import DType, Value
from tinydeploy.ir.verify import site_of
from tinydeploy.plan import Kernels, Plan


@dataclass(frozen=True)
class Port:
    """An input or output of the generated model: `input` or `output_1`, its value and its border."""

    label: str
    value: Value
    border: Border

    @property
    def ctype(self) -> str:
        return "uint8_t" if self.value.dtype is DType.UINT8 else "int8_t"


@dataclass(frozen=True)
class Model:
    """A graph and its plan, lowered to C.

    Attributes:
        bodies: functions that several layers share.
        codebooks: how codebook indices were asked to be held: packed, huffman or auto.
    """

    name: str
    graph: Graph
    plan: Plan
    layers: tuple[Layer, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    bodies: tuple[Body, ...] = ()
    codebooks: str = PACKED

    @property
    def upper(self) -> str:
        return self.name.upper()

    @property
    def single(self) -> bool:
        """One input and one output, which go to NAME_run as two pointers."""
        return len(self.inputs) == len(self.outputs) == 1

    @property
    def coding(self) -> Coding | None:
        """What is Huffman-coded in flash and decoded at start-up; None where nothing is."""
        return coding_of(self.layers)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of RAM beside the arena."""
        return 0 if self.coding is None else self.coding.ram_bytes

    def body_of(self, layer: Layer) -> Body | None:
        """The shared function that computes a layer; None where the layer's own function does."""
        return next((b for b in self.bodies if layer.index in b.layers), None)

    def place(self, value: str) -> str:
        """The C expression of a value inside NAME_run: a pointer of the caller, or a place in the arena."""
        views = self.plan.storage.view_of
        seen = views.get(value, value)
        same = [seen, *(n for n, v in views.items() if v == seen)]
        for port in self.outputs:
            if port.value.name in same:
                return port.label if self.single else f"io->{port.label}"
        for port in self.inputs:
            if port.value.name in same:
                return port.label if self.single else f"io->{port.label}"
        return f"arena + {self.plan.offset_of(value)}"


def lower_model(
    graph: Graph,
    plan: Plan,
    kernels: Kernels,
    name: str,
    *,
    any_shape: bool = False,
    codebooks: str = PACKED,
    ram: int | None = None,
) -> Model:
    """Lowers every node.

    Args:
        any_shape: layers of different shapes may share a body, which takes the shape at run time.
        codebooks: how flash holds codebook indices.
        ram: with "auto", bytes of RAM that decoded indices may take; None for any.

    Raises:
        DeployError: a float graph, an op without a kernel, or what `code_layers` refuses.
    """
    _require_integer(graph)
    layers: list[Layer] = []
    for node in graph.nodes:
        if node.outputs[0] in plan.storage.view_of:
            continue
        at = Context(node, site_of(graph, node), kernels[node.name], node.name in plan.storage.in_place)
        index = len(layers)
        layers.append(
            Layer(
                index,
                f"{name}_{index:02d}_{node.op.kind.lower()}",
                node,
                lower(at),
                tuple((i, v) for i, v in enumerate(at.site.inputs) if v is not None and not v.is_constant),
                at.site.output,
                at.choice,
                node.op.macs(at.site),
            )
        )
    finished = code_layers(layers, codebooks, ram)
    return Model(
        name,
        graph,
        plan,
        finished,
        _ports("input", graph, graph.inputs, graph.input_borders),
        _ports("output", graph, graph.outputs, graph.output_borders),
        shared_bodies(finished, name, any_shape=any_shape),
        codebooks,
    )


def _ports(stem: str, graph: Graph, names: tuple[str, ...], borders: tuple[Border, ...]) -> tuple[Port, ...]:
    # With one input and one output the labels carry no number; otherwise every one does.
    numbered = len(graph.inputs) > 1 or len(graph.outputs) > 1
    return tuple(
        Port(f"{stem}_{i}" if numbered else stem, graph.value(n), border)
        for i, (n, border) in enumerate(zip(names, borders, strict=True))
    )


def _require_integer(graph: Graph) -> None:
    floats = [v.name for v in graph.values.values() if v.dtype.is_float]
    if floats:
        shown = ", ".join(repr(n) for n in floats[:3])
        raise DeployError(
            f"the model is float ({len(floats)} float tensors, such as {shown})",
            where=graph.source or graph.name,
            hint="generated C is integer only; quantize the model to int8 first",
        )
